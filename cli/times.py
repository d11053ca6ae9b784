"""Lengths of time as options take them: 90s, 15m, 8h, 7d."""

from __future__ import annotations

from cli.outcome import Exit, Failed
from policy.spoken import parse_seconds


def seconds_of(option: str, text: str) -> int:
    """What was typed after `option`. Raises: Failed: USAGE: it is no time."""
    seconds = parse_seconds(text, most_digits=7)
    if seconds is None:
        raise Failed(Exit.USAGE, f"{option} {text} is no time; write it like 30m, 8h or 7d")
    return seconds
