"""Lengths of time as options take them: 90s, 15m, 8h, 7d."""

from __future__ import annotations

import re

from cli.outcome import Exit, Failed

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TIME = re.compile(r"([0-9]{1,7})([smhd])", re.ASCII)


def seconds_of(option: str, text: str) -> int:
    """What was typed after `option`. Raises: Failed: USAGE: it is no time."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise Failed(Exit.USAGE, f"{option} {text} is no time; write it like 30m, 8h or 7d")
    return int(found[1]) * _SECONDS[found[2]]
