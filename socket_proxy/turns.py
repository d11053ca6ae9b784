"""Users take turns: of one user's requests only a few are worked on at a time, the others wait for those.

Who sends a thousand requests at once waits for a thousand answers, and nobody else does. The few are shared among the users who have
work at the moment, at least one for each, so that a newcomer finds short queues in dockerd and in the plugin too. A turn lasts
while ds01 itself has work: reading, deciding, and for short reads the answer. What dockerd takes long for (a wait, a pull, a build)
holds none.

Turns alone do not keep the processors free for a newcomer, nor dockerd, whose work on a request ds01 cannot hold back. So who has a crowd
waiting, while others work too, pauses after each turn: about a hundred requests in a second, which no tool needs more of.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from policy.model import Uid

MOST_AT_ONCE = 4  # as many as keep dockerd busy, and few beside which another's request is soon its turn

CROWD = 16  # requests of one user that wait for a turn
PAUSE_SECONDS = 0.01
_TOGETHER_SECONDS = 1.0  # users who took turns within this time work at the same time


class Turns:
    """One for the whole proxy."""

    def __init__(self, *, most: int = MOST_AT_ONCE) -> None:
        self._most = most
        self._latest: Uid | None = None  # who took a turn last
        self._together_until = 0.0  # loop time
        self._working: dict[Uid, int] = {}
        self._waiting: dict[Uid, deque[asyncio.Future[None]]] = {}

    def of(self, uid: Uid) -> Turn:
        """A turn of this user's, to be entered with `async with`."""
        return Turn(self, uid)

    async def take(self, uid: Uid) -> None:
        """Wait for a turn, in the order of asking. Who is cancelled while waiting has none."""
        if uid != self._latest:
            self._together_until = self._now() + _TOGETHER_SECONDS if self._latest is not None else 0.0
            self._latest = uid
        working = self._working.setdefault(uid, 0)
        if working < self._share():
            self._working[uid] = working + 1
            return
        mine = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(uid, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.give(uid)  # it came together with the cancellation
            raise

    def give(self, uid: Uid) -> None:
        """End a turn: the same user's next ones begin, as many as there is room for."""
        if len(self._waiting.get(uid, ())) > CROWD and self._now() < self._together_until:
            asyncio.get_running_loop().call_later(PAUSE_SECONDS, self._pass_on, uid)
        else:
            self._pass_on(uid)

    def _pass_on(self, uid: Uid) -> None:
        working = self._working[uid] - 1
        waiting = self._waiting.get(uid, deque())
        while waiting and working < self._share():
            following = waiting.popleft()
            if not following.done():
                following.set_result(None)
                working += 1
        if not waiting:
            self._waiting.pop(uid, None)
        # INVARIANT: who waits has a turn at work, whose end lets the next one in.
        if working:
            self._working[uid] = working
        else:
            del self._working[uid]

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def _share(self) -> int:
        """How many turns each user may have, of those who have one or ask for one."""
        return max(1, self._most // len(self._working))


class Turn:
    """One request's turn."""

    __slots__ = ("_held", "_turns", "_uid")

    def __init__(self, turns: Turns, uid: Uid) -> None:
        self._turns = turns
        self._uid = uid
        self._held = False

    async def __aenter__(self) -> Self:
        await self._turns.take(self._uid)
        self._held = True
        return self

    def end(self) -> None:
        """Let the next one in already; the rest of this request is dockerd's work."""
        if self._held:
            self._held = False
            self._turns.give(self._uid)

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.end()
