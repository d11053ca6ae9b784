"""Amounts in words for people."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """A time for people: 40s, 12min, 3h 5min, 2d 4h."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    minutes, hours, days = whole // 60 % 60, whole // 3600 % 24, whole // 86400
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}min" if hours else f"{minutes}min"
