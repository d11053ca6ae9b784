"""Writes docs/compatibility.md from what pytest reported for each engine: `python -m tests.compatibility REPORTS PAGE`.

REPORTS is a directory with one `<engine>.xml` (JUnit form) for each engine that was tested. Nothing in the page is
written by hand, so nothing in it is better than what was run.
"""

from __future__ import annotations

import ast
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

CLIENTS = "tests.integration.clients."
_ROOT = Path(__file__).resolve().parents[1]


DOES_NOT_APPLY = "does not apply: "  # how the reason begins of a test that is skipped by what its engine is
ALIKE = "fails without ds01 alike"  # the property by which a test reports what it saw fail both ways


class Outcome(StrEnum):
    """How one test ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    NONE = "does not apply"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test on one engine. `reason` is told for what did not pass; `alike` is what it saw fail without ds01 too."""

    engine: str
    module: str
    name: str
    outcome: Outcome
    reason: str = ""
    alike: tuple[str, ...] = ()


def read_cases(report: str, *, engine: str) -> list[Case]:
    """Every test of one JUnit report. A test with an error at its end is one case, and failed."""
    cases: dict[tuple[str, str], Case] = {}
    for element in ET.fromstring(report).iter("testcase"):
        # pytest's own word on a run that was interrupted stands under no module, and is no passing test.
        module, name = element.attrib.get("classname", ""), element.attrib["name"]
        case = _case(element, engine=engine, module=module, name=name)
        earlier = cases.get((module, name))
        if earlier is None or earlier.outcome is not Outcome.FAILED:
            cases[module, name] = case
    return list(cases.values())


def _case(element: ET.Element, *, engine: str, module: str, name: str) -> Case:
    outcome, reason = _ending(element)
    properties = [each for each in element.iter("property") if each.attrib["name"] == ALIKE]
    alike = tuple(each.attrib["value"] for each in properties)
    return Case(engine=engine, module=module, name=name, outcome=outcome, reason=reason, alike=alike)


def _ending(element: ET.Element) -> tuple[Outcome, str]:
    for tag, outcome in (
        ("failure", Outcome.FAILED),
        ("error", Outcome.FAILED),
        ("skipped", Outcome.SKIPPED),
    ):
        if (found := element.find(tag)) is not None:
            first = (found.attrib.get("message", "").splitlines() or [""])[0]
            if outcome is Outcome.SKIPPED and first.startswith(DOES_NOT_APPLY):
                return Outcome.NONE, first.removeprefix(DOES_NOT_APPLY)
            return outcome, first
    return Outcome.PASSED, ""


def page(cases: Sequence[Case], *, titles: Mapping[str, str], modules: Iterable[str] = ()) -> str:
    """The whole page. `titles` says in a sentence what a module or a test is about; `modules` are all there are."""
    engines = sorted({case.engine for case in cases}, key=_version)
    suites = [case for case in cases if not case.module.startswith(CLIENTS)]
    workflows = [case for case in cases if case.module.startswith(CLIENTS)]
    applying = len(workflows) - _count(workflows, Outcome.NONE)
    return "\n".join(
        [
            "# Compatibility",
            "",
            "Written by `script/test --clients --engines all`, never by hand. Each column is a dockerd that the tests were run on.",
            "",
            f"Client workflows that work unchanged: {_count(workflows, Outcome.PASSED)} of {applying}.",
            "",
            "## Client workflows",
            "",
            "Each is ten steps or more, taken by two users at the same time, with no flag or setting of ds01's.",
            "",
            *_table("Workflow", engines, _by_test(workflows, titles)),
            "",
            "## Suites",
            "",
            *_table("What is tested", engines, _by_module(suites, titles)),
            "",
            "## What did not run or failed, and why",
            "",
            *([*_notes(cases, titles), *_left_out(cases, modules)] or ["Nothing."]),
            "",
            "## What fails on the same dockerd without ds01 in the same words",
            "",
            *([f"- {case.engine}: {text}" for case in cases for text in case.alike] or ["Nothing."]),
            "",
        ]
    )


def _table(head: str, engines: Sequence[str], rows: Mapping[str, Sequence[Case]]) -> list[str]:
    lines = [f"| {head} | {' | '.join(engines)} |", f"|---|{'---|' * len(engines)}"]
    for title, cases in rows.items():
        cells = (_cell([case for case in cases if case.engine == engine]) for engine in engines)
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return lines


def _by_test(cases: Iterable[Case], titles: Mapping[str, str]) -> dict[str, list[Case]]:
    rows: dict[str, list[Case]] = {}
    for case in cases:
        rows.setdefault(_title(case, titles), []).append(case)
    return rows


def _by_module(cases: Iterable[Case], titles: Mapping[str, str]) -> dict[str, list[Case]]:
    rows: dict[str, list[Case]] = {}
    for case in sorted(cases, key=lambda case: case.module):
        rows.setdefault(titles.get(case.module, case.module), []).append(case)
    return rows


def _title(case: Case, titles: Mapping[str, str]) -> str:
    """A test's sentence, and which of its parameters."""
    function, bracket, parameter = case.name.partition("[")
    sentence = titles.get(f"{case.module}.{function}", function).rstrip(".")
    return f"{sentence} ({parameter.removesuffix(']')})" if bracket else sentence


def _cell(cases: Sequence[Case]) -> str:
    if not cases:
        return "not run"
    counts = Counter(case.outcome for case in cases)
    if len(cases) == 1:
        return str(cases[0].outcome)
    return ", ".join(f"{counts[outcome]} {outcome}" for outcome in Outcome if counts[outcome])


def _notes(cases: Iterable[Case], titles: Mapping[str, str]) -> list[str]:
    return [
        f"- {case.engine}, {case.outcome}: {_title(case, titles)}: {case.reason or 'no reason given'}"
        for case in cases
        if case.outcome is not Outcome.PASSED
    ]


def _left_out(cases: Sequence[Case], modules: Iterable[str]) -> list[str]:
    """For each engine the modules that none of its cases is from."""
    lines = []
    for engine in sorted({case.engine for case in cases}, key=_version):
        run = {case.module for case in cases if case.engine == engine}
        if missing := sorted(set(modules) - run):
            names = ", ".join(module.rpartition(".")[2] for module in missing)
            lines.append(f"- {engine}, not run: {names}")
    return lines


def _count(cases: Iterable[Case], outcome: Outcome) -> int:
    return sum(case.outcome is outcome for case in cases)


def _version(engine: str) -> tuple[int, ...]:
    return tuple(int(part) for part in engine.split("."))


def titles_of(modules: Iterable[str], *, root: Path = _ROOT) -> dict[str, str]:
    """The first line of each module's docstring, and of each of its tests'."""
    titles: dict[str, str] = {}
    for module in set(modules):
        tree = ast.parse((root / module.replace(".", "/")).with_suffix(".py").read_text())
        titles[module] = _first_line(tree, module)
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                titles[f"{module}.{node.name}"] = _first_line(node, node.name)
    return titles


def _first_line(node: ast.Module | ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> str:
    return (ast.get_docstring(node) or name).splitlines()[0].rstrip(".").replace("|", "\\|")


def main(arguments: Sequence[str]) -> int:
    """Write the page and print its sum. Exit code 1: a report has a failure."""
    reports, target = map(Path, arguments)
    cases = [
        case
        for path in sorted(reports.glob("*.xml"))
        for case in read_cases(path.read_text(), engine=path.stem)
    ]
    integration = (_ROOT / "tests" / "integration").rglob("test_*.py")
    modules = [".".join(path.relative_to(_ROOT).with_suffix("").parts) for path in integration]
    text = page(cases, titles=titles_of(case.module for case in cases), modules=modules)
    target.write_text(text)
    print(next(line for line in text.splitlines() if line.startswith("Client workflows that")))
    return 1 if _count(cases, Outcome.FAILED) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
