"""Typed looks at canonical JSON, and values made fit for a one-line message.

The reader has already checked types; a shape that still differs raises TypeError, and a rule that raises denies.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from policy.model import Json

SHOWN_CHARS = 80
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def as_object(value: Json | Mapping[str, Json]) -> Mapping[str, Json]:
    """An object; absent counts as empty."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError("an object was expected")
    return value


def as_list(value: Json) -> list[Json]:
    """A list; absent counts as empty."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise TypeError("a list was expected")
    return value


def as_strings(value: Json) -> list[str]:
    """A list of strings; absent counts as empty."""
    items = as_list(value)
    if not all(isinstance(item, str) for item in items):
        raise TypeError("a list of strings was expected")
    return cast("list[str]", items)


def as_text(value: Json) -> str:
    """A string; absent counts as empty."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("a string was expected")
    return value


def as_int(value: Json) -> int:
    """A whole number; absent counts as 0, which is what dockerd takes it for."""
    if value is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError("a whole number was expected")
    return value


def as_bool(value: Json) -> bool:
    """A boolean; absent counts as False."""
    if value is None:
        return False
    if not isinstance(value, bool):
        raise TypeError("a boolean was expected")
    return value


def shown(value: Any) -> str:
    """A value as a message may hold it: one line of ASCII, at most 80 characters."""
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 3] + "..."


def size_bytes(text: str) -> int:
    """A size as Docker's options write it, 10m or 512kb; 0 if it is none, or of more than 12 digits."""
    lowered = text.lower().removesuffix("b")
    digits = lowered.rstrip("kmg")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 12):
        return 0
    return int(digits) * _UNITS.get(lowered[len(digits) :], 0)


def size_text(count: int) -> str:
    """Bytes as people write them: 16GiB, 512MiB, 1000 bytes."""
    for unit, factor in (("TiB", 1024**4), ("GiB", 1024**3), ("MiB", 1024**2), ("KiB", 1024)):
        if count >= factor and count * 10 % factor == 0:
            return f"{count / factor:g}{unit}"
    return f"{count} bytes"
