"""Heads of requests and responses: their grammar, and what their framing headers say.

SECURITY: the grammar is ours and has no lenient mode. What two readers could read differently is refused.
SOURCE: RFC 9112; ADR-0002 says why this is not llhttp, which serves as the oracle in the property tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from http1.errors import BadRequest

if TYPE_CHECKING:
    from http1.limits import Limits

Headers = tuple[tuple[str, str], ...]  # names lower-case, order and duplicates kept

_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"  # noqa: S105  an RFC 9110 token, no secret
# Possessive (`++`, `*+`), so that no input makes matching slower than linear.
_FIELDS: Final = rf"(?:{_TOKEN}:[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+"
_REQUEST: Final = re.compile(rf"({_TOKEN}) ([!-~]++) HTTP/([0-9]\.[0-9])\r\n({_FIELDS})")
_RESPONSE: Final = re.compile(
    rf"HTTP/1\.1 ([1-9][0-9][0-9])(?: ([^\x00-\x08\x0a-\x1f\x7f]*+))?\r\n({_FIELDS})"
)
_TRAILERS: Final = re.compile(_FIELDS)
# No head holds these anywhere, so they are refused before the head is complete.
_NEVER: Final = re.compile(rb"(?<!\r)\n|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n|\Z)")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_FRAMING_FIELDS: Final = frozenset(
    {"content-length", "transfer-encoding", "host", "connection", "upgrade", "expect"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """One request without its body."""

    method: str
    target: str  # origin form: printable ASCII, begins with "/"
    headers: Headers
    content_length: int | None
    chunked: bool
    upgrade: str | None  # lower-case; only with `Connection: Upgrade`
    expect_continue: bool
    keep_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseHead:
    """One response without its body. Interim ones (100, 103) are skipped by the reader."""

    status: int
    reason: str
    headers: Headers
    content_length: int | None
    chunked: bool
    close_delimited: bool  # the body ends when the connection does
    upgraded: bool  # 101
    keep_alive: bool


def parse_request_head(text: str, limits: Limits) -> RequestHead:
    """Parse request line and fields, each with its CRLF. Raises: BadRequest."""
    match = _REQUEST.fullmatch(text)
    if match is None:
        raise BadRequest(400, _explain(text))
    method, target, version, block = match.groups()
    if version != "1.1":
        raise BadRequest(505, f"HTTP/{version} is not served here; use HTTP/1.1")
    if target[0] != "/":
        raise BadRequest(400, "request target must be a path; absolute and authority forms are refused")
    headers = split_fields(block, limits)
    framing = _Framing(headers)
    if framing.hosts != 1:
        raise BadRequest(400, f"{framing.hosts} Host headers sent, need exactly one")
    if framing.expect not in {None, "100-continue"}:
        raise BadRequest(417, "only Expect: 100-continue is understood")
    return RequestHead(
        method=method,
        target=target,
        headers=headers,
        content_length=framing.content_length,
        chunked=framing.chunked,
        upgrade=framing.upgrade if "upgrade" in framing.connection else None,
        expect_continue=framing.expect is not None,
        keep_alive=framing.keep_alive,
    )


def _explain(text: str) -> str:
    """Say why `_REQUEST` does not match; only a text for people, the refusal is certain already."""
    line, _, fields = text.partition("\r\n")
    if re.search(r"(?<!\r)\n|\r(?!\n)|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text):
        return "control byte or bare LF in the head"
    if not re.fullmatch(rf"{_TOKEN} [!-~]++ HTTP/[0-9]\.[0-9]", line):
        return "malformed request line; need: METHOD /path HTTP/1.1"
    for field in fields.split("\r\n")[:-1]:
        if field[0] in " \t":
            return "folded header line"
        if re.match(rf"{_TOKEN}[ \t]+:", field):
            return "space before the colon of a header"
    return "malformed header line"


def parse_response_head(text: str, limits: Limits, *, head_only: bool) -> ResponseHead:
    """Parse status line and fields, each with its CRLF. Raises: BadRequest (the reader re-words it)."""
    match = _RESPONSE.fullmatch(text)
    if match is None:
        raise BadRequest(400, "malformed response head")
    status = int(match[1])
    headers = split_fields(match[3], limits)
    framing = _Framing(headers)
    bodyless = head_only or status < 200 or status in {204, 304}
    return ResponseHead(
        status=status,
        reason=match[2] or "",
        headers=headers,
        content_length=framing.content_length,
        chunked=framing.chunked,
        close_delimited=not bodyless and not framing.chunked and framing.content_length is None,
        upgraded=status == 101,
        keep_alive=framing.keep_alive,
    )


def parse_trailers(block: str, limits: Limits) -> Headers:
    """Parse the fields behind a chunked body, each with its CRLF. Raises: BadRequest, for a framing field too."""
    if not _TRAILERS.fullmatch(block):
        raise BadRequest(400, "malformed trailer")
    trailers = split_fields(block, limits)
    if any(name in _FRAMING_FIELDS for name, _ in trailers):
        raise BadRequest(400, "framing header among the trailers")
    return trailers


def check_begun(held: bytearray, seen: int) -> None:
    """Look at the beginning of a head of which `seen` bytes were looked at. Raises: BadRequest: no head begins so."""
    if _NEVER.search(held, max(0, seen - 1)):
        raise BadRequest(400, "control byte or bare LF in the head")


def split_fields(block: str, limits: Limits) -> Headers:
    """Split checked `name: value CRLF` lines. Raises: BadRequest 431 for too many."""
    lines = block.split("\r\n")
    lines.pop()
    if len(lines) > limits.header_count:
        raise BadRequest(431, f"{len(lines)} headers sent, limit is {limits.header_count}; send fewer")
    fields = []
    for line in lines:
        name, _, value = line.partition(":")
        fields.append((name.lower(), value.strip(" \t")))
    return tuple(fields)


def _tokens(value: str) -> frozenset[str]:
    return frozenset(part.strip(" \t").lower() for part in value.split(","))


class _Framing:
    """What the framing headers of one head say. Raises BadRequest for all that is in doubt."""

    __slots__ = ("chunked", "connection", "content_length", "expect", "hosts", "upgrade")

    def __init__(self, headers: Headers) -> None:
        self.content_length: int | None = None
        self.chunked = False
        self.connection: frozenset[str] = frozenset()
        self.upgrade: str | None = None
        self.expect: str | None = None
        self.hosts = 0
        for name, value in headers:
            if name in _FRAMING_FIELDS:
                self._take(name, value)
        if self.chunked and self.content_length is not None:
            raise BadRequest(400, "Content-Length beside Transfer-Encoding; send one of them")

    def _take(self, name: str, value: str) -> None:
        match name:
            case "host":
                self.hosts += 1
            case "content-length":
                # SECURITY: two lengths, even equal ones, are two readings (request smuggling).
                if self.content_length is not None or not _LENGTH.fullmatch(value):
                    raise BadRequest(400, "Content-Length must be one decimal number")
                self.content_length = int(value)
            case "transfer-encoding":
                if self.chunked or value != "chunked":
                    raise BadRequest(400, "Transfer-Encoding must be exactly: chunked")
                self.chunked = True
            case "connection":
                self.connection |= _tokens(value)
            case "upgrade":
                self.upgrade = value.lower() if self.upgrade is None else f"{self.upgrade}, {value.lower()}"
            case _:
                self.expect = value.lower() if self.expect is None else f"{self.expect}, {value.lower()}"

    @property
    def keep_alive(self) -> bool:
        return "close" not in self.connection
