"""Code and docs/log-events.md name the same events, levels and keys."""

from __future__ import annotations

import re
from pathlib import Path

from observability import events

DOC = Path(__file__).parents[3] / "docs" / "log-events.md"
_ENTRY = re.compile(
    r"^## (?P<name>\S+)\n\n- Level: (?P<level>\w+)\n- Keys: (?P<keys>.*)\n- Meaning: \S", re.MULTILINE
)


def test_code_and_page_are_in_step() -> None:
    """Every event has its entry, with its level and keys, in the same order."""
    written = [
        (entry["name"], entry["level"], tuple(re.findall(r"`(\w+)`", entry["keys"])))
        for entry in _ENTRY.finditer(DOC.read_text())
    ]
    assert written == [(event.name, event.level.value, event.keys) for event in events.ALL]


def test_names_are_unique_and_say_what_happened() -> None:
    """`noun.past_verb`."""
    names = [event.name for event in events.ALL]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_]+\.[a-z]+", name) for name in names)
