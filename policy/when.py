"""When a reservation holds: "Tue 10:00-12:00", "Mon-Fri 09:00-17:00", "daily 22:00-06:00", "2026-12-01 10:00-12:00".

Owns the text and its value; which moments it means, in a time zone, is `allocator.reservations`'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_TIME = r"([01][0-9]|2[0-4]):([0-5][0-9])"
_WHEN = re.compile(rf"(\S+) {_TIME}-{_TIME}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True, kw_only=True)
class When:
    """Local times of some weekdays, or of one date.

    weekdays: 0 is Monday; empty with a `day`.
    begin, end: minutes after midnight; an `end` that is not after `begin` is on the next day.
    """

    weekdays: frozenset[int] = frozenset()
    day: date | None = None
    begin: int
    end: int


def parse_when(text: str) -> When:
    """Raises: ValueError: it says what to write."""
    found = _WHEN.fullmatch(text)
    if found is None:
        raise ValueError('must be days and times, like "Tue 10:00-12:00" or "2026-12-01 10:00-12:00"')
    begin, end = (int(found[at]) * 60 + int(found[at + 1]) for at in (2, 4))
    if begin >= _DAY_MINUTES or end > _DAY_MINUTES or begin == end:
        raise ValueError("must begin before 24:00 and end at another time than it begins")
    if _DATE.fullmatch(found[1]):
        return When(day=date.fromisoformat(found[1]), begin=begin, end=end)
    return When(weekdays=_weekdays(found[1]), begin=begin, end=end)


def _weekdays(text: str) -> frozenset[int]:
    if text == "daily":
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError(f"{part[:20]} is no day; write {', '.join(DAYS)}, Mon-Fri, daily or a date")
        begin, end = DAYS.index(first), DAYS.index(last or first)
        found.update(range(begin, end + 1) if begin <= end else [*range(begin, 7), *range(end + 1)])
    return frozenset(found)
