"""The client's side: a pool of kept-alive connections to one Unix socket, one request at a time on each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from http1.call import Body, Call, prepare
from http1.errors import UpstreamLost, UpstreamUnavailable
from http1.limits import Limits
from http1.upstream import Response, Stale, Upstream, Watch

__all__ = ["Body", "Call", "Pool", "Response", "Watch", "prepare"]


class Pool:
    """Connections to one upstream Unix socket, kept alive and used again, last used first."""

    def __init__(self, path: str, *, limits: Limits | None = None) -> None:
        self.path = path
        self.limits = limits or Limits()
        self._idle: list[Upstream] = []

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
        except Stale:
            if not call.repeatable:
                raise UpstreamLost("upstream closed the connection before its answer") from None
        try:
            return await (await self._connect()).exchange(call, watch)
        except Stale:
            raise UpstreamLost("upstream closed the connection before its answer") from None

    def close(self) -> None:
        """Close the idle connections; running exchanges are not touched."""
        for connection in tuple(self._idle):
            connection.transport.abort()
        self._idle.clear()

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    def give_back(self, connection: Upstream) -> None:
        """Take a connection whose exchange is complete."""
        if len(self._idle) < self.limits.upstream_idle_connections:
            self._idle.append(connection)
        else:
            connection.transport.abort()

    def forget(self, connection: Upstream) -> None:
        """Drop a connection that is closed or has become a raw stream."""
        if connection in self._idle:
            self._idle.remove(connection)

    async def _connect(self) -> Upstream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.limits.connect_seconds):
                while True:
                    try:
                        _, connection = await loop.create_unix_connection(lambda: Upstream(self), self.path)
                    except BlockingIOError:  # the upstream's backlog is full: unix(7), EAGAIN
                        await asyncio.sleep(0.01)
                    else:
                        return connection
        except OSError as error:  # TimeoutError is one
            raise UpstreamUnavailable(f"cannot connect: {error.strerror or 'timed out'}") from error
