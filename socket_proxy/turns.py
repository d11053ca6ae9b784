"""Users take turns: of one user's requests only a few are worked on at a time, the others wait for those.

Who sends a thousand requests at once waits for a thousand answers, and nobody else does. The few are shared among the users who have
work at the moment, at least one for each, so that a newcomer finds short queues in dockerd and in the plugin too. A turn lasts
while ds01 itself has work: reading, deciding, and for short reads the answer. What dockerd takes long for (a wait, a pull, a build)
holds none.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from policy.model import Uid

MOST_AT_ONCE = 4  # as many as keep dockerd busy, and few beside which another's request is soon its turn


class Turns:
    """One for the whole proxy."""

    def __init__(self, *, most: int = MOST_AT_ONCE) -> None:
        self._most = most
        self._working: dict[Uid, int] = {}
        self._waiting: dict[Uid, deque[asyncio.Future[None]]] = {}

    def of(self, uid: Uid) -> Turn:
        """A turn of this user's, to be entered with `async with`."""
        return Turn(self, uid)

    async def take(self, uid: Uid) -> None:
        """Wait for a turn, in the order of asking. Who is cancelled while waiting has none."""
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
