"""A raw two-way byte stream: what is left of a connection after an upgrade or a hijack.

It holds a transport and nothing of HTTP, so that a session is only its two file descriptors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from http1.errors import ClientGone
from http1.flow import FlowProtocol, Inflow

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from http1.limits import Limits


class Duplex(FlowProtocol):
    """Bytes both ways; each direction ends on its own.

    `read` gives b"" when the peer shut its writing side; `write_eof` shuts ours. `relay.splice` joins two, after
    which neither is read or written by hand.
    """

    __slots__ = ("_inflow", "_on_closed", "_other", "_shut", "closed", "eof", "moved_bytes")

    def __init__(
        self,
        transport: asyncio.Transport,
        early: bytes,
        *,
        limits: Limits,
        eof: bool = False,
        on_closed: Callable[[], None] | None = None,
    ) -> None:
        """Take over `transport`.

        Args:
            early: bytes that came before the switch, unparsed; they are read first.
            eof: the peer's writing side is shut already.
            on_closed: called once when the connection is gone.
        """
        super().__init__(limits)
        self._on_closed = on_closed
        self._other: Duplex | None = None
        self._shut = False
        self.closed = transport.is_closing()
        self.eof = False
        self.moved_bytes = 0  # received, so that an idle limit can see activity
        self._inflow = Inflow(self)
        self.attach(transport)
        transport.set_protocol(self)
        if not self.closed and not eof:
            transport.resume_reading()  # the HTTP protocol may have paused it
        if early:
            self._inflow.feed(early)
        if eof:
            self.eof_received()
        if self.closed:
            self.connection_lost(None)

    async def read(self) -> bytes:
        """Some bytes, b"" when the peer has shut its side. Raises: ClientGone when the connection broke."""
        return await self._inflow.read()

    async def write(self, data: bytes) -> None:
        """Send, and wait while the peer is slow. Raises: ClientGone when the connection broke."""
        self.push(data)
        await self.drain()

    def push(self, data: bytes) -> None:
        """Send without waiting. Raises: ClientGone when the connection broke."""
        if self.closed or self.transport.is_closing():
            raise ClientGone("raw stream closed")
        self.transport.write(data)

    def write_eof(self) -> None:
        """Shut the writing side after what was written; reading goes on."""
        if not self._shut and not self.closed and not self.transport.is_closing():
            self._shut = True
            self.transport.write_eof()

    def close(self) -> None:
        """End both directions after what was written."""
        if not self.closed:
            self.transport.close()

    def abort(self) -> None:
        """End both directions now."""
        if not self.closed:
            self.transport.abort()

    def join(self, other: Duplex) -> None:
        """Send all that comes, and has come, to `other` from now on. Used on both sides by `relay.splice`."""
        self._other = other
        if early := self._inflow.take():
            self._pass(other, early)

    def join_end(self, other: Duplex) -> None:
        """Carry the end that came before `join`; only after both sides' early bytes were passed."""
        if self.closed:
            other.abort()
        elif self.eof:
            self._pass_eof(other)

    def data_received(self, data: bytes) -> None:
        self.moved_bytes += len(data)
        if self._other is None:
            self._inflow.feed(data)
        else:
            self._pass(self._other, data)

    def eof_received(self) -> bool:
        if not self.eof:
            self.eof = True
            if self._other is None:
                self._inflow.finish()
            else:
                self._pass_eof(self._other)
        return True  # keep the writing side open: half-close is carried, not completed

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._other is not None:
            self._other.pause_reading()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._other is not None:
            self._other.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.closed = True
        self._inflow.fail(ClientGone("raw stream broke"))
        if self._other is not None and not (self.eof and self._other.eof):
            self._other.abort()
        on_closed, self._on_closed = self._on_closed, None
        if on_closed is not None:
            on_closed()

    def _pass(self, other: Duplex, data: bytes) -> None:
        if not other.closed and not other.transport.is_closing():
            other.transport.write(data)

    def _pass_eof(self, other: Duplex) -> None:
        other.write_eof()
        if other.eof:
            self.close()
            other.close()

    def when_closed(self, callback: Callable[[], None]) -> None:
        """Call `callback` once when the connection is gone, after the one given at the start."""
        if self.closed:
            callback()
            return
        first = self._on_closed

        def both() -> None:
            if first is not None:
                first()
            callback()

        self._on_closed = both
