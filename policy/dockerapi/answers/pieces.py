"""JSON taken apart only as far as needed: what is not looked at keeps its very bytes.

`msgspec.Raw` is a slice of the document it was read from; writing one copies the slice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import msgspec

from policy.dockerapi.answers.visibility import UnreadableAnswer

if TYPE_CHECKING:
    from collections.abc import Iterable

T = TypeVar("T")

Piece = bytes | msgspec.Raw
Fields = dict[str, msgspec.Raw]  # one JSON object, its values not yet read, in the engine's order

NULL = msgspec.Raw(b"null")

_ARRAY: msgspec.json.Decoder[list[msgspec.Raw] | None] = msgspec.json.Decoder(list[msgspec.Raw] | None)
_FIELDS = msgspec.json.Decoder(Fields)
_OPTIONAL_FIELDS: msgspec.json.Decoder[Fields | None] = msgspec.json.Decoder(Fields | None)
_TEXT = msgspec.json.Decoder(str)
_TEXTS: msgspec.json.Decoder[list[str] | None] = msgspec.json.Decoder(list[str] | None)


def read(decoder: msgspec.json.Decoder[T], piece: Piece) -> T:
    """Read one JSON value of the decoder's shape. Raises UnreadableAnswer, whatever the bytes."""
    try:
        return decoder.decode(piece)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UnreadableAnswer(f"the engine's answer was not understood: {error}") from error


def read_array(piece: Piece) -> list[msgspec.Raw] | None:
    """Read the elements of an array, or null."""
    return read(_ARRAY, piece)


def read_fields(piece: Piece) -> Fields:
    """Read the members of an object."""
    return read(_FIELDS, piece)


def read_optional_fields(piece: Piece) -> Fields | None:
    """Read the members of an object, or null."""
    return read(_OPTIONAL_FIELDS, piece)


def read_text(piece: Piece) -> str:
    """Read a string."""
    return read(_TEXT, piece)


def read_texts(piece: Piece) -> list[str] | None:
    """Read an array of strings, or null."""
    return read(_TEXTS, piece)


def write(value: object) -> bytes:
    """Write compact JSON; pieces inside keep their bytes."""
    return msgspec.json.encode(value)


def piece(value: object) -> msgspec.Raw:
    """Write a value as a piece, to be put into `Fields`."""
    return msgspec.Raw(msgspec.json.encode(value))


def splice(whole: Piece, old: Piece, new: Piece) -> bytes:
    """One array or object with one inside it replaced, all else in the very bytes it had.

    INVARIANT: `old` holds a string, so it never begins inside one: its first quote would end that string, and what follows
    would be no JSON. Raises: UnreadableAnswer: `old` is not in `whole` in this spelling.
    """
    before, found, after = bytes(whole).partition(bytes(old))
    if not found:
        raise UnreadableAnswer("the engine's answer is not spelled as it was read")
    return b"".join((before, new, after))


def join(pieces: Iterable[Piece]) -> bytes:
    """Write an array of pieces."""
    return b"[" + b",".join(pieces) + b"]"
