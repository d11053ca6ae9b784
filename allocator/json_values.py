"""Strict reading of JSON that is sent to the allocator: one object, known fields, bounded values."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from allocator.slices import compute_slices
from policy.gpu_bounds import LONGEST_TEXT
from policy.model import ContainerId

if TYPE_CHECKING:
    from collections.abc import Mapping

UID_MAX: Final = 2**32 - 2
_TEXT = re.compile(rf"[ -~]{{1,{LONGEST_TEXT}}}")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_EQUIVALENTS = re.compile(r"[0-9]{1,7}(/[1-9][0-9]{0,3})?", re.ASCII)


class BadInput(Exception):  # noqa: N818  the name says what is wrong
    """The request cannot be read: 400. The text names the field."""


def parse_body(data: bytes) -> Mapping[str, Any]:
    """One JSON object without duplicate keys. Raises: BadInput."""
    try:
        body = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadInput("the body is not one JSON object") from error
    if not isinstance(body, dict):
        raise BadInput("the body is not one JSON object")
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def only(
    body: Mapping[str, Any], *, required: set[str], optional: set[str] | None = None
) -> Mapping[str, Any]:
    missing, unknown = required - body.keys(), body.keys() - required - (optional or set())
    if missing or unknown:
        raise BadInput(f"{min(missing or unknown)[:80]}: {'missing' if missing else 'unknown field'}")
    return body


def number_of(value: Any, name: str, *, least: int = 0, most: int) -> int:
    # A bool is an int in Python, and no number here.
    if type(value) is not int or not least <= value <= most:
        raise BadInput(f"{name}: a whole number from {least} to {most} is needed")
    return value


def fraction_of(value: Any, name: str) -> Fraction:
    if not isinstance(value, str) or not _EQUIVALENTS.fullmatch(value):
        raise BadInput(f"{name}: whole GPUs as text are needed, like 2 or 10/7")
    return Fraction(value)


def text_of(value: Any, name: str) -> str:
    """Raises: BadInput."""
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise BadInput(f"{name}: 1 to {LONGEST_TEXT} printable ASCII characters are needed")
    return value


def name_of(value: Any, name: str) -> str:
    """A name from the policy, or a person's words: one line, in any script."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_TEXT or not value.isprintable():
        raise BadInput(f"{name}: 1 to {LONGEST_TEXT} printable characters are needed")
    return value


def profile_of(value: Any, name: str, words: set[str]) -> str:
    if not isinstance(value, str) or (value not in words and compute_slices(value) is None):
        raise BadInput(f"{name}: a MIG profile or one of {', '.join(sorted(words))} is needed")
    return value


def container_of(value: Any, name: str) -> ContainerId:
    if not isinstance(value, str) or not _CONTAINER.fullmatch(value):
        raise BadInput(f"{name}: a full container id is needed")
    return ContainerId(value)


def list_of(value: Any, name: str, *, most: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{name}: a list is needed")
    if most is not None and len(value) > most:
        raise BadInput(f"{name}: at most {most} are needed")
    return value


def object_of(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{name}: objects are needed")
    return value
