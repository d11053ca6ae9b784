"""How many connections one user may have to the allocator's socket, which everybody may open."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import TYPE_CHECKING

from host.peercred import credentials
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 16  # of one user at once; who is trusted has as many as there are creates that wait
_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s"
)
_MESSAGE = b'{"message": "ds01: too many connections to the allocator are open, limit is %d; close some"}'


class Doorkeeper:
    """Makes protocols for a server: those of `serve`, or one that says that there are too many.

    The kernel says whose a connection is. One that is closing does not count any more.
    """

    def __init__(
        self, serve: Callable[[], asyncio.Protocol], *, trusted_uids: frozenset[int], most: int = MOST
    ) -> None:
        self._serve = serve
        self._trusted = trusted_uids
        self._most = most
        self._open: defaultdict[int, set[asyncio.Transport]] = defaultdict(set)

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one new connection."""
        return _Arriving(self)

    def arrived(self, transport: asyncio.Transport) -> None:
        """Let one in, or turn it away."""
        uid = credentials(transport.get_extra_info("socket"))[1]
        if uid not in self._trusted and self._is_full(uid):
            log(events.CONNECTION_REFUSED, uid=uid, limit=self._most)
            message = _MESSAGE % self._most
            transport.write(_TOO_MANY % (len(message), message))
            transport.close()
            return
        if uid not in self._trusted:
            self._open[uid].add(transport)
        protocol = self._serve()
        transport.set_protocol(protocol)
        protocol.connection_made(transport)

    def _is_full(self, uid: int) -> bool:
        self._open[uid] = {one for one in self._open[uid] if not one.is_closing()}
        return len(self._open[uid]) >= self._most


class _Arriving(asyncio.Protocol):
    """A connection whose user is not known yet."""

    def __init__(self, doorkeeper: Doorkeeper) -> None:
        self._doorkeeper = doorkeeper

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  for the type: a Unix socket's is one
        self._doorkeeper.arrived(transport)
