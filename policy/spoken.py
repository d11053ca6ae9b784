"""Times as people read and write them. Pure."""

from __future__ import annotations

import re

_TIME = re.compile(r"([0-9]+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_seconds(text: str, *, most_digits: int = 6) -> int | None:
    """The seconds of 90s, 15m, 8h or 7d; None: it is written otherwise, or longer than that."""
    found = _TIME.fullmatch(text)
    if found is None or len(found[1]) > most_digits:
        return None
    return int(found[1]) * _SECONDS[found[2]]


def duration(seconds: float) -> str:
    """A time for people: 40s, 12min, 3h 5min, 2d 4h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}min" if hours else f"{minutes}min"
