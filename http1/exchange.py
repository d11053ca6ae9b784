"""One request and its answer, as a handler sees them.

Owns the order of things (one head, then the promised body, then the end); the connection owns bytes and time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from http1.errors import BadRequest, ClientGone
from http1.flow import Inflow
from http1.reader import REMEMBERED_CHARACTERS
from http1.writer import response_head, write_chunk, write_last_chunk

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Callable, Iterable

    from http1.connection import Connection
    from http1.duplex import Duplex
    from http1.heads import Headers, RequestHead

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_COPY_BYTES: Final = 16 * 1024  # below this one write of a copy is faster than three writes


class Exchange:
    """One request and its answer. Valid until its handler returns.

    Attributes:
        head: the request without its body.
        peer: the connected socket, for SO_PEERCRED and SO_PEERPIDFD (a uvloop PseudoSocket: `getsockopt`, `fileno`).
        gone: the client has left (or shut its writing side, which dockerd takes for leaving too).
        may_hijack: a half-close before the answer is not leaving but belongs to the raw stream. True at first if
            the request asks for an upgrade; set it for a raw stream without one.
        responded: a response head was written.
    """

    __slots__ = (
        "_body_left",
        "_chunked",
        "_connection",
        "_continue",
        "_on_gone",
        "ended",
        "gone",
        "head",
        "hijacked",
        "inflow",
        "may_hijack",
        "responded",
    )

    def __init__(self, head: RequestHead, connection: Connection) -> None:
        self.head = head
        self.inflow = Inflow(connection)
        self.gone = False
        self.may_hijack = head.upgrade is not None
        self.responded = False
        self.ended = False
        self.hijacked = False
        self._connection = connection
        self._continue = head.expect_continue
        self._chunked = False
        self._body_left: int | None = None  # bytes the answer still owes; None: not counted
        self._on_gone: Callable[[], None] | None = None

    @property
    def peer(self) -> socket.socket:
        return self._connection.peer

    @property
    def context(self) -> object:
        """Whatever the application keeps for this connection, None at first: who is at its other end, say."""
        return self._connection.context

    @context.setter
    def context(self, value: object) -> None:
        self._connection.context = value

    @property
    def derived(self) -> object:
        """Whatever the application derives from `head` alone; None at first.

        It is kept while this connection repeats that head byte for byte, so that nothing need be derived twice.
        """
        return self._connection.derived

    @derived.setter
    def derived(self, value: object) -> None:
        self._connection.derived = value

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call `callback` when nobody waits any more; replaces the former one.

        That is when the client leaves (at once if it has left), or when the handler ends: what still runs for this
        exchange then has no reader.
        """
        self._on_gone = callback
        if callback is not None and self.gone:
            callback()

    # --- request body ---

    async def read_body(self, limit: int) -> bytes:
        """Read the whole body. Raises: BadRequest 413 over `limit` bytes, ClientGone when it was cut short."""
        length = self.head.content_length
        if length is not None and length > limit:
            raise BadRequest(413, f"request body is {length} bytes, limit is {limit}")
        pieces, size = [], 0
        async for piece in self.body():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise BadRequest(413, f"request body is over {limit} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def body(self) -> AsyncIterator[bytes]:
        """Pieces as they come; the client is held back while they are not read.

        Raises: BadRequest for bad chunks, ClientGone when the client left before the end.
        """
        self._send_continue()
        while data := await self.inflow.read():
            yield data

    @property
    def trailers(self) -> Headers:
        """Trailers of the request; complete after the body."""
        return self.inflow.trailers

    def _send_continue(self) -> None:
        if self._continue:
            self._continue = False
            if not self.responded and not self.inflow.ended:
                self._connection.send(_CONTINUE)

    # --- response ---

    async def respond(self, status: int, headers: Iterable[tuple[str, str]] = (), body: bytes = b"") -> None:
        """Answer in one write. Raises: ClientGone."""
        bodyless = status in {204, 304}
        head = self._begin(status, headers, content_length=None if bodyless else len(body))
        self.ended = True
        connection = self._connection
        connection.send(head if bodyless or self.head.method == "HEAD" else head + body)
        if connection.blocked:
            await connection.drain()

    def start_response(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        *,
        content_length: int | None = None,
        reason: str = "",
    ) -> None:
        """Send the head now; the body follows by `write`, chunked unless its length is given. Raises: ClientGone."""
        bodyless = self.head.method == "HEAD" or status in {204, 304}
        self._chunked = content_length is None and not bodyless
        self._body_left = 0 if bodyless else content_length
        head = self._begin(
            status, headers, content_length=content_length, reason=reason, chunked=self._chunked
        )
        self._connection.send(head)
        if self.may_hijack:  # the raw stream did not come: a half-close means leaving again
            self.may_hijack = False
            self._connection.notice_eof(self)

    async def write(self, data: bytes) -> None:
        """Send body bytes at once; wait while the client is slow.

        Raises: ClientGone; ValueError for more than the promised length.
        """
        if not data or self.head.method == "HEAD":
            return
        if not self.responded or self.ended:
            raise ValueError("body bytes outside a started response")
        connection = self._connection
        if self._chunked:
            parts = write_chunk(data)
            connection.send(b"".join(parts)) if len(data) < _COPY_BYTES else connection.send_parts(parts)
        else:
            self._count(len(data))
            connection.send(data)
        if connection.blocked:
            await connection.drain()

    async def end(self, trailers: Headers = ()) -> None:
        """Finish the body. Raises: ClientGone; ValueError for less than the promised length."""
        if not self.responded or self.ended:
            raise ValueError("end outside a started response")
        if self._body_left:
            raise ValueError(f"{self._body_left} promised bytes were not written")
        self.ended = True
        if self._chunked:
            self._connection.send(write_last_chunk(trailers))
            if self._connection.blocked:
                await self._connection.drain()

    def hijack(
        self,
        status: int,
        headers: Iterable[tuple[str, str]] = (),
        *,
        reason: str = "",
        upgrade: str | None = None,
    ) -> Duplex:
        """Answer with a head and turn the connection into a raw stream; HTTP never comes back on it.

        Bytes that followed the request were held unparsed and are the first of the stream. Raises: ClientGone.
        """
        if not self.inflow.ended:
            raise ValueError("hijack before the request body was received")
        self.responded = self.ended = self.hijacked = True
        connection = self._connection
        connection.send(response_head(status, headers, reason=reason, upgrade=upgrade))
        return connection.become_duplex()

    def _begin(
        self,
        status: int,
        headers: Iterable[tuple[str, str]],
        *,
        content_length: int | None,
        reason: str = "",
        chunked: bool = False,
    ) -> bytes:
        if self.responded:
            raise ValueError("second response to one request")
        connection = self._connection
        key = (status, tuple(headers), reason, content_length, chunked, connection.must_close_after(self))
        last, head = connection.last_answer
        if key != last:
            head = response_head(
                status, key[1], reason=reason, content_length=content_length, chunked=chunked, close=key[5]
            )
            if len(head) <= REMEMBERED_CHARACTERS:
                connection.last_answer = key, head
        self.responded = True
        return head

    def _count(self, size: int) -> None:
        if self._body_left is not None:
            if size > self._body_left:
                raise ValueError("more body bytes than promised")
            self._body_left -= size

    # --- called by the connection ---

    def keeps_connection(self, drain_bytes: int) -> bool:
        """Whether another request may follow: the rest of this body is small, and sure to come."""
        if not self.head.keep_alive:
            return False
        if self.inflow.ended:
            return True
        length = self.head.content_length
        return length is not None and length <= drain_bytes and not self._continue

    def release(self) -> None:
        """The handler is done: stop what still works for it."""
        callback, self._on_gone = self._on_gone, None
        if callback is not None:
            callback()

    def client_left(self) -> None:
        if not self.gone:
            self.gone = True
            self.inflow.fail(ClientGone("client left before its request was complete"))
            if self._on_gone is not None:
                self._on_gone()
