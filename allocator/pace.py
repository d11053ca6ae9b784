"""When the devices are looked at next: at every interval, more often while somebody watches, at once when something was given back."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_LEAST_SECONDS: Final = 0.2  # between two sweeps
_WATCHED_SECONDS: Final = 1.0  # between two sweeps while somebody watches
_WATCHES_SECONDS: Final = 10.0  # so long after the last look at them, somebody still watches


class Pace:
    """Rests between two sweeps. Whoever watches or gives something back only leaves word: how often that is changes nothing."""

    def __init__(
        self,
        *,
        interval_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Args: interval_seconds: between two sweeps while nobody watches."""
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._pause = pause
        self._watched: float | None = None  # when somebody looked last
        self._is_hurried = False

    def watch(self) -> None:
        """Somebody looks at what the last sweep found."""
        self._watched = self._clock()

    def hurry(self) -> None:
        """Something was given back: what is there changes now."""
        self._is_hurried = True

    def begin(self) -> None:
        """A sweep begins; what is given back during it wants another."""
        self._is_hurried = False

    async def rest(self) -> None:
        """Until the next sweep is due."""
        began = self._clock()
        while (left := began + self._due_seconds() - self._clock()) > 0:
            await self._pause(min(left, _LEAST_SECONDS))

    def _due_seconds(self) -> float:
        """After how long a rest the next sweep begins, as things are now."""
        if self._is_hurried:
            return _LEAST_SECONDS
        if self._watched is not None and self._clock() - self._watched < _WATCHES_SECONDS:
            return min(_WATCHED_SECONDS, self._interval_seconds)
        return self._interval_seconds
