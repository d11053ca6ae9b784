"""The shapes of JSON bodies, and how a value of each shape is brought to its one canonical form.

Owns strictness: exact key spelling, exact types, zero values. Leaves bytes to `strict_json` and the
tables of fields to `bodies`. What two readers could read differently raises `MalformedRequest`; a field
with an unknown meaning raises `UnknownField`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from policy.dockerapi.model import MalformedRequest, UnknownField
from policy.model import Json

INT64_MIN = -(2**63)
INT64_MAX = 2**63 - 1
_SHOWN_CHARACTERS = 80


class Shape(Protocol):
    """One kind of value."""

    def read(self, value: Json, at: str) -> Json:
        """The canonical form of `value`, never None; `at` is the path used in messages.

        Raises: MalformedRequest, UnknownField.
        """


def _wrong_type(at: str, wanted: str) -> MalformedRequest:
    return MalformedRequest(f"{at} must be {wanted}")


def is_zero(value: Json) -> bool:
    """Whether dockerd reads `value` as it reads the absence of its key, whatever the field means."""
    if isinstance(value, list):
        return all(is_zero(item) for item in value)
    if isinstance(value, dict):
        return all(is_zero(item) for item in value.values())
    return not value


def _is_empty(value: Json) -> bool:
    """Whether a canonical value is its type's zero. A list or map with members never is."""
    return not value


def shown(value: Json) -> str:
    """A refused value, short enough for a one-line message."""
    text = value if isinstance(value, str) else repr(value)
    printable = "".join(character if character.isprintable() else "?" for character in text)
    return printable if len(printable) <= _SHOWN_CHARACTERS else printable[:_SHOWN_CHARACTERS] + "..."


@dataclass(frozen=True, slots=True)
class Bool:
    def read(self, value: Json, at: str) -> Json:
        if not isinstance(value, bool):
            raise _wrong_type(at, "true or false")
        return value


@dataclass(frozen=True, slots=True)
class Int:
    def read(self, value: Json, at: str) -> Json:
        if isinstance(value, bool) or not isinstance(value, int):
            raise _wrong_type(at, "a whole number")
        if not INT64_MIN <= value <= INT64_MAX:
            raise _wrong_type(at, "a number of 64 bits")
        return value


@dataclass(frozen=True, slots=True)
class Text:
    def read(self, value: Json, at: str) -> Json:
        if not isinstance(value, str):
            raise _wrong_type(at, "a string")
        return value


@dataclass(frozen=True, slots=True)
class Words:
    """A command: a list of strings, or one string that stands for a list of one (Go's strslice)."""

    def read(self, value: Json, at: str) -> Json:
        if isinstance(value, str):
            return [value]
        return STRINGS.read(value, at)


@dataclass(frozen=True, slots=True)
class ListOf:
    item: Shape

    def read(self, value: Json, at: str) -> Json:
        if not isinstance(value, list):
            raise _wrong_type(at, "a list")
        return [self.item.read(item, f"{at}[{index}]") for index, item in enumerate(value)]


@dataclass(frozen=True, slots=True)
class MapOf:
    """A map whose keys are the client's own. Go reads a null value as the zero of its type."""

    value: Shape
    zero: str | tuple[()] | None  # what null becomes: "", () for an empty object, None for an empty list

    def read(self, value: Json, at: str) -> Json:
        if not isinstance(value, dict):
            raise _wrong_type(at, "an object")
        return {
            key: self._zero() if item is None else self.value.read(item, f"{at}.{shown(key)}")
            for key, item in value.items()
        }

    def _zero(self) -> Json:
        match self.zero:
            case str():
                return self.zero
            case None:
                return []
            case _:
                return {}


@dataclass(frozen=True, slots=True)
class NullableText:
    """A string, or null with a meaning of its own: a build argument taken from the builder's environment."""

    def read(self, value: Json, at: str) -> Json:
        return None if value is None else TEXT.read(value, at)


@dataclass(frozen=True, slots=True)
class MapOfNullable:
    """A map of strings in which null is a value."""

    def read(self, value: Json, at: str) -> Json:
        if not isinstance(value, dict):
            raise _wrong_type(at, "an object")
        return {key: NULLABLE_TEXT.read(item, f"{at}.{shown(key)}") for key, item in value.items()}


@dataclass(frozen=True, slots=True)
class Kept:
    """A field whose zero means something else than its absence, so that the zero is kept."""

    shape: Shape

    def read(self, value: Json, at: str) -> Json:
        return self.shape.read(value, at)


@dataclass(frozen=True, slots=True)
class Ignored:
    """A field that clients send and no engine reads: always left out."""

    def read(self, value: Json, at: str) -> Json:  # noqa: ARG002  every shape is read alike
        return ""


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """An object with known fields.

    fields: by documented spelling.
    always: fields that are objects and are there even when the client sent none.
    """

    fields: Mapping[str, Shape]
    always: tuple[str, ...] = ()
    _folded: frozenset[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", MappingProxyType(dict(self.fields)))
        object.__setattr__(self, "_folded", frozenset(name.casefold() for name in self.fields))

    def read(self, value: Json, at: str) -> Json:
        if not isinstance(value, dict):
            raise _wrong_type(at or "the body", "an object")
        canonical: dict[str, Json] = {}
        for key, given in value.items():
            where = f"{at}.{key}" if at else key
            shape = self.fields.get(key)
            if shape is None:
                self._refuse_unknown(key, given, where)
            elif given is not None:
                read = shape.read(given, where)
                if isinstance(shape, Kept) or not _is_empty(read):
                    canonical[key] = read
        for name in self.always:
            canonical.setdefault(name, {})
        return canonical

    def _refuse_unknown(self, key: str, given: Json, where: str) -> None:
        # SECURITY: dockerd matches keys in any case and by Unicode folding (`hoſtconfig`), and merges two
        # spellings; casefold covers U+017F and U+212A, which lower does not.
        if key.casefold() in self._folded:
            raise MalformedRequest(f"{shown(where)} is not spelled as the Engine API spells it")
        if not is_zero(given):
            raise UnknownField(shown(where), shown(given))


@dataclass(frozen=True, slots=True)
class ListBody:
    """A body that is a list. The canonical request keeps it as an object with one member: every body is an object."""

    items: ListOf

    def read(self, value: Json, at: str) -> Json:
        return {LIST_BODY: self.items.read(value or [], at or "the body")}


LIST_BODY = ""
BOOL = Bool()
INT = Int()
TEXT = Text()
WORDS = Words()
NULLABLE_TEXT = NullableText()
STRINGS = ListOf(TEXT)
STRING_MAP = MapOf(TEXT, zero="")
IGNORED = Ignored()
EMPTY = Struct({})
SET = MapOf(EMPTY, zero=())  # Go's map[string]struct{}
BUILD_ARGS = MapOfNullable()
