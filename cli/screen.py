"""Words on a terminal: units, columns, colour. Everything that came over a socket passes `plain` first."""

from __future__ import annotations

import os
import pwd
import re
import sys
from collections.abc import Sequence
from typing import TextIO

_UNITS = (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024))
_PAINT = re.compile("\x1b\\[[0-9]+m")
_COLOURS = {"good": "32", "warn": "33", "bad": "31", "dim": "2"}


def plain(value: object) -> str:
    """Text without control characters; None is a dash.

    SECURITY: users choose names, images and field values; an escape sequence must not reach the admin's terminal.
    """
    text = "-" if value is None else str(value)
    return "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)


def login(uid: int) -> str:
    """A login name, or the uid without an account."""
    try:
        return plain(pwd.getpwuid(uid).pw_name)
    except KeyError:
        return f"uid {uid}"


def paint(text: str, colour: str, *, out: TextIO | None = None) -> str:
    """`text` in good, warn, bad or dim: only on a terminal, and not with NO_COLOR."""
    out = out or sys.stdout
    if not out.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def size(count_bytes: int) -> str:
    """16GiB, as the policy file writes it; -1 is unlimited."""
    if count_bytes < 0:
        return "unlimited"
    for unit, factor in _UNITS:
        if count_bytes >= factor:
            return f"{count_bytes / factor:.4g}{unit}"
    return f"{count_bytes}B"


def columns(rows: Sequence[Sequence[str]], *, indent: str = "") -> list[str]:
    """Rows as lines, each column as wide as its widest cell, two spaces between."""
    count = max(map(len, rows), default=0)
    widths = [max(_width(row[at]) for row in rows if at < len(row)) for at in range(count)]
    return [indent + "  ".join(map(_padded, row, widths)).rstrip() for row in rows]


def _padded(cell: str, width: int) -> str:
    return cell + " " * (width - _width(cell))


def _width(cell: str) -> int:
    return len(_PAINT.sub("", cell))  # colour takes no room
