"""One request for devices, from its coming to a lease or a reason why not: decided at once, or after its time in line."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from allocator.model import InventoryUnavailable, Lease, LedgerUnavailable, Refusal
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.granting import Declined, Granting
    from allocator.model import GpuRequest, Moment
    from allocator.ports import Release
    from allocator.queue import Entry
    from allocator.waiting import Line, Waiter
    from allocator.watch import Watch


class Leasing:
    """What a request does until it has its devices; whoever releases or sweeps serves those in line."""

    def __init__(
        self,
        *,
        lock: asyncio.Lock,
        line: Line,
        watch: Watch,
        granting: Granting,
        release: Release,
        now: Callable[[], Moment],
    ) -> None:
        """Args: release: gives a lease back that nobody will learn of. lock: held for every decision."""
        self._lock = lock
        self._line = line
        self._watch = watch
        self._granting = granting
        self._release = release
        self._now = now

    async def lease(self, want: GpuRequest) -> Lease | Refusal:
        """Devices for one create, waiting in line at most `want.wait_seconds` for some to become free.

        Raises: InventoryUnavailable, LedgerUnavailable. On cancellation nothing is held.
        """
        entry = self._line.enter(want, self._now())
        outcome = await self._try(entry)
        if isinstance(outcome, Lease):
            return outcome
        if not outcome.refusal.waiting_helps or want.wait_seconds <= 0:
            return self._told(outcome.refusal, want)
        with self._line.joined(entry, outcome.refusal, outcome.claims) as waiter:
            try:
                in_vain = await self._wait(waiter, want.wait_seconds)
            except asyncio.CancelledError:
                if waiter.outcome.done() and isinstance(given := waiter.outcome.result(), Lease):
                    await self._release(given.id, who=want.session, why="the client was gone")
                raise
            # Nothing is awaited from here until the line is left, so nothing can be given any more.
            end = waiter.outcome.result() if waiter.outcome.done() else in_vain
        return end if isinstance(end, Lease) else self._told(end, want)

    async def _wait(self, waiter: Waiter, seconds: int) -> Refusal:
        """Until it has its outcome or its time is over. Returns: the refusal that counts if it has none."""
        try:
            # Not wait_for: in Python 3.11 it swallows a cancellation that meets a result.
            async with asyncio.timeout(seconds):
                await asyncio.shield(waiter.outcome)
        except TimeoutError:
            return await self._in_vain(waiter)
        return waiter.refusal

    async def _try(self, entry: Entry) -> Lease | Declined:
        """Decide on a recent look; look again before saying that devices are in use."""
        looks = self._watch.looks
        if not self._watch.is_fresh():
            await self._watch.look()
        async with self._lock:
            outcome = await self._granting.decide(entry)
        if isinstance(outcome, Lease) or not outcome.refusal.waiting_helps or self._watch.looks != looks:
            return outcome
        await self._watch.look()
        async with self._lock:
            return await self._granting.decide(entry)

    async def _in_vain(self, waiter: Waiter) -> Refusal:
        """The refusal of who waited to the end, with its place in line."""
        seconds = waiter.entry.want.wait_seconds
        try:
            async with self._lock:
                refusal = await self._granting.refusal(waiter)
                _, used = await self._granting.books()
            waiting = self._line.ordered(used)
            at = waiting.index(waiter) + 1
        except (InventoryUnavailable, LedgerUnavailable, ValueError):  # the last: it has its outcome
            return waiter.refusal
        place = f"; you waited {seconds}s, at position {at} of {len(waiting)}"
        return replace(refusal, message=refusal.message + place)

    def _told(self, refusal: Refusal, want: GpuRequest) -> Refusal:
        log(events.LEASE_REFUSED, uid=want.owner_uid, refusal=refusal.kind.value)
        return refusal
