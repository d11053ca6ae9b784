"""The page about engines says what was run, no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compatibility import ALIKE, Case, Outcome, main, page, read_cases, titles_of

REPORT = """<testsuites><testsuite>
<testcase classname="tests.integration.test_x" name="test_good"/>
<testcase classname="tests.integration.test_x" name="test_bad"><failure message="assert 1 == 2&#10;more"/></testcase>
<testcase classname="tests.integration.clients.test_y" name="test_client[28]"><skipped message="no such client"/></testcase>
<testcase classname="tests.integration.clients.test_y" name="test_client[20]"/>
<testcase classname="tests.integration.clients.test_y" name="test_client[20]"><error message="at the end"/></testcase>
</testsuite></testsuites>"""


def case(
    engine: str, name: str, outcome: Outcome = Outcome.PASSED, *, module: str = "clients.test_y"
) -> Case:
    return Case(engine=engine, module=f"tests.integration.{module}", name=name, outcome=outcome)


def test_a_report_is_read_case_by_case() -> None:
    """What failed, in the test or after it, is failed; the first line of the reason is kept."""
    found = {one.name: (one.outcome, one.reason) for one in read_cases(REPORT, engine="28.5")}
    assert found == {
        "test_good": (Outcome.PASSED, ""),
        "test_bad": (Outcome.FAILED, "assert 1 == 2"),
        "test_client[28]": (Outcome.SKIPPED, "no such client"),
        "test_client[20]": (Outcome.FAILED, "at the end"),
    }


def test_what_an_engine_rules_out_is_no_gap() -> None:
    """A test that does not apply says why, and does not count among all; a client that is missing does."""
    report = REPORT.replace("no such client", "does not apply: it is too old").replace(
        '<error message="at the end"/>', ""
    )
    text = page(read_cases(report, engine="20.10"), titles={})
    assert "work unchanged: 1 of 1." in text
    assert "| test_client (28) | does not apply |" in text
    assert "- 20.10, does not apply: test_client (28): it is too old" in text


def test_what_fails_without_ds01_too_is_told() -> None:
    """A test reports it as a property of its own; the page says on which engine."""
    found = f'"><properties><property name="{ALIKE}" value="old client: up"/></properties></testcase>'
    text = page(read_cases(REPORT.replace('test_good"/>', f"test_good{found}"), engine="28.5"), titles={})
    assert text.rstrip().endswith("- 28.5: old client: up")
    assert page([], titles={}).rstrip().endswith("Nothing.")


def test_a_failure_is_not_undone_by_what_follows() -> None:
    """A test that failed and whose clean-up went well has failed."""
    report = REPORT.replace('test_client[20]"/>', 'test_client[20]"><failure message="first"/></testcase>')
    assert [one.reason for one in read_cases(report, engine="1") if one.name == "test_client[20]"] == [
        "first"
    ]


def test_only_what_passed_works_unchanged() -> None:
    """Skipped and failed workflows count among all and not among those that work."""
    cases = [case("20.10", "a"), case("20.10", "b", Outcome.SKIPPED), case("28.5", "a", Outcome.FAILED)]
    text = page([*cases, case("28.5", "c", module="test_x")], titles={})
    assert "work unchanged: 1 of 3." in text


def test_each_engine_is_a_column_in_order_of_versions() -> None:
    """An engine on which a test was not run says so."""
    text = page(
        [case("26.1", "a"), case("9.1", "b", Outcome.FAILED)],
        titles={"tests.integration.clients.test_y.a": "A."},
    )
    assert "| Workflow | 9.1 | 26.1 |" in text
    assert "| A | not run | passed |" in text
    assert "| b | failed | not run |" in text
    assert "- 9.1, failed: b: no reason given" in text


def test_suites_are_summed_up() -> None:
    """Of a suite the numbers are told."""
    cases = [case("1.0", name, module="test_x") for name in "ab"]
    text = page(
        [*cases, case("1.0", "c", Outcome.SKIPPED, module="test_x")],
        titles={"tests.integration.test_x": "Xs"},
    )
    assert "| Xs | 2 passed, 1 skipped |" in text


def test_what_was_left_out_is_told() -> None:
    """For each engine the modules without a single case; "Nothing." only where there is none."""
    cases = [
        case("1.0", "a", module="test_x"),
        case("1.0", "b", module="test_y"),
        case("2.0", "a", module="test_x"),
    ]
    modules = ["tests.integration.test_x", "tests.integration.test_y"]
    text = page(cases, titles={}, modules=modules)
    assert "- 2.0, not run: test_y" in text
    assert "- 1.0, not run" not in text
    assert "Nothing." in page(cases[:2], titles={}, modules=modules)


def test_titles_are_first_lines_of_docstrings(tmp_path: Path) -> None:
    """Modules and tests are told by their own words."""
    (tmp_path / "m.py").write_text(
        '"""About it.\n\nMore."""\ndef test_a():\n    """It does."""\ndef test_b(): ...\n'
    )
    assert titles_of(["m"], root=tmp_path) == {"m": "About it", "m.test_a": "It does", "m.test_b": "test_b"}


@pytest.mark.parametrize(("failure", "code"), [("", 0), ("<failure/>", 1)])
def test_a_failure_is_told_by_the_exit_code(
    tmp_path: Path, failure: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The program writes the page either way, and prints the sum."""
    name = "tests.integration.clients.test_docker"
    (tmp_path / "28.5.xml").write_text(
        f'<t><testcase classname="{name}" name="test_a">{failure}</testcase></t>'
    )
    assert main([str(tmp_path), str(tmp_path / "page.md")]) == code
    assert "# Compatibility" in (tmp_path / "page.md").read_text()
    assert f"{1 - code} of 1" in capsys.readouterr().out
