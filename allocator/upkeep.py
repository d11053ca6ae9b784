"""What is known against devices, carried out: errors and losses that a look or the kernel log tells, and an admin's orders."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from allocator import reconcile
from allocator.health import SILENT_SECONDS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from allocator.care import Care
    from allocator.changes import Changes
    from allocator.granting import Durably, Granting
    from allocator.hearing import Hearing
    from allocator.ledger import Ledger
    from allocator.model import Moment, Snapshot
    from allocator.watch import Watch
    from policy.model import DeviceUuid, LeaseId


class Upkeep:
    """Each change of what everybody sees of the devices, and of the leases on them. Raises from all: LedgerUnavailable."""

    def __init__(
        self,
        *,
        lock: asyncio.Lock,
        ledger: Ledger,
        durably: Durably,
        care: Care,
        hearing: Hearing,
        watch: Watch,
        granting: Granting,
        changes: Changes,
        now: Callable[[], Moment],
    ) -> None:
        """Args: durably: runs one transaction to its end."""
        self._lock = lock
        self._ledger = ledger
        self._durably = durably
        self._care = care
        self._hearing = hearing
        self._watch = watch
        self._granting = granting
        self._changes = changes
        self._now = now

    def note(self, lease: LeaseId) -> str | None:
        """What the holder of a live lease was told last of its devices; None: nothing."""
        return self._care.note(lease)

    async def tell_of_intruder(self, lease: LeaseId, device: DeviceUuid) -> None:
        """Leave a note to who holds a device that somebody else's process is on."""
        async with self._lock:
            await self._durably(partial(self._care.intruded, lease, device, self._now()))

    async def quarantine(self, device: DeviceUuid, *, who: str, why: str) -> bool:
        """Take a device out of service: nobody new gets it, who holds it is told. False: there is no such device."""
        async with self._lock:
            act = partial(self._care.quarantine, device, by=who, why=why, now=self._now())
            done: bool = await self._durably(act)
            if self._watch.snapshot is not None:
                self._watch.snapshot = await self._durably(partial(self._care.marked, self._watch.snapshot))
                await self._granting.serve()  # who waits for it in vain is told
            return done

    async def release(self, device: DeviceUuid, *, who: str, why: str) -> bool:
        """Put a device back into service, as far as NVML has nothing against it. False: it was not taken out."""
        async with self._lock:
            act = partial(self._care.release, device, by=who, why=why, now=self._now())
            done: bool = await self._durably(act)
            if done and self._watch.problem is None:
                self._watch.snapshot = await self._durably(self._care.marked)
                await self._granting.serve()
            return done

    async def take_in(self, read: Snapshot) -> Snapshot:
        """What NVML said, with generations and quarantines; leases whose device has gone are marked."""
        async with self._lock:
            self._hearing.know(read)
            heard = replace(read, events=self._hearing.told(read.events))
            taken = await self._durably(partial(self._care.take_in, heard, self._now()))
            await self._changes.apply(taken.changes, who="nvml")
            gone = reconcile.lost(await self._durably(self._ledger.live), taken.snapshot)
            await self._changes.apply(gone, who="nvml")
            snapshot: Snapshot = taken.snapshot
            return snapshot

    async def catch_up(self, before: Moment) -> None:
        """Carry out what no look since `before` has brought: what the kernel log alone told, and silence. Runs under the lock."""
        await self._hear_log(before)
        if self._watch.silent_seconds() >= SILENT_SECONDS:
            await self._durably(partial(self._care.hear_nothing, self._now()))

    async def _hear_log(self, before: Moment) -> None:
        """Whether NVML answers or not."""
        alone = self._hearing.alone(before)
        if not alone and not self._care.is_behind:
            return
        seen = self._watch.snapshot
        taken = await self._durably(partial(self._care.hear, alone, seen, self._now()))
        if seen is not None:
            self._watch.snapshot = taken.snapshot
        await self._changes.apply(taken.changes, who="kernel log")
