"""Times as people read and write them."""

from __future__ import annotations

import pytest

from policy.spoken import duration, parse_seconds


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (720, "12min"), (11100, "3h 5min"), (187200, "2d 4h")]
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    """Two units at most."""
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0), ("90s", 90), ("15m", 900), ("8h", 28800), ("999999d", 86399913600)]
)
def test_a_number_and_a_unit_are_seconds(text: str, seconds: int) -> None:
    """Seconds, minutes, hours or days."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "1h30m", "-1h", "1.5h", "\u0661h", "1w", "1h\n", "1000000s"])
def test_anything_else_is_no_time(text: str) -> None:
    """Nor is a number of more digits than are taken."""
    assert parse_seconds(text) is None
