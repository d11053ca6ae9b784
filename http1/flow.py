"""Backpressure, both directions: what came in waits in an `Inflow`, what goes out waits in `FlowProtocol.drain`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from http1.heads import Headers
    from http1.limits import Limits


class FlowProtocol(asyncio.Protocol):
    """A protocol whose writers can wait until the peer has read enough, and whose reading can be held."""

    __slots__ = ("_drained", "_limits", "_reading", "_writable", "transport")

    transport: asyncio.Transport

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._writable = True
        self._reading = True
        self._drained: asyncio.Future[None] | None = None

    def attach(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport. Called from `connection_made`, or when the protocol is swapped in."""
        # uvloop's transports are Transports in all but their base class.
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(self._limits.high_water_bytes, self._limits.low_water_bytes)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake_writer()

    @property
    def blocked(self) -> bool:
        """More is waiting to be sent than the high-water mark: `drain` would wait."""
        return not self._writable

    def _wake_writer(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    async def drain(self) -> None:
        """Wait until the peer has read enough, or is gone. One writer at a time."""
        while not self._writable:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained

    def connection_lost(self, _exc: Exception | None) -> None:
        self._writable = True
        self._wake_writer()

    def pause_reading(self) -> None:
        if self._reading and not self.transport.is_closing():
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()


class Inflow:
    """One body on its way in: pauses its connection above high water. One reader."""

    __slots__ = ("_error", "_pieces", "_protocol", "_waiter", "ended", "size", "trailers")

    def __init__(self, protocol: FlowProtocol) -> None:
        self._protocol = protocol
        self._pieces: list[bytes] = []
        self.size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self.ended = False
        self.trailers: Headers = ()

    def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self.size += len(data)
        if self.size > self._protocol._limits.high_water_bytes:  # noqa: SLF001  the two are one mechanism
            self._protocol.pause_reading()
        if self._waiter is not None:
            self._wake()

    def finish(self, trailers: Headers = ()) -> None:
        self.ended = True
        self.trailers = trailers
        self._wake()

    def fail(self, error: Exception) -> None:
        """End the body early. Bytes that came before are still read first."""
        if not self.ended and self._error is None:
            self._error = error
            self._wake()

    def discard(self) -> int:
        """Throw away what waits. Returns: how many bytes that was."""
        size, self.size = self.size, 0
        self._pieces.clear()
        return size

    def take(self) -> bytes:
        """Everything that is here now; reading goes on if it was paused."""
        pieces = self._pieces
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.size = 0
        self._protocol.resume_reading()
        return data

    async def read(self) -> bytes:
        """Some bytes as soon as there are any, b"" at the end. Raises: what `fail` was given."""
        while not self._pieces:
            if self.ended:
                return b""
            if self._error is not None:
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self.take()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self.read():
            yield data

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
