"""Strict sans-I/O reading of HTTP/1.1: bytes in, events out, nothing guessed.

A reader stops at the end of each message and holds what follows, unparsed, until `next_message` (the next
request) or `release` (a raw stream begins): bytes behind an upgrade can never become a request.

SECURITY: the grammar is ours and has no lenient mode. What two readers could read differently is refused.
SOURCE: RFC 9112; ADR-0002 says why this is not llhttp, which serves as the oracle in the property tests.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from http1.errors import BadRequest, BadResponse

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
_CHUNK_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,15}")
REMEMBERED_CHARACTERS: Final = (
    2048  # of the last head; a longer one is parsed again, an idle connection stays small
)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The message is complete."""

    trailers: Headers = ()


END: Final = End()
RequestEvent = RequestHead | bytes | End
ResponseEvent = ResponseHead | bytes | End


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


class _Body(Protocol):
    """Reads one body."""

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        """Append body bytes to `out`. Returns: None while the body goes on, else what follows it."""


class _LengthBody:
    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        body = data[: self._left]  # the same object when all of it is body
        if body:
            out.append(body)
        self._left -= len(body)
        return None if self._left else data[len(body) :]


class _CloseBody:
    __slots__ = ()

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        if data:
            out.append(data)
        return None


class _ChunkedBody:
    """Chunks without extensions, then trailers without framing fields."""

    __slots__ = ("_left", "_limits", "_partial", "_trailer_bytes", "_trailer_lines", "trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._partial = b""  # the beginning of a line, at most one line long
        self._left = 0  # bytes of the current chunk still to come, its CRLF included
        self._trailer_lines: list[str] | None = None  # None: before the last chunk
        self._trailer_bytes = 0
        self.trailers: Headers = ()

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        if self._partial:
            data, self._partial = self._partial + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                at = self._take_chunk(data, at, out)
                continue
            stop = data.find(b"\n", at)
            if stop < 0:
                self._keep_partial(data[at:])
                return None
            line, at = data[at : stop + 1], stop + 1
            if line[-2:-1] != b"\r":
                raise BadRequest(400, "bad chunk: bare LF")
            if self._take_line(line[:-2]):
                return data[at:]
        return None

    def _take_chunk(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Take what there is of the chunk at `at`, then its CRLF byte by byte. Returns: where it ended."""
        if self._left > 2:
            body = data[at : at + self._left - 2]
            out.append(body)
            self._left -= len(body)
            return at + len(body)
        if data[at] != (13 if self._left == 2 else 10):
            raise BadRequest(400, "bad chunk: longer than its size")
        self._left -= 1
        return at + 1

    def _keep_partial(self, rest: bytes) -> None:
        limit = 17 if self._trailer_lines is None else self._limits.trailer_bytes
        if len(rest) > limit:
            raise BadRequest(400 if limit == 17 else 431, "bad chunk: line too long")
        self._partial = rest

    def _take_line(self, line: bytes) -> bool:
        """Read a size or trailer line without its CRLF. Returns: True when the body is over."""
        if self._trailer_lines is None:
            if not _CHUNK_SIZE.fullmatch(line):
                raise BadRequest(400, "bad chunk: size must be hexadecimal, without extensions")
            size = int(line, 16)
            if size:
                self._left = size + 2
            else:
                self._trailer_lines = []
            return False
        if not line:
            self._end_trailers()
            return True
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > self._limits.trailer_bytes:
            raise BadRequest(431, f"trailers are over {self._limits.trailer_bytes} bytes")
        self._trailer_lines.append(line.decode("latin-1") + "\r\n")
        return False

    def _end_trailers(self) -> None:
        block = "".join(self._trailer_lines or ())
        if not _TRAILERS.fullmatch(block):
            raise BadRequest(400, "malformed trailer")
        self.trailers = split_fields(block, self._limits)
        if any(name in _FRAMING_FIELDS for name, _ in self.trailers):
            raise BadRequest(400, "framing header among the trailers")


class _Reader:
    """The part both sides share: collect a head, then its body, then hold."""

    __slots__ = ("_body", "_complete", "_held", "_limits", "_seen")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = bytearray()  # an incomplete head, or what follows a complete message
        self._seen = 0  # held bytes that were searched for the end of the head
        self._body: _Body | None = None
        self._complete = False

    @property
    def head_begun(self) -> bool:
        """Some bytes of a head came, but not all."""
        return self._body is None and not self._complete and bool(self._held)

    @property
    def held_bytes(self) -> int:
        return len(self._held)

    def release(self) -> bytes:
        """Give up the bytes that were not parsed: a raw stream begins with them. The reader is done."""
        self._complete = True
        held = bytes(self._held)
        self._held.clear()
        return held

    def _take_head(self, data: bytes) -> tuple[str, bytes] | None:
        """Returns: the head up to and with the last field's CRLF, and what follows the empty line."""
        if self._held:
            self._held += data
            end = self._held.find(b"\r\n\r\n", max(0, self._seen - 3))
        else:
            end = data.find(b"\r\n\r\n")
        limit = self._limits.head_bytes
        if end < 0:
            if not self._held:
                self._held += data
            self._check_partial(limit)
            return None
        if end + 4 > limit:
            raise BadRequest(431, f"head is over {limit} bytes; send fewer or shorter headers")
        if self._held:
            data = bytes(self._held)
            self._held.clear()
        self._seen = 0
        return data[: end + 2].decode("latin-1"), data[end + 4 :]

    def _check_partial(self, limit: int) -> None:
        if _NEVER.search(self._held, max(0, self._seen - 1)):
            raise BadRequest(400, "control byte or bare LF in the head")
        if len(self._held) > limit:
            raise BadRequest(431, f"head is over {limit} bytes; send fewer or shorter headers")
        self._seen = len(self._held)

    def _take_body(self, body: _Body, data: bytes) -> list[bytes | End]:
        out: list[bytes] = []
        rest = body.feed(data, out)
        if rest is None:
            return [*out]
        self._body = None
        self._complete = True
        self._held += rest
        trailers = body.trailers if isinstance(body, _ChunkedBody) else ()
        return [*out, End(trailers=trailers) if trailers else END]

    def _begin_body(self, body: _Body | None, rest: bytes) -> list[bytes | End]:
        if body is None:
            self._complete = True
            self._held += rest
            return [END]
        self._body = body
        return self._take_body(body, rest) if rest else []


class RequestReader(_Reader):
    """Reads a client's requests, one at a time, strictly in order.

    Raises: BadRequest from `feed` and `next_message`, and nothing else; the connection must then be closed.
    """

    __slots__ = ("_last", "_last_text")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._last_text = ""
        self._last: RequestHead | None = None

    def feed(self, data: bytes) -> list[RequestEvent]:
        """Take bytes of the current request. Bytes behind its end are held.

        A head that repeats the one before it on this connection, byte for byte, is the same object again.
        """
        if self._body is not None:
            return [*self._take_body(self._body, data)]
        if self._complete:
            self._held += data
            return []
        taken = self._take_head(data)
        if taken is None:
            return []
        head = self._parse(taken[0])
        return [head, *self._begin_body(self._body_of(head), taken[1])]

    def remembers(self, head: RequestHead | None) -> bool:
        """Whether the same bytes would give this very object again."""
        return head is self._last

    def _parse(self, text: str) -> RequestHead:
        """SECURITY: remembered for one connection only, so that nobody can time what others have asked."""
        if self._last is not None and text == self._last_text:
            return self._last
        head = parse_request_head(text, self._limits)
        if len(text) <= REMEMBERED_CHARACTERS:
            self._last_text, self._last = text, head
        return head

    def next_message(self) -> list[RequestEvent]:
        """Go on to the next request, after `End`: parse what was held."""
        self._complete = False
        if not self._held:
            return []
        data = bytes(self._held)
        self._held.clear()
        return self.feed(data)

    def _body_of(self, head: RequestHead) -> _Body | None:
        if head.chunked:
            return _ChunkedBody(self._limits)
        return _LengthBody(head.content_length) if head.content_length else None


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


class ResponseReader(_Reader):
    """Reads the upstream's responses. `expect` before each of them.

    Raises: BadResponse from every method, and nothing else; the connection must then be closed.
    """

    __slots__ = ("_head_only", "_last", "_last_key", "_raw", "_upgrade", "raw")

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._complete = True
        self.raw = (
            False  # the answer turned the connection into a raw stream; `release` gives its first bytes
        )
        self._head_only = self._raw = self._upgrade = False
        self._last_key = ("", False)
        self._last: ResponseHead | None = None

    def expect(self, method: str, *, raw: bool = False, upgrade: bool = False) -> None:
        """Begin with the response to a request.

        Args:
            raw: a 200 without length is a raw two-way stream: nothing behind its head is parsed.
            upgrade: 101 is a possible answer.
        """
        self._complete = False
        self._head_only = method == "HEAD"
        self._raw = raw
        self._upgrade = upgrade

    def feed(self, data: bytes) -> list[ResponseEvent]:
        """Take bytes of the current response. Bytes behind its end are held."""
        try:
            return self._feed(data)
        except BadRequest as error:
            raise BadResponse(f"upstream: {error.message}") from error

    def feed_eof(self) -> list[ResponseEvent]:
        """The upstream closed. Returns: End for a close-delimited body. Raises: BadResponse when cut short."""
        if isinstance(self._body, _CloseBody):
            self._body = None
            self._complete = True
            return [END]
        if self._complete:
            return []
        raise BadResponse("upstream closed the connection before its answer was complete")

    def _feed(self, data: bytes) -> list[ResponseEvent]:
        if self._body is not None:
            return [*self._take_body(self._body, data)]
        while not self._complete:
            taken = self._take_head(data)
            if taken is None:
                return []
            head, data = self._parse(taken[0]), taken[1]
            if head.status >= 200 or head.upgraded:
                return self._begin(head, data)
        self._held += data
        return []

    def _parse(self, text: str) -> ResponseHead:
        """An answer's head often repeats the one before it: `Date` changes once a second."""
        key = (text, self._head_only)
        if self._last is not None and key == self._last_key:
            return self._last
        head = parse_response_head(text, self._limits, head_only=self._head_only)
        if len(text) <= REMEMBERED_CHARACTERS:
            self._last_key, self._last = key, head
        return head

    def _begin(self, head: ResponseHead, rest: bytes) -> list[ResponseEvent]:
        if head.upgraded and not self._upgrade:
            raise BadResponse("upstream switched protocols without being asked")
        if head.upgraded or (self._raw and head.status == 200 and head.close_delimited):
            self._complete = self.raw = True
            self._held += rest
            return [head]
        return [head, *self._begin_body(self._body_of(head), rest)]

    def _body_of(self, head: ResponseHead) -> _Body | None:
        if self._head_only or head.status in {204, 304}:
            return None
        if head.chunked:
            return _ChunkedBody(self._limits)
        if head.close_delimited:
            return _CloseBody()
        return _LengthBody(head.content_length) if head.content_length else None


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
