"""When a reservation holds."""

from __future__ import annotations

from datetime import date

import pytest

from policy.when import When, parse_when


@pytest.mark.parametrize(
    ("text", "when"),
    [
        ("Tue 10:00-12:00", When(weekdays=frozenset({1}), begin=600, end=720)),
        ("Mon-Fri 09:00-17:00", When(weekdays=frozenset(range(5)), begin=540, end=1020)),
        ("Sat,Sun 00:00-24:00", When(weekdays=frozenset({5, 6}), begin=0, end=1440)),
        ("Fri-Mon 22:00-06:00", When(weekdays=frozenset({4, 5, 6, 0}), begin=1320, end=360)),
        ("daily 12:00-13:30", When(weekdays=frozenset(range(7)), begin=720, end=810)),
        ("2026-12-01 10:00-12:00", When(day=date(2026, 12, 1), begin=600, end=720)),
    ],
)
def test_times_are_read(text: str, when: When) -> None:
    """Days, ranges of days, all days or one date, and two times."""
    assert parse_when(text) == when


@pytest.mark.parametrize(
    "text",
    [
        *("", "Tue", "Tue 10-12", "tue 10:00-12:00", "Tue 10:00-10:00", "Tue 24:00-25:00", "Tue 24:00-01:00"),
        *("2026-02-30 10:00-12:00", "Die 10:00-12:00", "Mon- 10:00-12:00,", "Tue 10:00 - 12:00"),
    ],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """With a sentence that says what to write."""
    with pytest.raises(ValueError, match=r".+"):
        parse_when(text)
