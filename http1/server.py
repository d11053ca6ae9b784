"""The server's side: listening sockets and the connections on them; each has one exchange at a time.

What a request means is the handler's.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from http1.acceptor import Acceptor
from http1.connection import Connection
from http1.exchange import Exchange
from http1.limits import Limits

__all__ = ["Connection", "Exchange", "Handler", "Listener", "MostPerUid", "OnError", "Server"]

Handler = Callable[["Exchange"], Awaitable[None]]
MostPerUid = Callable[[int], int]
OnError = Callable[["Exchange", Exception], tuple[int, str]]


def _internal_error(_exchange: Exchange, _error: Exception) -> tuple[int, str]:
    return 500, "internal error"


class Listener:
    """One listening socket and its connections."""

    def __init__(
        self, server: Server, handler: Handler, *, most_per_uid: MostPerUid | None, shared: bool
    ) -> None:
        self.server = server
        self._shared = shared
        self._most_per_uid = most_per_uid
        self.handler = handler
        self.connections: set[Connection] = set()
        self._admitted: Counter[int] = Counter()  # by uid; also those that are only being made
        self._acceptor: Acceptor | None = None

    def open(self, listening: socket.socket) -> None:
        """Accept on a bound socket; `listen` is called on it."""
        self._acceptor = Acceptor(
            listening,
            admit=self._admit,
            make=lambda uid: Connection(self, uid),
            forget=self._forget_one,
            most=self.most,
            turn_away_seconds=self.server.limits.turn_away_seconds,
            shared=self._shared,
        )
        self._acceptor.start()

    def _admit(self, uid: int) -> str | None:
        most = self.most(uid)
        full = self._admitted.total() >= self.server.limits.connections
        if full or self._admitted[uid] >= most:
            return (
                f"too many connections on this socket, limit is {most} for one user (rule connections); "
                "close some and try again"
            )
        self._admitted[uid] += 1
        return None

    def most(self, uid: int) -> int:
        """How many connections one uid may have on this socket."""
        most = self.server.limits.connections_per_uid
        return most if self._most_per_uid is None else min(most, self._most_per_uid(uid))

    def forget(self, connection: Connection) -> None:
        if connection in self.connections:
            self.connections.remove(connection)
            self._forget_one(connection.uid)
            if self._acceptor is not None:
                self._acceptor.room_for(connection.uid)

    def _forget_one(self, uid: int) -> None:
        self._admitted[uid] -= 1
        if not self._admitted[uid]:
            del self._admitted[uid]

    def close(self) -> None:
        """Stop accepting and close idle connections; running exchanges finish."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        for connection in tuple(self.connections):
            connection.stop()


class Server:
    """Serves any number of listening sockets with one set of limits and one coarse timer."""

    def __init__(
        self, *, limits: Limits | None = None, on_error: OnError = _internal_error, tick_seconds: float = 1.0
    ) -> None:
        """Make a server.

        Args:
            on_error: turns a handler's unexpected exception into (status, message); the place to log it.
            tick_seconds: how exact the time limits are.
        """
        self.limits = limits or Limits()
        self.on_error = on_error
        self.stopping = False
        self._tick_seconds = tick_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._listeners: set[Listener] = set()

    async def listen(
        self,
        listening: socket.socket,
        handler: Handler,
        *,
        most_per_uid: MostPerUid | None = None,
        shared: bool = True,
    ) -> Listener:
        """Serve a bound socket with `handler`.

        Args:
            most_per_uid: how many connections a peer's uid may have, below what `Limits` permits to each.
            shared: users share this socket; on one user's own, who comes when too many wait for room waits as well.
        """
        listener = Listener(self, handler, most_per_uid=most_per_uid, shared=shared)
        listener.open(listening)
        self._listeners.add(listener)
        if self._timer is None:
            self._tick()
        return listener

    async def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Stop accepting, let running exchanges finish, then end what is left."""
        self.stopping = True
        listeners = tuple(self._listeners)
        for listener in listeners:
            listener.close()
        await self._finish(listeners, grace_seconds)
        self._listeners.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def connection_count(self) -> int:
        """Open connections, hijacked ones included."""
        return sum(len(listener.connections) for listener in self._listeners)

    async def _finish(self, listeners: Iterable[Listener], grace_seconds: float) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_seconds
        while any(listener.connections for listener in listeners) and loop.time() < deadline:  # noqa: ASYNC110  once, at the end
            await asyncio.sleep(min(0.02, grace_seconds))
        for listener in listeners:
            for connection in tuple(listener.connections):
                connection.cancel()
        await asyncio.sleep(0)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for listener in self._listeners:
            for connection in tuple(listener.connections):
                connection.expire(now)
        self._timer = loop.call_later(self._tick_seconds, self._tick)
