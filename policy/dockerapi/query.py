"""Query strings: strict parsing, and one canonical form for each kind of key.

Owns percent-decoding, kinds of values and their canonical text. Which keys a call has is in `routes`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import quote

from policy.dockerapi import strict_json
from policy.dockerapi.model import MalformedRequest, Request, UnknownField
from policy.dockerapi.schema import INT64_MAX, INT64_MIN, Shape, is_zero, shown
from policy.model import Json

_FALSE = frozenset({"", "0", "no", "false", "none"})  # SOURCE: moby api/server/httputils BoolValue
_ZERO_TEXTS = _FALSE | {"null", "{}", "[]"}
_INT = re.compile(r"-?[0-9]{1,19}")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class QueryKind(StrEnum):
    """How dockerd reads a key."""

    FLAG = "flag"  # absent is false
    FLAG_ON = "flag_on"  # absent is true, empty is false (BoolValueOrDefault)
    FLAG_ON_EMPTY = "flag_on_empty"  # absent and empty are true (`rm` of build)
    INT = "int"
    TEXT = "text"
    LIST = "list"  # may be given several times
    JSON = "json"  # a JSON value of a known shape
    JSON_LIST = "json_list"  # several such
    FILTERS = "filters"
    IGNORED = "ignored"  # sent by old clients, means nothing to the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryKey:
    """One key of one call. `shape` is for the JSON kinds, `filters` are the names a filter may have."""

    name: str
    kind: QueryKind
    shape: Shape | None = None
    filters: frozenset[str] = frozenset()


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Names and values in order, percent-decoded.

    Raises: MalformedRequest: `;`, a broken escape, not UTF-8, a control character.
    """
    return [_pair(part) for part in text.split("&") if part]


def _pair(part: str) -> tuple[str, str]:
    if ";" in part:
        raise MalformedRequest("the query holds ';', encode it as %3B")
    name, _, value = part.partition("=")
    return _decode(name), _decode(value)


def _decode(text: str) -> str:
    if "%" not in text:
        return text.replace("+", " ")
    if _BROKEN_ESCAPE.search(text):
        raise MalformedRequest("the query holds a broken percent escape")
    raw = _ESCAPE.sub(lambda escape: bytes([int(escape[1], 16)]), text.replace("+", " ").encode("ascii"))
    try:
        decoded = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedRequest("the query is not UTF-8") from None
    if "\0" in decoded:
        raise MalformedRequest("the query holds a NUL character")
    return decoded


def read(text: str, keys: tuple[QueryKey, ...]) -> Mapping[str, tuple[str, ...]]:
    """The canonical query: known keys in table order, defaults left out.

    Raises: MalformedRequest, UnknownField.
    """
    if not text:
        return {}
    given: dict[str, list[str]] = {}
    for name, value in parse_pairs(text):
        given.setdefault(name, []).append(value)
    canonical: dict[str, tuple[str, ...]] = {}
    for key in keys:
        values = given.pop(key.name, None)
        if values is not None and (read_values := _canonical(key, values)):
            canonical[key.name] = read_values
    _refuse_unknown(given, keys)
    return canonical


def _refuse_unknown(given: Mapping[str, list[str]], keys: tuple[QueryKey, ...]) -> None:
    for name, values in given.items():
        if any(value.lower() not in _ZERO_TEXTS for value in values):
            known = next((key.name for key in keys if key.name.casefold() == name.casefold()), None)
            if known is not None:
                raise MalformedRequest(f"query key {shown(name)} must be spelled {known}")
            raise UnknownField(f"query.{shown(name)}", shown(values[0]))


def _canonical(key: QueryKey, values: list[str]) -> tuple[str, ...]:
    match key.kind:
        case QueryKind.IGNORED:
            return ()
        case QueryKind.LIST:
            return tuple(value for value in values if value)
        case QueryKind.JSON_LIST:
            return tuple(text for value in values for text in _json(key, value))
    if len(values) != 1:
        # SECURITY: dockerd takes the first of several, other readers the last.
        raise MalformedRequest(f"query key {key.name} is given more than once")
    return _scalar(key, values[0])


def _scalar(key: QueryKey, value: str) -> tuple[str, ...]:
    match key.kind:
        case QueryKind.FLAG:
            return ("1",) if is_true(value) else ()
        case QueryKind.FLAG_ON:
            return () if is_true(value) else ("0",)
        case QueryKind.FLAG_ON_EMPTY:
            return () if value == "" or is_true(value) else ("0",)
        case QueryKind.INT:
            return _int(key, value)
        case QueryKind.JSON:
            return _json(key, value)
        case QueryKind.FILTERS:
            return _filters(key, value)
        case _:
            return (value,) if value else ()


def is_true(value: str) -> bool:
    """As dockerd reads a boolean: anything is true but five words."""
    return value.strip().lower() not in _FALSE


def _int(key: QueryKey, value: str) -> tuple[str, ...]:
    if not value:
        return ()
    if not _INT.fullmatch(value) or not INT64_MIN <= (number := int(value)) <= INT64_MAX:
        raise MalformedRequest(f"query key {key.name} must be a whole number")
    return (str(number),)


def _json(key: QueryKey, value: str) -> tuple[str, ...]:
    if not value or key.shape is None:
        return ()
    what = f"query key {key.name}"
    parsed = strict_json.parse(value, what=what)
    if parsed is None:
        return ()
    canonical = key.shape.read(parsed, f"query.{key.name}")
    return (strict_json.write(canonical),) if canonical else ()


def _filters(key: QueryKey, value: str) -> tuple[str, ...]:
    if not value:
        return ()
    parsed = strict_json.parse(value, what=f"query key {key.name}")
    if parsed is None:
        return ()
    if not isinstance(parsed, dict):
        raise MalformedRequest(f"query key {key.name} must be an object")
    canonical: dict[str, Json] = {}
    for name, given in parsed.items():
        selected = _selected(name, given)
        if name not in key.filters:
            if is_zero(given):
                continue
            raise UnknownField(f"query.{key.name}.{shown(name)}", shown(given))
        if selected:
            canonical[name] = dict.fromkeys(selected, True)
    return (strict_json.write(canonical),) if canonical else ()


def _selected(name: str, given: Json) -> list[str]:
    """The values of one filter: the keys of a map whatever they map to, or the members of an old list."""
    if given is None:
        return []
    if isinstance(given, dict):
        if not all(isinstance(flag, bool) for flag in given.values()):
            raise MalformedRequest(f"filter {shown(name)} must map its values to true")
        return list(given)
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        return [item for item in given if isinstance(item, str)]
    raise MalformedRequest(f"filter {shown(name)} must be an object or a list of strings")


def filters(request: Request) -> Mapping[str, tuple[str, ...]]:
    """The filters of a canonical request: name to selected values, both sorted."""
    for text in request.query.get("filters", ()):
        parsed = strict_json.parse(text, what="query key filters")
        if isinstance(parsed, dict):
            return {name: tuple(selected) for name, selected in parsed.items() if isinstance(selected, dict)}
    return {}


def write(query: Mapping[str, tuple[str, ...]], keys: tuple[QueryKey, ...]) -> str:
    """The query text in table order, without `?`; everything but unreserved characters is encoded."""
    return "&".join(
        f"{key.name}={quote(value, safe='-._~')}" for key in keys for value in query.get(key.name, ())
    )
