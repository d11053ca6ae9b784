"""How many connections there may be to the allocator's socket, which everybody may open, and how long an idle one stays.

The trusted have as many as there are creates that wait. All others share a number of their own, so that nobody's
connections leave the trusted without.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from host.peercred import credentials
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MOST = 16  # of one user at once
MOST_TOGETHER = 256  # of all who are not trusted
HEAD_SECONDS = 10.0  # in which a request must have been said
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)
_MESSAGE = b'{"message": "ds01: too many connections to the allocator are open, limit is %d%s; close some"}'


class Doorkeeper:
    """Makes protocols for a server: those of `serve`, or one that says that there are too many.

    The kernel says whose a connection is, and `owner_of` to whom that uid was lent. One that is closing does not count
    any more. Who is not trusted is cut off when no request comes; `hearing` has to be a middleware of the application.
    """

    def __init__(
        self,
        serve: Callable[[], asyncio.Protocol],
        *,
        trusted_uids: frozenset[int],
        owner_of: Callable[[int], int] = int,
        most: int = MOST,
        most_together: int = MOST_TOGETHER,
        head_seconds: float = HEAD_SECONDS,
    ) -> None:
        """Args: owner_of: whose a uid is that was lent for a user namespace; others are their own."""
        self._serve = serve
        self._trusted = trusted_uids
        self._owner_of = owner_of
        self._most = most
        self._most_together = most_together
        self._head_seconds = head_seconds
        self._open: dict[asyncio.BaseTransport, int] = {}  # whose, of those that are not trusted
        self._deadlines: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one new connection."""
        return _Arriving(self)

    def arrived(self, transport: asyncio.Transport) -> None:
        """Let one in, or turn it away."""
        uid = credentials(transport.get_extra_info("socket"))[1]
        if uid not in self._trusted:
            if (full := self._full(self._owner_of(uid))) is not None:
                limit, whose = full
                log(events.CONNECTION_REFUSED, uid=uid, limit=limit)
                message = _MESSAGE % (limit, whose)
                transport.write(_TOO_MANY % (len(message), message))
                transport.close()
                return
            self._open[transport] = self._owner_of(uid)
            self._expect(transport)
        protocol = self._serve()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    @web.middleware
    async def hearing(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """A request was said; once it is answered the next one is waited for."""
        transport = request.transport
        if transport is None or transport not in self._open:
            return await handler(request)
        self._stop_expecting(transport)
        try:
            return await handler(request)
        finally:
            self._expect(transport)

    def _full(self, owner: int) -> tuple[int, bytes] | None:
        """The limit that one more of an owner would pass, and who shares it."""
        for gone in [one for one in self._open if one.is_closing()]:
            del self._open[gone]
            self._stop_expecting(gone)
        if sum(one == owner for one in self._open.values()) >= self._most:
            return self._most, b""
        if len(self._open) >= self._most_together:
            return self._most_together, b" for all users together"
        return None

    def _expect(self, transport: asyncio.Transport) -> None:
        self._stop_expecting(transport)
        if not transport.is_closing():
            loop = asyncio.get_running_loop()
            self._deadlines[transport] = loop.call_later(self._head_seconds, transport.abort)

    def _stop_expecting(self, transport: asyncio.BaseTransport) -> None:
        if (deadline := self._deadlines.pop(transport, None)) is not None:
            deadline.cancel()


class _Arriving(asyncio.Protocol):
    """A connection whose user is not known yet."""

    def __init__(self, doorkeeper: Doorkeeper) -> None:
        self._doorkeeper = doorkeeper

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  for the type: a Unix socket's is one
        self._doorkeeper.arrived(transport)
