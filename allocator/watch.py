"""Looking at the devices: one look at a time, shared by all who wait for it, and how far its result can be relied on."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from allocator.ghosts import is_used
from allocator.model import InventoryUnavailable, Problem
from allocator.wire import unanswered
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from allocator.finishing import Finishing
    from allocator.model import Moment, Snapshot
    from allocator.ports import Inventory
    from allocator.readings import Measures
    from policy.model import DeviceUuid


class Watch:
    """The latest snapshot, and why it cannot be relied on if it cannot."""

    def __init__(
        self,
        *,
        inventory: Inventory,
        take_in: Callable[[Snapshot], Awaitable[Snapshot]],
        finishing: Finishing,
        now: Callable[[], Moment],
        patience_seconds: float,
        fresh_seconds: float,
    ) -> None:
        """Nothing is read yet.

        Args:
            take_in: what the ledger learns of each look and adds to it, before anybody else sees it.
            patience_seconds: how long a caller of `look` waits; the look itself goes on.
            fresh_seconds: a grant rests on a look no older than this.
        """
        self._inventory = inventory
        self._take_in = take_in
        self._finishing = finishing
        self._now = now
        self._patience_seconds = patience_seconds
        self._fresh_seconds = fresh_seconds
        self._eye = asyncio.Lock()  # over looking at NVML; taken before the ledger's lock, never after
        self.looks = 0
        self.snapshot: Snapshot | None = None  # None: nothing was ever read
        self.seen: Moment | None = None  # when `snapshot` was taken
        self.ghosts: frozenset[DeviceUuid] | None = (
            None  # where memory is in use by no process that can be seen; None: not judged yet
        )
        self.problem: str | None = "NVML was not read yet"  # why `snapshot` cannot be relied on; None: it can
        self.kind: Problem | None = Problem.NOT_READ  # of `problem`
        self._asked: Moment | None = (
            None  # since when the driver was asked without any answer; None: it answers
        )

    def current(self) -> Snapshot:
        """The latest snapshot. Raises: InventoryUnavailable: it cannot be relied on."""
        if self.snapshot is None or self.problem is not None:
            raise InventoryUnavailable(self.problem or "NVML was not read yet", self.kind or Problem.NOT_READ)
        return self.snapshot

    def is_fresh(self) -> bool:
        """Whether a grant may rest on the snapshot."""
        if self.seen is None or self.problem is not None:
            return False
        return self._now().seconds_since(self.seen) < self._fresh_seconds

    def age_seconds(self) -> float | None:
        """How old the snapshot is; None when nothing was ever read."""
        return None if self.seen is None else self._now().seconds_since(self.seen)

    def silent_seconds(self) -> float:
        """For how long the driver has been asked without any answer; 0 while none is missing."""
        return 0.0 if self._asked is None else self._now().seconds_since(self._asked)

    def measures(self) -> Mapping[DeviceUuid, Measures]:
        """What was measured at the latest look; empty when it cannot be relied on."""
        if self.snapshot is None or self.problem is not None:
            return {}
        return {uuid: device.measures for uuid, device in self.snapshot.devices.items()}

    def unattributed(self) -> frozenset[DeviceUuid]:
        """Where memory is in use by no process that can be seen. Until that was judged, one look is enough to think so."""
        if self.ghosts is not None or self.snapshot is None:
            return self.ghosts or frozenset()
        devices = self.snapshot.devices.values()
        return frozenset(
            one.uuid for one in devices if one.pids == () and is_used(one.measures.memory_used_mib)
        )

    async def look(self) -> Snapshot:
        """Read all devices now, sharing a look that begins later than this call. Raises: InventoryUnavailable.

        Shielded: a client that hangs up does not cost others the NVML session.
        """
        try:
            async with asyncio.timeout(self._patience_seconds):
                return await self._finishing.finish(self._look_once(self.looks))
        except TimeoutError as error:
            raise InventoryUnavailable(
                "the NVIDIA driver has not answered yet", Problem.UNRESPONSIVE
            ) from error

    @asynccontextmanager
    async def closed(self, end: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        """While it is open nobody looks. Args: end: ends our own NVML session; the next look begins another."""
        async with self._eye:
            await end()
            yield

    async def _look_once(self, looks: int) -> Snapshot:
        # INVARIANT: the ledger's lock is not held while NVML is asked: a hung driver holds up no release.
        async with self._eye:
            if self.looks > looks + 1:
                return self.current()
            began = self._now()
            self._asked = self._asked or began
            try:
                read = await self._inventory.read()
            except InventoryUnavailable as error:
                if error.problem is not Problem.UNRESPONSIVE:
                    self._asked = None
                self._fail(str(error), error.problem)
                raise
            finally:
                self.looks += 1
            self._asked = None
            self.snapshot = await self._take_in(read)
            self.seen = began  # what came later may not be in it
            if self.problem is not None:
                self.problem = self.kind = None
                log(events.NVML_RECOVERED)
            return self.snapshot

    def _fail(self, problem: str, kind: Problem) -> None:
        # A hang is told in two ways, while it is waited for and after; it is one outage.
        if self.kind is not kind or (kind is not Problem.UNRESPONSIVE and self.problem != problem):
            log(events.NVML_LOST, problem=problem)
        self.problem, self.kind = problem, kind
        if kind is Problem.UNRESPONSIVE and self.snapshot is not None:
            self.snapshot = unanswered(self.snapshot, problem)
