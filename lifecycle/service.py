"""The loop: which leases there are, what is due of each, and when to look again."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from lifecycle.ending import Step
from lifecycle.ports import Unavailable
from lifecycle.time_limits import REASON
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.ports import Lease, Leases
    from lifecycle.stopping import Stopping
    from lifecycle.time_limits import TimeLimits

_LEAST_SECONDS = 1.0  # between two looks, whatever is due
_UPSTREAM = "allocator"


class Lifecycle:
    """Looks at all leases, again and again. While the allocator does not say which there are, nothing is done."""

    def __init__(
        self,
        *,
        leases: Leases,
        limits: TimeLimits,
        stopping: Stopping,
        look_seconds: float,
        beat: Callable[[str | None], None],
    ) -> None:
        """Args: look_seconds: the longest pause between two looks. beat: told after each look what is wrong, if anything is."""
        self._leases = leases
        self._limits = limits
        self._stopping = stopping
        self._look_seconds = look_seconds
        self._beat = beat
        self._lost = False

    async def run(self) -> None:
        """Look for ever. A container that takes long to stop holds up no look."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                seconds = await self.look(tasks)
                await asyncio.sleep(seconds)

    async def look(self, tasks: asyncio.TaskGroup) -> float:
        """One look at every lease; what is to be stopped is stopped in `tasks`. Returns: seconds until the next."""
        try:
            leases = await self._leases.live()
        except Unavailable as error:
            if not self._lost:
                log(events.UPSTREAM_LOST, upstream=_UPSTREAM, problem=str(error))
            self._lost = True
            self._beat(str(error))
            return self._look_seconds
        if self._lost:
            log(events.UPSTREAM_RECOVERED, upstream=_UPSTREAM)
        self._lost = False
        live = frozenset(lease.id for lease in leases)
        self._limits.keep(live)
        self._stopping.keep(live)
        waits = [await self._one(lease, tasks) for lease in leases]
        self._beat(None)
        return max(_LEAST_SECONDS, min([self._look_seconds, *waits]))

    async def _one(self, lease: Lease, tasks: asyncio.TaskGroup) -> float:
        """Do what is due of one lease. Returns: seconds until something is again, as far as that is known."""
        due = await self._limits.look(lease)
        if due.step is not Step.STOP:
            return self._look_seconds if due.again_seconds is None else due.again_seconds
        pause = self._stopping.in_seconds(lease.id)
        if pause == 0:
            self._stopping.begin(lease)
            tasks.create_task(
                self._stopping.stop(lease, holds=partial(self._limits.still_over, lease), reason=REASON)
            )
        return pause or self._look_seconds
