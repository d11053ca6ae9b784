"""One client's connection: framing, limits and its life. A handler's error ends here, so one client never stops the server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING

from http1.duplex import Duplex
from http1.errors import BadRequest, ClientGone
from http1.exchange import Exchange
from http1.flow import FlowProtocol, Inflow
from http1.heads import RequestHead
from http1.reader import End, RequestEvent, RequestReader
from http1.writer import last_answer

if TYPE_CHECKING:
    from http1.server import Listener


class Connection(FlowProtocol):
    """One client's connection: waiting for a head, in an exchange, or lingering until it may close."""

    __slots__ = (
        "_broken",
        "_closing",
        "_deadline",
        "_eof",
        "_exchange",
        "_handled",
        "_in_head",
        "_last_head",
        "_listener",
        "_reader",
        "_task",
        "context",
        "derived",
        "last_answer",
        "peer",
        "uid",
    )

    peer: socket.socket

    def __init__(self, listener: Listener, uid: int) -> None:
        super().__init__(listener.server.limits)
        self._listener = listener
        self._reader = RequestReader(self._limits)
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._handled = False  # the handler is done, the rest of its request body is thrown away
        self._closing = False  # no further request on this connection
        self._broken = False  # framing is lost: nothing more is parsed
        self._eof = False
        self._in_head = False
        self._deadline: float | None = None  # loop time at which the coarse timer ends the connection
        self.context: object = None
        self.derived: object = None
        self.last_answer: tuple[object, bytes] = (None, b"")  # what a head was written from, and its bytes
        self._last_head: RequestHead | None = None
        self.uid = uid

    # --- what the transport calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)
        self.peer = transport.get_extra_info("socket")
        self._listener.connections.add(self)
        self._wait_idle()

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        try:
            events = self._reader.feed(data)
        except BadRequest as error:
            self._refuse(error)
            return
        if events:
            self._take(events)
        elif self._exchange is None:
            self._wait_head()
        elif self._reader.held_bytes > self._limits.high_water_bytes:
            self.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        exchange = self._exchange
        if exchange is None:
            return False  # idle, half a head, or lingering: nobody waits for an answer
        held = exchange.may_hijack or self._reader.held_bytes  # the half-close belongs to what comes next
        if not (exchange.inflow.ended and held):
            exchange.client_left()
        return True

    def notice_eof(self, exchange: Exchange) -> None:
        """Tell `exchange` of a half-close that was kept for a raw stream."""
        if self._eof:
            exchange.client_left()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._eof = True
        self._listener.forget(self)
        if self._exchange is not None:
            self._exchange.client_left()

    # --- one exchange after the other ---

    def _take(self, events: list[RequestEvent]) -> None:
        for event in events:
            if isinstance(event, RequestHead):
                self._begin(event)
            elif self._exchange is not None:
                self._take_body(self._exchange.inflow, event)

    def _begin(self, head: RequestHead) -> None:
        self._deadline = None
        self._in_head = self._handled = False
        if head is not self._last_head:
            self._last_head, self.derived = head, None
        exchange = self._exchange = Exchange(head, self)
        self._task = asyncio.get_running_loop().create_task(self._run(exchange))

    def _take_body(self, inflow: Inflow, event: bytes | End | RequestHead) -> None:
        if isinstance(event, End):
            inflow.finish(event.trailers)
            if self._handled:
                self._next()
        elif isinstance(event, bytes) and not self._handled:
            inflow.feed(event)

    async def _run(self, exchange: Exchange) -> None:
        """Run the handler; every error ends here, at this connection's edge."""
        try:
            await self._listener.handler(exchange)
            if not exchange.ended:
                raise RuntimeError("the handler returned before its answer was complete")  # noqa: TRY301  same edge
        except BadRequest as error:
            self._answer_error(exchange, error.status, error.message)
        except ClientGone:
            self.transport.abort()
        except asyncio.CancelledError:
            self.transport.abort()
            raise
        except Exception as error:  # noqa: BLE001  the one edge: a bug in one exchange must not stop the server
            self._answer_error(exchange, *self._listener.server.on_error(exchange, error))
        finally:
            exchange.release()
        self._finish(exchange)

    def _answer_error(self, exchange: Exchange, status: int, message: str) -> None:
        self._closing = True
        if exchange.responded:
            self.transport.abort()  # a cut answer must look cut
        elif not self.transport.is_closing():
            self._send_error(status, message)
            exchange.responded = exchange.ended = True

    def _finish(self, exchange: Exchange) -> None:
        self._task = None
        if exchange.hijacked or self.transport.is_closing():
            return
        if self.must_close_after(exchange):
            self._linger()
            return
        self._handled = True
        exchange.inflow.discard()
        if exchange.inflow.ended:
            self._next()
        else:
            self._deadline = asyncio.get_running_loop().time() + self._limits.head_seconds
            self.resume_reading()

    def _next(self) -> None:
        self._exchange = None
        self._handled = False
        if not self._reader.remembers(self._last_head):  # too long to be kept while idle
            self._last_head = self.derived = None
        try:
            events = self._reader.next_message()
        except BadRequest as error:
            self._refuse(error)
            return
        self.resume_reading()
        if events:
            self._take(events)
        elif self._eof:
            self.transport.close()
        elif self._reader.head_begun:
            self._wait_head()
        else:
            self._wait_idle()

    # --- the ways it ends ---

    def must_close_after(self, exchange: Exchange) -> bool:
        """Whether the answer to `exchange` is the last on this connection."""
        return (
            self._closing
            or self._listener.server.stopping
            or not exchange.keeps_connection(self._limits.drain_bytes)
        )

    def _refuse(self, error: BadRequest) -> None:
        """Framing is in doubt: answer if that is possible, never parse again."""
        self._broken = self._closing = True
        exchange = self._exchange
        if exchange is None:
            self._send_error(error.status, error.message)
            self._linger()
        elif self._handled:
            self.transport.close()
        else:
            exchange.inflow.fail(error)

    def _linger(self) -> None:
        """Close so that the answer is read first: bytes still on their way in are thrown away for a moment."""
        exchange, self._exchange = self._exchange, None
        whole = exchange is not None and exchange.inflow.ended and not self._reader.held_bytes
        self._broken = self._closing = True
        if whole or self._eof or self.transport.is_closing():
            self.transport.close()
            return
        self._deadline = asyncio.get_running_loop().time() + self._limits.linger_seconds
        self.transport.write_eof()
        self.resume_reading()

    def expire(self, now: float) -> None:
        """Called by the coarse timer. A head that is too slow, or a connection too long idle, ends here."""
        if self._deadline is None or now < self._deadline or self.transport.is_closing():
            return
        self._deadline = None
        if self._in_head and not self._broken:
            self._in_head = False
            self._refuse(BadRequest(408, f"request head took over {self._limits.head_seconds:g} seconds"))
        elif self._broken:
            self.transport.abort()
        else:
            self.transport.close()

    def stop(self) -> None:
        """Close when idle; after its exchange otherwise."""
        if self._exchange is None:
            self.transport.close()

    def cancel(self) -> None:
        """End at once."""
        if self._task is not None:
            self._task.cancel()
        self.transport.abort()

    def _wait_idle(self) -> None:
        self._in_head = False
        self._deadline = asyncio.get_running_loop().time() + self._limits.idle_seconds

    def _wait_head(self) -> None:
        if not self._in_head:
            self._in_head = True
            self._deadline = asyncio.get_running_loop().time() + self._limits.head_seconds

    # --- writing, for the exchange ---

    def send(self, data: bytes) -> None:
        if self.transport.is_closing():
            raise ClientGone("client left before its answer was complete")
        self.transport.write(data)

    def send_parts(self, parts: Iterable[bytes]) -> None:
        if self.transport.is_closing():
            raise ClientGone("client left before its answer was complete")
        self.transport.writelines(parts)

    def _send_error(self, status: int, message: str) -> None:
        self.transport.write(last_answer(status, message))

    def become_duplex(self) -> Duplex:
        """Hand the transport over; this object only waits to be told that it is gone."""
        return Duplex(
            self.transport,
            self._reader.release(),
            limits=self._limits,
            eof=self._eof,
            on_closed=self._hijack_closed,
        )

    def _hijack_closed(self) -> None:
        self._listener.forget(self)
