"""The client's side: a pool of kept-alive connections to one Unix socket, one request at a time on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from http1.duplex import Duplex
from http1.errors import BadResponse, ClientGone, UpstreamLost, UpstreamUnavailable
from http1.flow import FlowProtocol, Inflow
from http1.heads import Headers, ResponseHead
from http1.limits import Limits
from http1.reader import End, ResponseReader
from http1.writer import field_line, request_head, write_chunk, write_last_chunk

_COPY_BYTES: Final = 16 * 1024  # below this one write of a copy is faster than three writes
_REPEATABLE: Final = frozenset({"GET", "HEAD"})
_BODY_EXPECTED: Final = frozenset(
    {"POST", "PUT", "PATCH"}
)  # these say `Content-Length: 0` when they have none
Body = bytes | AsyncIterator[bytes] | None


class Watch(Protocol):
    """Who waits for the answer and may leave; `server.Exchange` is one."""

    def on_gone(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the one who waits leaves; at once if that was before."""


class Response:
    """One answer. Read it to the end, `hijack` it or `abort` it."""

    __slots__ = ("_abandon", "_duplex", "_inflow", "head")

    def __init__(
        self, head: ResponseHead, inflow: Inflow, abandon: Callable[[], None], duplex: Duplex | None
    ) -> None:
        self.head = head
        self._inflow = inflow
        self._abandon = abandon
        self._duplex = duplex

    @property
    def complete(self) -> bool:
        """The whole body has arrived; `take` gives what was not read yet, without waiting."""
        return self._inflow.ended

    @property
    def raw(self) -> bool:
        """The answer is a raw two-way stream: call `hijack`."""
        return self._duplex is not None

    @property
    def trailers(self) -> Headers:
        """Known once the body was read."""
        return self._inflow.trailers

    def take(self) -> bytes:
        """What has arrived and was not read yet."""
        return self._inflow.take()

    async def read_some(self) -> bytes:
        """Body bytes as soon as there are any, b"" at the end. Raises: UpstreamLost."""
        return await self._inflow.read()

    async def body(self) -> AsyncIterator[bytes]:
        """The body in pieces as they come. Raises: UpstreamLost."""
        while data := await self._inflow.read():
            yield data

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises: UpstreamLost; BadResponse over `limit` bytes (the connection is closed)."""
        inflow = self._inflow
        if inflow.ended and inflow.size <= limit:  # a small answer has come in one piece with its head
            return inflow.take()
        pieces, size = [], 0
        while data := await self._inflow.read():
            pieces.append(data)
            size += len(data)
            if size > limit:
                self.abort()
                raise BadResponse(f"upstream's answer is over {limit} bytes")
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def hijack(self) -> Duplex:
        """The raw stream. Raises: ValueError if the answer is not one (see `raw`)."""
        if self._duplex is None:
            raise ValueError("this answer is not a raw stream")
        return self._duplex

    def abort(self) -> None:
        """Close the upstream connection at once; nothing if the answer has arrived completely."""
        if self._duplex is not None:
            self._duplex.abort()
        else:
            self._abandon()


class _Stale(Exception):  # noqa: N818  internal signal
    """A kept-alive connection was closed before one byte of the answer came."""


class _Upstream(FlowProtocol):
    """One connection to the upstream: idle in the pool, or in one exchange."""

    __slots__ = (
        "_got_bytes",
        "_head",
        "_inflow",
        "_pool",
        "_reader",
        "_upload",
        "_used",
        "_waiter",
        "closed",
    )

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool.limits)
        self._pool = pool
        self._reader = ResponseReader(self._limits)
        self._inflow: Inflow | None = None  # set while an exchange runs
        self._head: ResponseHead | None = None
        self._waiter: asyncio.Future[Response] | None = None
        self._upload: asyncio.Task[None] | None = None
        self._got_bytes = False
        self._used = False
        self.closed = False

    async def exchange(self, call: Call, watch: Watch | None) -> Response:
        """Send one request and wait for the head of its answer. Raises: as `Pool.request`, and _Stale."""
        loop = asyncio.get_running_loop()
        self._reader.expect(call.method, raw=call.hijack, upgrade=call.upgrade is not None)
        inflow = self._inflow = Inflow(self)
        waiter: asyncio.Future[Response] = loop.create_future()
        self._waiter = waiter
        self._head = None
        self._got_bytes = False
        if watch is not None:  # before the first byte: for a client that has left nothing is sent
            watch.on_gone(lambda: self._end(inflow, ClientGone("client left before its answer was complete")))
        if self._inflow is inflow:
            self.transport.write(call.first_bytes)
            if call.stream is not None:
                # Not in a TaskGroup: it outlives this call, and ends with the exchange (`_fail`, `_complete`).
                self._upload = loop.create_task(self._send(call.stream, inflow, call.content_length))
        try:
            return await waiter
        except asyncio.CancelledError:
            self._end(inflow, UpstreamLost("cancelled"))
            raise

    # --- what the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)

    def data_received(self, data: bytes) -> None:
        if self._inflow is None:
            self.transport.abort()  # SECURITY: an answer nobody asked for must not meet the next request
            return
        self._got_bytes = True
        try:
            for event in self._reader.feed(data):
                self._take(event)
        except BadResponse as error:
            self._fail(error)

    def eof_received(self) -> bool:
        self._retire()
        if self._inflow is not None:
            try:
                for event in self._reader.feed_eof():
                    self._take(event)
            except BadResponse as error:
                self._lose(error)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._retire()
        self._lose(UpstreamLost("upstream closed the connection before its answer was complete"))

    def _retire(self) -> None:
        self.closed = True
        self._pool.forget(self)

    # --- the answer ---

    def _take(self, event: ResponseHead | bytes | End) -> None:
        inflow = self._inflow
        if inflow is None:
            return
        if isinstance(event, ResponseHead):
            self._take_head(event, inflow)
        elif isinstance(event, End):
            inflow.finish(event.trailers)
            self._complete()
        else:
            inflow.feed(event)

    def _take_head(self, head: ResponseHead, inflow: Inflow) -> None:
        self._head = head
        duplex = None
        if self._reader.raw:
            # From here on the connection is bytes: this object and its parser are out of the way.
            self._inflow = None
            self._retire()
            self._stop_upload()
            duplex = Duplex(self.transport, self._reader.release(), limits=self._limits)
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        abandon = partial(self._end, inflow, UpstreamLost("aborted"))
        waiter.set_result(Response(head, inflow, abandon, duplex))

    def _complete(self) -> None:
        """The answer is whole: keep the connection if it is certain what comes next on it."""
        head, self._inflow = self._head, None
        uploaded = self._stop_upload()
        self._used = True
        self.resume_reading()
        if (
            uploaded
            and head is not None
            and head.keep_alive
            and not self.closed
            and not self._reader.held_bytes
        ):
            self._pool.give_back(self)
        else:
            self.transport.abort()

    def _lose(self, error: UpstreamLost) -> None:
        """The upstream closed. Whether the request can be sent again is the pool's decision."""
        self._fail(_Stale() if self._used and not self._got_bytes else error)

    def _end(self, inflow: Inflow, error: Exception) -> None:
        """End one exchange from this side, if it still runs."""
        if self._inflow is inflow:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        inflow, self._inflow = self._inflow, None
        self._stop_upload()
        if inflow is not None:
            inflow.fail(error)
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)
        if not self.closed:
            self.transport.abort()

    # --- the upload ---

    def _stop_upload(self) -> bool:
        """Returns: True when nothing was left to send."""
        upload, self._upload = self._upload, None
        if upload is None or upload.done():
            return True
        upload.cancel()
        return False

    async def _send(self, stream: AsyncIterator[bytes], inflow: Inflow, length: int | None) -> None:
        """Send the body while the answer may come already. A body cut short never looks complete."""
        left = length
        try:
            async for data in stream:
                if self.transport.is_closing():
                    return
                if left is not None:
                    left -= len(data)
                    if left < 0:  # SECURITY: bytes behind a body would be read as a request
                        break
                self._write(data, chunked=length is None)
                if self.blocked:
                    await self.drain()
            if left:
                raise ValueError("request body and its promised length differ")  # noqa: TRY301  same edge
            if length is None and not self.transport.is_closing():
                self.transport.write(write_last_chunk())
        except Exception as error:  # noqa: BLE001  whatever the source raised belongs to who asked
            self._upload = None
            self._end(inflow, error)

    def _write(self, data: bytes, *, chunked: bool) -> None:
        if not chunked:
            self.transport.write(data)
        elif len(data) < _COPY_BYTES:
            self.transport.write(b"".join(write_chunk(data)))
        else:
            self.transport.writelines(write_chunk(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, ready to send, any number of times if it has no stream."""

    method: str
    first_bytes: bytes
    stream: AsyncIterator[bytes] | None
    content_length: int | None
    hijack: bool
    upgrade: str | None

    def with_field(self, name: str, value: str) -> Call:
        """The same request with one more header. Raises: ValueError: it has a body, or the field is none."""
        if self.stream is not None or not self.first_bytes.endswith(b"\r\n\r\n"):
            raise ValueError("a header goes in front of a body")
        return Call(
            method=self.method,
            first_bytes=b"%b%b\r\n" % (self.first_bytes[:-2], field_line(name, value)),
            stream=None,
            content_length=self.content_length,
            hijack=self.hijack,
            upgrade=self.upgrade,
        )

    @property
    def repeatable(self) -> bool:
        return self.method in _REPEATABLE and self.stream is None and not self.hijack and self.upgrade is None


class Pool:
    """Connections to one upstream Unix socket, kept alive and used again, last used first."""

    def __init__(self, path: str, *, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits or Limits()
        self._idle: list[_Upstream] = []

    async def request(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        body: Body = None,
        *,
        content_length: int | None = None,
        hijack: bool = False,
        upgrade: str | None = None,
        watch: Watch | None = None,
    ) -> Response:
        """Send one request; return with the head of its answer, which may come while the body is still sent.

        Args:
            headers: without framing headers; `Host` is added when missing.
            body: an iterator is streamed with backpressure: chunked, or `content_length` bytes when that is given.
            hijack: a 200 without length is a raw stream (`response.raw`).
            upgrade: protocol to ask for; 101 is a raw stream.
            watch: when it leaves, the upstream connection is closed at once.
        Raises: UpstreamUnavailable: nothing was sent. UpstreamLost: the request may have taken effect.
            ClientGone: `watch` left. ValueError: a head that must not be sent. Whatever `body` raises.
        """
        call = prepare(method, target, headers, body, content_length, hijack=hijack, upgrade=upgrade)
        return await self.send(call, watch)

    async def send(self, call: Call, watch: Watch | None = None) -> Response:
        """Send a prepared request; otherwise as `request`."""
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            return await connection.exchange(call, watch)
        except _Stale:
            if not call.repeatable:
                raise UpstreamLost("upstream closed the connection before its answer") from None
        try:
            return await (await self._connect()).exchange(call, watch)
        except _Stale:
            raise UpstreamLost("upstream closed the connection before its answer") from None

    def close(self) -> None:
        """Close the idle connections; running exchanges are not touched."""
        for connection in tuple(self._idle):
            connection.transport.abort()
        self._idle.clear()

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    def give_back(self, connection: _Upstream) -> None:
        """Take a connection whose exchange is complete."""
        if len(self._idle) < self.limits.upstream_idle_connections:
            self._idle.append(connection)
        else:
            connection.transport.abort()

    def forget(self, connection: _Upstream) -> None:
        """Drop a connection that is closed or has become a raw stream."""
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self) -> _Upstream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                while True:
                    try:
                        _, connection = await loop.create_unix_connection(lambda: _Upstream(self), self.path)
                    except BlockingIOError:  # the upstream's backlog is full: unix(7), EAGAIN
                        await asyncio.sleep(0.01)
                    else:
                        return connection
        except OSError as error:  # TimeoutError is one
            raise UpstreamUnavailable(f"cannot connect: {error.strerror or 'timed out'}") from error


def prepare(
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: Body = None,
    content_length: int | None = None,
    *,
    hijack: bool = False,
    upgrade: str | None = None,
) -> Call:
    """Write the head; a body of bytes goes into the same write. Arguments and ValueError as `Pool.request`."""
    stream = None if body is None or isinstance(body, bytes) else body
    whole = body if isinstance(body, bytes) else b""
    if stream is None:
        content_length = len(whole) if body is not None or method in _BODY_EXPECTED else None
    head = request_head(
        method,
        target,
        headers,
        content_length=content_length,
        chunked=stream is not None and content_length is None,
        upgrade=upgrade,
    )
    return Call(
        method=method,
        first_bytes=head + whole,
        stream=stream,
        content_length=content_length,
        hijack=hijack,
        upgrade=upgrade,
    )
