"""The line of requests that wait for devices, each with the future that ends its wait."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from allocator.queue import Claims, Entry, rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from allocator.model import GpuRequest, Lease, Moment, Refusal
    from policy.model import Uid


@dataclass(eq=False, slots=True, kw_only=True)
class Waiter:
    """One that waits: why it has nothing yet, and what those behind it must leave. Its outcome ends the wait."""

    entry: Entry
    refusal: Refusal
    claims: Claims
    outcome: asyncio.Future[Lease | Refusal] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Line:
    """All that wait. Who leaves, for whatever reason, claims nothing from then on."""

    def __init__(self) -> None:
        self._waiters: list[Waiter] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._waiters)

    def __iter__(self) -> Iterator[Waiter]:
        return iter(self._waiters)

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._waiters

    def enter(self, want: GpuRequest, now: Moment) -> Entry:
        """A request as it takes its place. Who asks again after a restart keeps the moment of its first asking."""
        asked_ms = now.boottime_ms if want.asked_ms is None else min(want.asked_ms, now.boottime_ms)
        return Entry(want=want, asked_ms=asked_ms, number=next(self._numbers))

    @contextmanager
    def joined(self, entry: Entry, refusal: Refusal, claims: Claims) -> Iterator[Waiter]:
        """Stand in line as long as the block runs."""
        waiter = Waiter(entry=entry, refusal=refusal, claims=claims)
        self._waiters.append(waiter)
        try:
            yield waiter
        finally:
            self._waiters.remove(waiter)

    def owners(self) -> set[Uid]:
        """Whose requests they are."""
        return {waiter.entry.want.owner_uid for waiter in self._waiters}

    def ordered(self, shares: Mapping[Uid, float]) -> list[Waiter]:
        """Who is next, first; without those that have their outcome and are about to leave."""
        waiting = [waiter for waiter in self._waiters if not waiter.outcome.done()]
        return sorted(waiting, key=lambda waiter: rank(waiter.entry, shares))

    def claimed_ahead_of(self, entry: Entry, shares: Mapping[Uid, float]) -> Claims:
        """What a request must leave to those who are ahead of it."""
        own = rank(entry, shares)
        return Claims.of(
            waiter.claims
            for waiter in self._waiters
            if not waiter.outcome.done() and rank(waiter.entry, shares) < own
        )
