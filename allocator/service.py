"""The allocator: one decision at a time, on disk before it is told, undone when nobody is there to be told.

Every change of the ledger happens under one lock and in one writer thread. A cancelled caller never stops a
transaction half way: it is awaited, and a grant that nobody will learn of is released again.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, timedelta
from functools import partial
from typing import TYPE_CHECKING

from allocator import reconcile, starting
from allocator.care import Care
from allocator.carried import Carried
from allocator.changes import Changes, confirmed, started
from allocator.finishing import Finishing
from allocator.foreign import ForeignContainers
from allocator.granting import Granting
from allocator.hearing import Hearing
from allocator.leasing import Leasing
from allocator.ledger import LONG_LOG_CHANGES, Conflict
from allocator.mig_journal import MigJournal
from allocator.model import (
    InventoryUnavailable,
    Lease,
    LeaseState,
    LedgerUnavailable,
    Refusal,
)
from allocator.pace import Pace
from allocator.reserving import Reserving
from allocator.shares import HALF_LIFE_SECONDS
from allocator.take_over import TakingOver
from allocator.upkeep import Upkeep
from allocator.usage import UsageRecords
from allocator.waiting import Line
from allocator.watch import Watch
from allocator.withheld import DurableJournal, WithheldDevices, nobody

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from datetime import tzinfo

    from allocator.board import Board
    from allocator.host_grants import HostGrant
    from allocator.ledger import Ledger
    from allocator.model import GpuRequest, Moment
    from allocator.ports import Inventory
    from allocator.reconcile import Change, Contradiction, Evidence
    from allocator.take_over import TakenOver, TakeOver
    from allocator.waiting import Waiter
    from policy.model import ContainerId, LeaseId, Uid

_ARCHIVE_AT_ONCE = 20  # leases put away in one transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things last, in seconds."""

    pending_grace_seconds: float = 20
    sweep_seconds: float = 5  # while nobody watches
    patience_seconds: float = 5  # how long a request waits for NVML; the look itself goes on
    fresh_seconds: float = 8  # a grant rests on a look no older than this; more than an interval and a sweep
    archive_days: float = 35  # leases that ended so long ago are put away
    half_life_seconds: float = HALF_LIFE_SECONDS  # after which past usage counts half in the queue


class Allocator:
    """Grants, confirms and releases leases; the only user of the ledger."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        inventory: Inventory,
        now: Callable[[], Moment],
        new_id: Callable[[], LeaseId],
        timing: Timing,
        zone: tzinfo = UTC,
        granted: Callable[[], Awaitable[Collection[HostGrant]]] = nobody,
    ) -> None:
        """Args: zone: the local time, in which reservations are written. granted: as in `WithheldDevices`."""
        self._ledger = ledger
        self._now = now
        self._timing = timing
        self._lock = asyncio.Lock()  # over every decision and every change of the ledger
        self._finishing = Finishing()
        self._durably = self._finishing.durably
        care = Care(ledger, boot_id=now().boot_id)
        self._usage = UsageRecords(ledger)
        self.hearing = Hearing(now=now)
        self.watch = Watch(
            inventory=inventory,
            take_in=lambda read: self.upkeep.take_in(read),  # noqa: PLW0108  it is made below
            finishing=self._finishing,
            now=now,
            patience_seconds=timing.patience_seconds,
            fresh_seconds=timing.fresh_seconds,
        )
        self.pace = Pace(interval_seconds=timing.sweep_seconds)
        self._line = Line()
        self.foreign = ForeignContainers()
        self._granting = Granting(
            ledger=ledger,
            durably=self._durably,
            watch=self.watch,
            line=self._line,
            foreign=self.foreign,
            now=now,
            new_id=new_id,
            half_life_seconds=timing.half_life_seconds,
            zone=zone,
        )
        self._leasing = Leasing(
            lock=self._lock,
            line=self._line,
            watch=self.watch,
            granting=self._granting,
            release=self.release,
            now=now,
        )
        self._taking_over = TakingOver(
            ledger=ledger, durably=self._durably, foreign=self.foreign, now=now, new_id=new_id
        )
        self._carried = Carried()
        self._changes = Changes(ledger=ledger, durably=self._durably, now=now)
        self.reserving = Reserving(
            lock=self._lock,
            ledger=ledger,
            durably=self._durably,
            granting=self._granting,
            now=now,
            zone=zone,
        )
        self.upkeep = Upkeep(
            lock=self._lock,
            ledger=ledger,
            durably=self._durably,
            care=care,
            hearing=self.hearing,
            watch=self.watch,
            granting=self._granting,
            changes=self._changes,
            now=now,
        )
        self.withheld = WithheldDevices(
            lock=self._lock,
            ledger=ledger,
            finishing=self._finishing,
            care=care,
            watch=self.watch,
            foreign=self.foreign,
            carried=self._carried,
            granted=granted,
        )
        self.mig_journal = DurableJournal(MigJournal(ledger), finishing=self._finishing, now=now)
        self._settled_ms = 0  # when dockerd was asked for the evidence that was settled last

    @property
    def reconciled(self) -> bool:
        """Whether evidence has come since the start."""
        return self._carried.is_known

    async def lease(self, want: GpuRequest) -> Lease | Refusal:
        """Devices for one create, waiting in line at most `want.wait_seconds` for some to become free.

        Raises: InventoryUnavailable, LedgerUnavailable. On cancellation nothing is held.
        """
        return await self._leasing.lease(want)

    async def confirm(self, lease: LeaseId, container: ContainerId, *, who: str) -> Lease | None:
        """The create succeeded. None when there is no such lease. Raises: Conflict: released, or on another.

        Not synced: what the power takes back of it, evidence or the first start puts right (ADR 0005).
        """
        async with self._lock:
            return await self._changes.decide(lease, lambda old: confirmed(old, container), who=who)

    async def start(self, lease: LeaseId, container: ContainerId, *, who: str) -> Lease | None:
        """The container is about to start. None when there is no such lease.

        Raises:
            Conflict: it does not hold its devices any more, or its time is over; in words for its owner.
            InventoryUnavailable: nobody can say what its devices are now.
        """
        if not self.watch.is_fresh():
            old = await self.find(lease)
            if old is not None and starting.is_over(old, container, self._now()) is None:
                await self.watch.look()
        async with self._lock:
            now, look = self._now(), self.watch.current
            return await self._changes.decide(lease, lambda old: started(old, container, now, look), who=who)

    async def release(self, lease: LeaseId, *, who: str, why: str) -> Lease | None:
        """Give the devices back; a second time changes nothing. None when there is no such lease.

        Shielded: once begun it finishes, whatever becomes of the caller.
        """
        return await self._finishing.finish(self._release(lease, who=who, why=why))

    async def _release(self, lease: LeaseId, *, who: str, why: str) -> Lease | None:
        async with self._lock:
            change = reconcile.Change(lease=lease, state=LeaseState.RELEASED, why=why)
            done = await self._changes.make(change, who=who)
            self._carried.forget(lease)
            await self._granting.serve()
        self.pace.hurry()  # the freed device's processes may end only now: look again soon
        return done

    async def take_over(self, wish: TakeOver) -> TakenOver | None:
        """A lease for a container that ds01 did not make, on what it has; None: no such container was told of.

        Raises: InventoryUnavailable, LedgerUnavailable.
        """
        async with self._lock:
            board, _ = await self._granting.books()
            return await self._taking_over.take_over(wish, board)

    async def find(self, lease: LeaseId) -> Lease | None:
        """One lease in whatever state."""
        async with self._lock:
            return await self._durably(partial(self._ledger.find, lease))

    async def leases(self, owner: Uid | None) -> tuple[Lease, ...]:
        """The live leases of one user, or of all."""
        async with self._lock:
            read = self._ledger.live if owner is None else partial(self._ledger.of_owner, owner)
            return await self._durably(read)

    async def settle(self, evidence: Evidence) -> tuple[Change | Contradiction, ...]:
        """Make the ledger agree with what dockerd held; say what was changed and what contradicts.

        Raises: Conflict: it is of another boot, or older than what was settled last.
        """
        async with self._lock:
            now = self._now()
            if (
                evidence.boot_id != now.boot_id
                or not self._settled_ms <= evidence.asked_ms <= now.boottime_ms
            ):
                raise Conflict(
                    "this evidence is of another boot, or older than what was settled last; look again"
                )
            leases = list(await self._durably(self._ledger.live))
            live = {lease.id for lease in leases}
            for lease_id in {item.lease for item in evidence.carriers} - live:
                found = await self._durably(partial(self._ledger.find, lease_id))
                leases += [found] if found else []
            wanted = reconcile.settle(
                leases,
                evidence,
                now=now,
                grace_seconds=self._timing.pending_grace_seconds,
                unguarded={one.id for one in self.foreign.all()} if self.foreign.are_told else None,
            )
            done = await self._changes.apply(wanted, who=f"evidence of {evidence.session}")
            self._settled_ms = evidence.asked_ms
            self._carried.tell(evidence.carriers)
            await self._granting.serve()
        self._changes.report(done)
        return done

    async def queue(self) -> tuple[Board | None, tuple[Waiter, ...]]:
        """What is free, None while nobody can say, and who waits, next first."""
        async with self._lock:
            try:
                board, used = await self._granting.books()
            except InventoryUnavailable:
                return None, tuple(self._line.ordered(await self._granting.used()))
            return board, tuple(self._line.ordered(used))

    async def sweep(self) -> None:
        """Look at the devices, mark leases whose device has gone, serve who waits, write down what is used, put old leases away."""
        began = self._now()
        with suppress(InventoryUnavailable):
            await self.watch.look()
        async with self._lock:
            await self.upkeep.catch_up(began)
            await self._granting.serve()
            await self._durably(partial(self._usage.tick, self.watch.measures(), self._now()))
            await self._put_away()

    async def run(self) -> None:
        """Sweep for ever, when it is due."""
        while True:
            self.pace.begin()
            with suppress(LedgerUnavailable):
                await self.sweep()
            await self.pace.rest()

    async def close(self) -> None:
        """Finish what is being written and let go of the ledger."""
        await self._finishing.wait()
        async with self._lock:
            self._finishing.close()
            self._ledger.close()

    # Everything below runs under the lock.

    async def _put_away(self) -> None:
        """Leases that ended long ago, some at a time, and reservations that have no further time."""
        now = self._now()
        before = (now.when() - timedelta(days=self._timing.archive_days)).astimezone(UTC)
        text = before.isoformat(timespec="seconds").replace("+00:00", "Z")
        await self._durably(partial(self._ledger.archive, text, most=_ARCHIVE_AT_ONCE))
        await self._durably(partial(self._ledger.checkpoint, least_changes=LONG_LOG_CHANGES))
        await self.reserving.put_away()
