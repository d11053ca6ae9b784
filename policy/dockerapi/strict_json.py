"""JSON text that every reader reads alike, and the one way ds01 writes it.

Owns bytes to values and back. dockerd's decoder merges duplicate keys, ignores what follows the document
and replaces bad UTF-8 (Engine 20.10.24, tried); each of those is refused here.
"""

from __future__ import annotations

import json
from typing import NoReturn

from policy.dockerapi.model import MalformedRequest
from policy.dockerapi.schema import INT64_MAX, INT64_MIN, shown
from policy.model import Json

BODY_BYTES_MAX = 900 * 1024  # SOURCE: dockerd shows its plugin no body above 1 MiB, and older engines less
DEPTH_MAX = 32
VALUES_MAX = (
    20_000  # in one document: a hundred times what clients send, and a few milliseconds of everybody's time
)
_INT64_DIGITS = 20


def parse(text: str, *, what: str) -> Json:
    """The one value in `text`; `what` names it in messages.

    Raises: MalformedRequest: not JSON, or JSON that two readers could read differently.
    """
    try:
        value: Json = _DECODER.decode(text)
    except RecursionError:
        raise MalformedRequest(f"{what} is nested deeper than {DEPTH_MAX} levels") from None
    except ValueError:
        raise MalformedRequest(f"{what} is not one valid JSON document") from None
    _check(value, what)
    return value


def parse_bytes(body: bytes, *, what: str) -> Json:
    """As `parse`, from strict UTF-8 without a byte order mark, of at most `BODY_BYTES_MAX` bytes."""
    if len(body) > BODY_BYTES_MAX:
        raise MalformedRequest(f"{what} is larger than {BODY_BYTES_MAX} bytes")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedRequest(f"{what} is not UTF-8") from None
    return parse(text, what=what)


def write(value: Json) -> str:
    """Compact, keys sorted, nothing escaped that need not be: the same value is always the same text."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, allow_nan=False, ensure_ascii=False)


def write_bytes(value: Json, *, what: str) -> bytes:
    """As `write`, in UTF-8.

    Raises: MalformedRequest: with what ds01 added it is larger than `BODY_BYTES_MAX` bytes.
    """
    body = write(value).encode()
    if len(body) > BODY_BYTES_MAX:
        raise MalformedRequest(f"{what} is larger than {BODY_BYTES_MAX} bytes")
    return body


def _no_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    # SECURITY: dockerd merges a repeated key into the first; Python keeps the last.
    members: dict[str, Json] = {}
    for name, value in pairs:
        if name in members:
            raise MalformedRequest(f"key {shown(name)} is given twice in one object")
        members[name] = value
    return members


def _int(text: str) -> int:
    if len(text) > _INT64_DIGITS or not INT64_MIN <= (number := int(text)) <= INT64_MAX:
        raise MalformedRequest("a number has more than 64 bits")
    return number


def _float(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise MalformedRequest("a number has more than 64 bits")
    return number


def _no_constant(name: str) -> NoReturn:
    raise MalformedRequest(f"{name} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_int=_int, parse_float=_float, parse_constant=_no_constant
)


def _check(value: Json, what: str) -> None:
    """Bound depth and number, and refuse text that no UTF-8 can carry or that C would cut short."""
    level: list[Json] = [value]
    count = 0
    for _ in range(DEPTH_MAX):
        count += len(level)
        if count > VALUES_MAX:
            raise MalformedRequest(f"{what} holds more than {VALUES_MAX} values")
        below: list[Json] = []
        for item in level:
            if isinstance(item, str):
                _check_text(item, what)
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, dict):
                for key in item:
                    _check_text(key, what)
                below.extend(item.values())
        if not below:
            return
        level = below
    raise MalformedRequest(f"{what} is nested deeper than {DEPTH_MAX} levels")


def _check_text(text: str, what: str) -> None:
    # SECURITY: Go replaces a lone surrogate by U+FFFD, so two strings would become one; a NUL ends a C string.
    if "\0" in text:
        raise MalformedRequest(f"{what} holds a NUL character")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise MalformedRequest(f"{what} holds half of a surrogate pair")
