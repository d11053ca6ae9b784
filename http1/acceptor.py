"""Taking connections off a listening socket, so that who opens many of them holds nobody else up.

The event loop's own server takes all that wait in one go: hundreds of connections before anybody's next byte. Here a turn of the
loop takes a few. Who is over a limit waits until there is room, costs nothing in that while, and is turned away if there is none for
too long: a client that comes again as soon as it is turned away would otherwise be answered as fast as it can ask. When too many wait,
a shared socket refuses the next at once, for nobody else may wait behind them; one user's own socket takes no more until one has left.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final, cast

from http1.writer import last_answer

_UCRED: Final = struct.Struct("3i")  # pid, uid, gid: SO_PEERCRED, unix(7)
_BACKLOG: Final = 1024
_AT_ONCE: Final = 4  # connections taken in one turn of the loop
_REST_SECONDS: Final = 0.1  # without a descriptor left, those who wait go on waiting

Admit = Callable[[int], str | None]
MakeProtocol = Callable[[int], asyncio.BaseProtocol]


class Acceptor:
    """Accepts on one bound socket from `start` to `close`."""

    def __init__(
        self,
        listening: socket.socket,
        *,
        admit: Admit,
        make: MakeProtocol,
        forget: Callable[[int], None],
        most: Callable[[int], int],
        turn_away_seconds: float,
        shared: bool,
    ) -> None:
        """Listen on nothing yet.

        Args:
            admit: counts a connection of this uid (-1 where the peer has none); or the reason why there is no room for it.
            make: the protocol that serves an admitted connection of this uid.
            forget: an admitted connection came to nothing.
            most: how many of this uid's may wait for room.
            turn_away_seconds: how long one of them waits.
            shared: users share this socket, so those beyond `most` are refused at once; else they stay with the kernel.
        """
        self._listening = listening
        self._admit = admit
        self._make = make
        self._forget = forget
        self._turn_away_seconds = turn_away_seconds
        self._most = most
        self._shared = shared
        self._held: dict[
            int, deque[socket.socket]
        ] = {}  # who waits for room, by uid; first come, first served
        self._beginning: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._rest: asyncio.TimerHandle | None = None
        self._full = False  # too many wait here to take another

    def start(self) -> None:
        self._listening.listen(_BACKLOG)
        self._listening.setblocking(False)
        self._loop.add_reader(self._listening, self._take)

    def close(self) -> None:
        """Accept no more; who waits to be turned away is let go."""
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        for held in self._held.values():
            for peer in held:
                peer.close()
        self._held.clear()

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                peer, _address = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._listening)
                self._rest = self._loop.call_later(_REST_SECONDS, self._resume)
                return
            self._receive(peer)
            if self._full:
                return

    def _resume(self) -> None:
        self._loop.add_reader(self._listening, self._take)

    def _receive(self, peer: socket.socket) -> None:
        peer.setblocking(False)
        uid = peer_uid(peer)
        reason = self._admit(uid)
        if reason is None:
            self._serve(peer, uid)
        elif self._shared and len(self._held.get(uid, ())) >= self._most(uid):
            _refuse(peer, reason)
        else:
            self._hold(peer, uid)

    def _hold(self, peer: socket.socket, uid: int) -> None:
        held = self._held.setdefault(uid, deque())
        held.append(peer)
        self._loop.call_later(self._turn_away_seconds, self._turn_away, peer, uid)
        if not self._shared and len(held) >= self._most(uid):
            self._full = True
            self._loop.remove_reader(self._listening)

    def room_for(self, uid: int) -> None:
        """A connection of this uid has ended: the first of those that wait is served, if it is admitted now."""
        held = self._held.get(uid)
        if held and self._admit(uid) is None:
            self._serve(self._release(held[0], uid), uid)

    def _turn_away(self, peer: socket.socket, uid: int) -> None:
        if peer not in self._held.get(uid, ()):
            return
        self._release(peer, uid)
        reason = self._admit(uid)  # there may be room that another uid has left
        if reason is None:
            self._serve(peer, uid)
        else:
            _refuse(peer, reason)

    def _release(self, peer: socket.socket, uid: int) -> socket.socket:
        held = self._held[uid]
        held.remove(peer)
        if not held:
            del self._held[uid]
        if self._full:
            self._full = False
            self._resume()
        return peer

    def _serve(self, peer: socket.socket, uid: int) -> None:
        task = self._loop.create_task(self._begin(peer, uid))
        self._beginning.add(task)
        task.add_done_callback(self._beginning.discard)

    async def _begin(self, peer: socket.socket, uid: int) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make(uid), peer)
        except OSError:  # it left before it was served
            self._forget(uid)
            peer.close()


def _refuse(peer: socket.socket, reason: str) -> None:
    with suppress(OSError), peer:
        peer.send(last_answer(503, reason))


def peer_uid(peer: socket.socket) -> int:
    """The uid that called connect(2) on a Unix socket, -1 on any other."""
    if peer.family != socket.AF_UNIX:
        return -1
    _, uid, _ = cast(
        "tuple[int, int, int]",
        _UCRED.unpack(peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)),
    )
    return uid
