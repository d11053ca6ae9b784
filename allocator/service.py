"""Leasing: one decision at a time, on disk before it is told, undone when nobody is there to be told.

Every change of the ledger happens under one lock and in one writer thread. A cancelled caller never stops a
transaction half way: it is awaited, and a grant that nobody will learn of is released again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from allocator import reconcile
from allocator.care import Care
from allocator.finishing import Finishing
from allocator.ledger import Conflict
from allocator.model import (
    InventoryUnavailable,
    Lease,
    LeaseState,
    LedgerUnavailable,
    Refusal,
    RefusalKind,
    Snapshot,
)
from allocator.place import place
from allocator.usage import UsageRecords
from allocator.watch import Watch
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from allocator.ledger import Ledger
    from allocator.model import GpuRequest, Moment
    from allocator.ports import Inventory
    from allocator.reconcile import Change, Contradiction, Evidence
    from policy.model import ContainerId, DeviceUuid, LeaseId, Uid

_LEAST_SECONDS = 0.2  # between two sweeps


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How long things last, in seconds."""

    pending_grace_seconds: float = 20
    sweep_seconds: float = 5
    patience_seconds: float = 5  # how long a request waits for NVML; the look itself goes on
    fresh_seconds: float = 8  # a grant rests on a look no older than this; more than an interval and a sweep


@dataclass(eq=False, slots=True, kw_only=True)
class _Waiter:
    want: GpuRequest
    refusal: Refusal
    outcome: asyncio.Future[Lease] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


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
    ) -> None:
        self._ledger = ledger
        self._now = now
        self._new_id = new_id
        self._timing = timing
        self._lock = asyncio.Lock()  # over every decision and every change of the ledger
        self._finishing = Finishing()
        self._durably = self._finishing.durably
        self._care = Care(ledger)
        self._usage = UsageRecords(ledger)
        self.watch = Watch(
            inventory=inventory,
            take_in=self._take_in,
            finishing=self._finishing,
            now=now,
            patience_seconds=timing.patience_seconds,
            fresh_seconds=timing.fresh_seconds,
        )
        self._nudge = asyncio.Event()
        self._queue: deque[_Waiter] = deque()
        self._known: frozenset[Contradiction] = frozenset()
        self.reconciled = False

    async def lease(self, want: GpuRequest) -> Lease | Refusal:
        """Devices for one create, waiting at most `want.wait_seconds` for some to become free.

        Raises: InventoryUnavailable, LedgerUnavailable. On cancellation nothing is held.
        """
        outcome = await self._try(want)
        if isinstance(outcome, Lease) or not outcome.waiting_helps or want.wait_seconds <= 0:
            return self._told(outcome, want)
        waiter = _Waiter(want=want, refusal=outcome)
        self._queue.append(waiter)
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that meets a result.
            async with asyncio.timeout(want.wait_seconds):
                return await asyncio.shield(waiter.outcome)
        except TimeoutError:
            return waiter.outcome.result() if waiter.outcome.done() else self._told(waiter.refusal, want)
        except asyncio.CancelledError:
            if waiter.outcome.done():
                await self.release(waiter.outcome.result().id, why="the client was gone")
            raise
        finally:
            with suppress(ValueError):
                self._queue.remove(waiter)

    async def confirm(self, lease: LeaseId, container: ContainerId) -> Lease | None:
        """The create succeeded. None when there is no such lease. Raises: Conflict: released, or on another."""
        async with self._lock:
            old = await self._durably(partial(self._ledger.find, lease))
            if old is None:
                return None
            if not old.live or old.container not in (None, container):
                raise Conflict(f"lease {lease} is {old.state} and cannot be confirmed")
            state = LeaseState.LOST if old.state is LeaseState.LOST else LeaseState.ACTIVE
            return await self._change(
                reconcile.Change(lease=lease, state=state, why="confirmed", container=container)
            )

    async def release(self, lease: LeaseId, *, why: str) -> Lease | None:
        """Give the devices back; a second time changes nothing. None when there is no such lease.

        Shielded: once begun it finishes, whatever becomes of the caller.
        """
        return await self._finishing.finish(self._release(lease, why=why))

    async def _release(self, lease: LeaseId, *, why: str) -> Lease | None:
        async with self._lock:
            done = await self._change(reconcile.Change(lease=lease, state=LeaseState.RELEASED, why=why))
            await self._serve_waiters()
        self._nudge.set()  # the freed device's processes may end only now: look again soon
        return done

    async def find(self, lease: LeaseId) -> Lease | None:
        """One lease in whatever state."""
        async with self._lock:
            return await self._durably(partial(self._ledger.find, lease))

    async def leases(self, owner: Uid | None) -> tuple[Lease, ...]:
        """The live leases of one user, or of all."""
        async with self._lock:
            read = self._ledger.live if owner is None else partial(self._ledger.of_owner, owner)
            return await self._durably(read)

    def note(self, lease: LeaseId) -> str | None:
        """What the holder of a live lease was told last of its devices; None: nothing."""
        return self._care.note(lease)

    async def settle(self, evidence: Evidence) -> tuple[Change | Contradiction, ...]:
        """Make the ledger agree with what dockerd holds; say what was changed and what contradicts."""
        async with self._lock:
            leases = list(await self._durably(self._ledger.live))
            live = {lease.id for lease in leases}
            for lease_id in {item.lease for item in evidence.carriers} - live:
                found = await self._durably(partial(self._ledger.find, lease_id))
                leases += [found] if found else []
            wanted = reconcile.settle(
                leases, evidence, now=self._now(), grace_seconds=self._timing.pending_grace_seconds
            )
            done = await self._apply(wanted)
            self.reconciled = True
            await self._serve_waiters()
        self._report(done)
        return done

    async def sweep(self) -> None:
        """Look at the devices, mark leases whose device has gone, serve who waits, and write down what is used."""
        with suppress(InventoryUnavailable):
            await self.watch.look()
        async with self._lock:
            await self._serve_waiters()
            await self._durably(partial(self._usage.tick, self.watch.measures(), self._now()))

    async def run(self) -> None:
        """Sweep for ever: at every interval, and at once when something was released while somebody waits."""
        while True:
            self._nudge.clear()  # before the look: what is released during it wants another
            with suppress(LedgerUnavailable):
                await self.sweep()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.sweep_seconds):
                    await self._nudge.wait()
            await asyncio.sleep(_LEAST_SECONDS)

    async def close(self) -> None:
        """Finish what is being written and let go of the ledger."""
        await self._finishing.wait()
        async with self._lock:
            self._finishing.close()
            self._ledger.close()

    async def _try(self, want: GpuRequest) -> Lease | Refusal:
        """Place on a recent look; look again before saying that devices are in use."""
        looks = self.watch.looks
        if not self.watch.is_fresh():
            await self.watch.look()
        async with self._lock:
            outcome = await self._place(want)
        if isinstance(outcome, Lease) or not outcome.waiting_helps or self.watch.looks != looks:
            return outcome
        await self.watch.look()
        async with self._lock:
            return await self._place(want)

    async def quarantine(self, device: DeviceUuid, *, who: str, why: str) -> bool:
        """Take a device out of service: nobody new gets it, who holds it is told. False: there is no such device."""
        async with self._lock:
            act = partial(self._care.quarantine, device, by=who, why=why, now=self._now())
            done = await self._durably(act)
            if self.watch.snapshot is not None:
                self.watch.snapshot = await self._durably(partial(self._care.marked, self.watch.snapshot))
            return done

    async def release_quarantine(self, device: DeviceUuid, *, who: str, why: str) -> bool:
        """Put a device back into service, as far as NVML has nothing against it. False: it was not taken out."""
        async with self._lock:
            act = partial(self._care.release, device, by=who, why=why, now=self._now())
            done = await self._durably(act)
            if done and self.watch.problem is None:
                self.watch.snapshot = await self._durably(self._care.marked)
                await self._serve_waiters()
            return done

    async def _take_in(self, read: Snapshot) -> Snapshot:
        """What NVML said, with generations and quarantines; leases whose device has gone are marked."""
        async with self._lock:
            taken = await self._durably(partial(self._care.take_in, read, self._now()))
            await self._apply(taken.changes)
            await self._apply(reconcile.lost(await self._durably(self._ledger.live), taken.snapshot))
            return taken.snapshot

    # Everything below runs under the lock.

    async def _place(self, want: GpuRequest) -> Lease | Refusal:
        placed = place(self.watch.current(), await self._durably(self._ledger.live), want)
        if isinstance(placed, Refusal):
            return placed
        now = self._now()
        lease = Lease(
            id=self._new_id(),
            owner_uid=want.owner_uid,
            owner_name=want.owner_name,
            devices=placed.devices,
            session=want.session,
            request_id=want.request_id,
            created=now,
            changed=now,
        )
        try:
            await self._durably(partial(self._ledger.grant, lease, limit=want.limit))
        except asyncio.CancelledError:
            await self._undo(lease)
            raise
        except Conflict:
            return Refusal(
                kind=RefusalKind.IN_USE,
                message="the devices were taken meanwhile (rule gpu_lease); try again",
            )
        log(events.LEASE_GRANTED, lease=lease.id, uid=lease.owner_uid, devices=list(lease.devices))
        return lease

    async def _undo(self, lease: Lease) -> None:
        release = partial(
            self._ledger.change, lease.id, LeaseState.RELEASED, why="the client was gone", now=self._now()
        )
        await self._durably(release)

    async def _serve_waiters(self) -> None:
        """Give what is free to who has waited longest; who cannot be served now does not hold up the next."""
        for waiter in tuple(self._queue):
            if waiter.outcome.done() or waiter not in self._queue:
                continue
            if not self.watch.is_fresh():
                return
            outcome = await self._place(waiter.want)
            if isinstance(outcome, Refusal):
                waiter.refusal = outcome
            elif waiter in self._queue:
                waiter.outcome.set_result(outcome)
            else:
                await self._undo(outcome)

    async def _apply(self, wanted: Iterable[Change | Contradiction]) -> tuple[Change | Contradiction, ...]:
        done: list[Change | Contradiction] = []
        for item in wanted:
            if isinstance(item, reconcile.Contradiction):
                done.append(item)
                continue
            try:
                await self._change(item)
                done.append(item)
            except Conflict:
                # A container still carries a released lease whose device was leased on: it is only reported.
                container = item.container
                if container is not None:
                    problem = "carries a released lease whose devices are another's now"
                    done.append(
                        reconcile.Contradiction(container=container, lease=item.lease, problem=problem)
                    )
        return tuple(done)

    async def _change(self, change: Change) -> Lease | None:
        before = await self._durably(partial(self._ledger.find, change.lease))
        write = partial(
            self._ledger.change,
            change.lease,
            change.state,
            why=change.why,
            now=self._now(),
            container=change.container,
        )
        after = await self._durably(write)
        if before is not None and after is not None and before.state is not after.state:
            _log_change(after, change.why)
        return after

    def _told(self, outcome: Lease | Refusal, want: GpuRequest) -> Lease | Refusal:
        if isinstance(outcome, Refusal):
            log(events.LEASE_REFUSED, uid=want.owner_uid, refusal=outcome.kind.value)
        return outcome

    def _report(self, done: tuple[Change | Contradiction, ...]) -> None:
        """Log changes, and each contradiction once as long as it lasts."""
        conflicts = frozenset(item for item in done if isinstance(item, reconcile.Contradiction))
        changes = [item for item in done if item not in self._known]
        self._known = conflicts
        if changes:
            log(events.LEDGER_RECONCILED, changes=[str(item) for item in changes])


def _log_change(lease: Lease, why: str) -> None:
    if lease.state is LeaseState.RELEASED:
        log(events.LEASE_RELEASED, lease=lease.id, uid=lease.owner_uid, reason=why)
    elif lease.state is LeaseState.LOST:
        log(events.LEASE_LOST, lease=lease.id, uid=lease.owner_uid, devices=list(lease.devices), problem=why)
