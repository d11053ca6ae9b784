"""Strict sans-I/O reading of HTTP/1.1: bytes in, events out, nothing guessed.

A reader stops at the end of each message and holds what follows, unparsed, until `next_message` (the next
request) or `release` (a raw stream begins): bytes behind an upgrade can never become a request.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from http1.bodies import Body, ChunkedBody, CloseBody, LengthBody
from http1.errors import BadRequest, BadResponse
from http1.heads import (
    Headers,
    RequestHead,
    ResponseHead,
    check_begun,
    parse_request_head,
    parse_response_head,
)

if TYPE_CHECKING:
    from http1.limits import Limits

REMEMBERED_CHARACTERS: Final = (
    2048  # of the last head; a longer one is parsed again, an idle connection stays small
)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """The message is complete."""

    trailers: Headers = ()


END: Final = End()
RequestEvent = RequestHead | bytes | End
ResponseEvent = ResponseHead | bytes | End


class _Reader:
    """The part both sides share: collect a head, then its body, then hold."""

    __slots__ = ("_body", "_complete", "_held", "_limits", "_seen")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = bytearray()  # an incomplete head, or what follows a complete message
        self._seen = 0  # held bytes that were searched for the end of the head
        self._body: Body | None = None
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
        check_begun(self._held, self._seen)
        if len(self._held) > limit:
            raise BadRequest(431, f"head is over {limit} bytes; send fewer or shorter headers")
        self._seen = len(self._held)

    def _take_body(self, body: Body, data: bytes) -> list[bytes | End]:
        out: list[bytes] = []
        rest = body.feed(data, out)
        if rest is None:
            return [*out]
        self._body = None
        self._complete = True
        self._held += rest
        trailers = body.trailers if isinstance(body, ChunkedBody) else ()
        return [*out, End(trailers=trailers) if trailers else END]

    def _begin_body(self, body: Body | None, rest: bytes) -> list[bytes | End]:
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

    def _body_of(self, head: RequestHead) -> Body | None:
        if head.chunked:
            return ChunkedBody(self._limits)
        return LengthBody(head.content_length) if head.content_length else None


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
        if isinstance(self._body, CloseBody):
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

    def _body_of(self, head: ResponseHead) -> Body | None:
        if self._head_only or head.status in {204, 304}:
            return None
        if head.chunked:
            return ChunkedBody(self._limits)
        if head.close_delimited:
            return CloseBody()
        return LengthBody(head.content_length) if head.content_length else None
