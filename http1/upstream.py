"""One kept-alive connection to the upstream, one exchange at a time, and the answers that come on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from http1.duplex import Duplex
from http1.errors import BadResponse, ClientGone, UpstreamLost
from http1.flow import FlowProtocol, Inflow
from http1.heads import Headers, ResponseHead
from http1.reader import End, ResponseReader
from http1.writer import write_chunk, write_last_chunk

if TYPE_CHECKING:
    from http1.call import Call
    from http1.client import Pool

_COPY_BYTES: Final = 16 * 1024  # below this one write of a copy is faster than three writes


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


class Stale(Exception):  # noqa: N818  internal signal
    """A kept-alive connection was closed before one byte of the answer came."""


class Upstream(FlowProtocol):
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
        """Send one request and wait for the head of its answer. Raises: as `Pool.request`, and Stale."""
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
        self._fail(Stale() if self._used and not self._got_bytes else error)

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
