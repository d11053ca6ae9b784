"""Amounts in words for people."""

from __future__ import annotations

import pytest

from policy.spoken import duration


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.9, "59s"), (720, "12min"), (11100, "3h 5min"), (187200, "2d 4h")]
)
def test_times_are_for_people(seconds: float, text: str) -> None:
    """Two units at most."""
    assert duration(seconds) == text
