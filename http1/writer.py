"""Bytes of request and response heads. Framing headers are written here and nowhere else.

SECURITY: every name is a token and no value holds CR, LF, NUL or another control byte, so that no value can
become a header, a body or a second message (ValueError otherwise: a bug of the caller, never sent).
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from http1.heads import Headers

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # noqa: S105  an RFC 9110 token, no secret
_FIELDS: Final = re.compile(rf"(?:{_TOKEN}: [^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+")
_REQUEST_LINE: Final = re.compile(rf"{_TOKEN} /[!-~]*+ HTTP/1\.1\r\n")
_REASON: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")

HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
JSON: Final = (("content-type", "application/json"),)
_WRITTEN_HERE: Final = frozenset({"connection", "content-length", "transfer-encoding", "upgrade"})
_REASONS: Final = {int(status): status.phrase for status in HTTPStatus}


def forwardable(headers: Headers) -> Headers:
    """The fields that may travel on: all but those which describe one connection."""
    return tuple(field for field in headers if field[0] not in HOP_BY_HOP)


def response_head(
    status: int,
    headers: Iterable[tuple[str, str]],
    *,
    reason: str = "",
    content_length: int | None = None,
    chunked: bool = False,
    close: bool = False,
    upgrade: str | None = None,
) -> bytes:
    """Write a response head, empty line included. An empty `reason` means the usual one."""
    reason = reason or _REASONS.get(status, "")
    if not 100 <= status <= 999 or not _REASON.fullmatch(reason):
        raise ValueError(f"not a status line: {status} {reason!r}")
    return _head(
        f"HTTP/1.1 {status} {reason}\r\n",
        headers,
        content_length,
        chunked=chunked,
        close=close,
        upgrade=upgrade,
    )


def request_head(
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]],
    *,
    content_length: int | None = None,
    chunked: bool = False,
    upgrade: str | None = None,
) -> bytes:
    """Write a request head, empty line included; a `host` among the headers, else `docker`."""
    line = f"{method} {target} HTTP/1.1\r\n"
    if not _REQUEST_LINE.fullmatch(line):
        raise ValueError(f"not a request line: {method!r} {target!r}")
    fields = tuple(headers)
    hosts = sum(name.lower() == "host" for name, _ in fields)
    if hosts > 1:
        raise ValueError("two Host headers")
    if not hosts:
        fields = (("host", "docker"), *fields)
    return _head(line, fields, content_length, chunked=chunked, close=False, upgrade=upgrade)


def _head(
    line: str,
    headers: Iterable[tuple[str, str]],
    content_length: int | None,
    *,
    chunked: bool,
    close: bool,
    upgrade: str | None,
) -> bytes:
    parts, names = [], 0
    for name, value in headers:
        parts.append(f"{_spelling(name)}: {value}\r\n")
        names += 1
    if upgrade is not None:
        parts.append(f"Connection: Upgrade\r\nUpgrade: {upgrade}\r\n")
        names += 2
    elif close:
        parts.append("Connection: close\r\n")
        names += 1
    if chunked:
        parts.append("Transfer-Encoding: chunked\r\n")
        names += 1
    elif content_length is not None:
        parts.append(f"Content-Length: {content_length:d}\r\n")
        names += 1
    block = "".join(parts)
    # A value with CRLF could match as two fields: the count shows it.
    if not _FIELDS.fullmatch(block) or block.count("\r\n") != names:
        raise ValueError("header name or value with forbidden characters")
    return f"{line}{block}\r\n".encode("latin-1")


def field_line(name: str, value: str) -> bytes:
    """Write one field with its CRLF, for a head that is written already."""
    line = f"{_spelling(name)}: {value}\r\n"
    if not _FIELDS.fullmatch(line) or line.count("\r\n") != 1:
        raise ValueError("header name or value with forbidden characters")
    return line.encode("latin-1")


@lru_cache(maxsize=512)
def _spelling(name: str) -> str:
    """Spell a field name as Go does, Content-Type: some clients compare by case."""
    lower = name.lower()
    if lower in _WRITTEN_HERE:
        raise ValueError(f"{name} is written by http1, not by its callers")
    return "-".join(part.capitalize() for part in lower.split("-"))


def write_chunk(data: bytes) -> tuple[bytes, bytes, bytes]:
    """Frame one chunk, in parts, so that large data need not be copied. `data` is not empty."""
    return b"%x\r\n" % len(data), data, b"\r\n"


def write_last_chunk(trailers: Headers = ()) -> bytes:
    """End a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n" + _head("", trailers, None, chunked=False, close=False, upgrade=None)


def error_body(message: str) -> bytes:
    """Write an error the way Docker clients read it."""
    return json.dumps({"message": message}).encode() + b"\n"


def last_answer(status: int, message: str) -> bytes:
    """A whole answer that says why nothing else is answered on this connection."""
    body = error_body(message)
    return response_head(status, JSON, content_length=len(body), close=True) + body
