"""How a gRPC call ends. SOURCE: gRPC over HTTP/2, Responses; google.rpc.Code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from urllib.parse import unquote

Headers = tuple[tuple[str, str], ...]

_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}
MESSAGE_CHARS = 2000


class Code(IntEnum):
    """The codes that ds01 answers with."""

    OK = 0
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """An end, with the words that the user sees."""

    code: Code
    message: str = ""


OK = Status(code=Code.OK)


def trailers(status: Status) -> Headers:
    """The fields that end a call."""
    if not status.message:
        return (("grpc-status", str(int(status.code))),)
    return (
        ("grpc-status", str(int(status.code))),
        ("grpc-message", _encoded(status.message[:MESSAGE_CHARS])),
    )


def decoded(message: str) -> str:
    """The words of a grpc-message."""
    return unquote(message, errors="replace")


def _encoded(text: str) -> str:
    """Percent-encoded, as grpc-message is."""
    return "".join(
        chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in text.encode("utf-8", "replace")
    )
