"""What an attack in the corpus is, and how its file is read.

A file that is read wrongly would be an attack that was never tried, so unknown keys, missing words and an attack that nothing
judges are errors. docs/attacks.md is the manual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CORPUS = Path(__file__).resolve().parents[1] / "corpus" / "attacks"

# What is looked at after the steps, beside what is always looked for: bob's secret and his ids in any answer.
JUDGES = frozenset({"state", "secret", "foreign", "reached", "file", "told"})
DOORS = frozenset({"own", "front", "admin", "engine", "bobs"})
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SHAPES = {
    "create": {"create", "name", "image", "api"},
    "ask": {"ask", "body", "text", "headers"},
    "raw": {"raw", "half_close"},
    "play": {"play", "with"},
}
_COMMON = {"as", "through", "twin", "refused", "becomes", "answered", "ok"}
_HEAD = {"title", "danger", "source", "steps", "shown_by", "expected_from"}
_EXPECTED = ("refused", "becomes", "answered", "ok")


class CorpusError(ValueError):
    """A file of the corpus says something that the runner does not understand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """How the step must be refused. `statuses` holds 0 where the connection may be closed without a word."""

    statuses: frozenset[int]
    says: tuple[str, ...]  # one of these; engines do not all say the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that is sent.

    kind: `create`, `ask`, `raw` or `play`; `given` is the step's mapping as written.
    refused, becomes, answered, ok: exactly one is set and says how it must end.
    twin: words replaced in a second sending, whose answer must be the same but for them.
    """

    kind: str
    given: Mapping[str, Any]
    user: str = "alice"
    door: str = "own"
    refused: Refused | None = None
    becomes: Mapping[str, Any] | None = None
    answered: int | None = None
    ok: bool = False
    twin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One file. `expected_from` names the part of ds01 that will refuse it and is not there yet."""

    id: str
    title: str
    danger: str
    source: str
    steps: tuple[Step, ...]
    shown_by: tuple[str, ...]
    files: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    expected_from: str = ""

    @property
    def family(self) -> str:
        return self.id.partition("/")[0]


def load_all(root: Path = CORPUS, *, only: str = "") -> list[Attack]:
    """Every attack below `root` whose id holds `only`, in order. Raises: CorpusError."""
    found = [load(path, root) for path in sorted(root.rglob("*.yaml"))]
    return [attack for attack in found if only in attack.id]


def load(path: Path, root: Path = CORPUS) -> Attack:
    """Read one file. Raises: CorpusError, which names it."""
    name = str(path.relative_to(root).with_suffix(""))
    try:
        document = yaml.load(path.read_text("utf-8"), _LOADER)
        return _attack(name, document)
    except (CorpusError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise CorpusError(f"{path}: {error!r}") from error


def _attack(name: str, document: Mapping[str, Any]) -> Attack:
    _only(document, _HEAD)
    words = {key: str(document[key]).strip() for key in ("title", "danger", "source")}
    if empty := [key for key, text in words.items() if not text]:
        raise CorpusError(f"empty: {empty}")
    steps = tuple(_step(item) for item in document["steps"])
    if not any(step.ok is False for step in steps):
        raise CorpusError("no step is an attack: all are preparations (ok)")
    judges = tuple(document.get("shown_by") or ())
    names = tuple(judge if isinstance(judge, str) else next(iter(judge)) for judge in judges)
    if unknown := set(names) - JUDGES:
        raise CorpusError(f"unknown judges {sorted(unknown)}")
    if not names and not any(step.becomes or step.kind == "play" for step in steps):
        raise CorpusError("judged by nothing: shown_by is empty")
    return Attack(
        id=name,
        **words,
        steps=steps,
        shown_by=names,
        files=tuple(_named(judges, "file")),
        told=tuple(_named(judges, "told")),
        expected_from=str(document.get("expected_from", "")),
    )


def _named(judges: tuple[Any, ...], kind: str) -> Iterator[str]:
    return (str(judge[kind]) for judge in judges if isinstance(judge, dict) and kind in judge)


def _step(given: Mapping[str, Any]) -> Step:
    kind = next((key for key in _SHAPES if key in given), None)
    if kind is None:
        raise CorpusError(f"a step is one of {sorted(_SHAPES)}, and not {dict(given)}")
    _only(given, _SHAPES[kind] | _COMMON)
    ends = [key for key in _EXPECTED if key in given]
    if len(ends) != 1:
        raise CorpusError(f"a step ends in one of {_EXPECTED}, and not in {ends}")
    if (door := given.get("through", "own")) not in DOORS:
        raise CorpusError(f"unknown door {door}")
    return Step(
        kind=kind,
        given=given,
        user=given.get("as", "alice"),
        door=door,
        refused=_refused(given["refused"]) if "refused" in given else None,
        becomes=given.get("becomes"),
        answered=given.get("answered"),
        ok=bool(given.get("ok")),
        twin=given.get("twin") or {},
    )


def _refused(given: Mapping[str, Any]) -> Refused:
    _only(given, {"status", "says", "rule"})
    status = given["status"]
    statuses = frozenset(status if isinstance(status, list) else [status])
    said = f"(rule {given['rule']})" if "rule" in given else given.get("says", "")
    says = tuple(said) if isinstance(said, list) else (said,)
    if not all(says) and statuses != {0}:
        raise CorpusError("a refusal is checked by its reason as well: says or rule")
    return Refused(statuses=statuses, says=says)


def _only(given: Mapping[str, Any], known: set[str]) -> None:
    if unknown := set(given) - known:
        raise CorpusError(f"unknown keys {sorted(unknown)}")


def text_of(pieces: object) -> bytes:
    """Bytes of a `raw` or `text` value: a string, or a list of strings and `{times: N, of: STRING}`.

    One character is one byte (latin-1), so that every byte can be written.
    """
    if isinstance(pieces, str):
        return pieces.encode("latin-1")
    if isinstance(pieces, dict):
        return text_of(pieces["of"]) * int(pieces["times"])
    if isinstance(pieces, list):
        return b"".join(text_of(piece) for piece in pieces)
    raise CorpusError(f"no bytes: {pieces!r}")
