"""Reservations made, declared and given up: each change under the service's lock, on disk before it counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from allocator.reservations import is_over

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection
    from datetime import tzinfo

    from allocator.granting import Durably, Granting
    from allocator.ledger import Ledger
    from allocator.model import Moment
    from allocator.reservations import Reservation, Window

POLICY = "policy"  # the source of reservations that policy states


class Reserving:
    """What is kept for whom, and when. Raises from all: LedgerUnavailable."""

    def __init__(
        self,
        *,
        lock: asyncio.Lock,
        ledger: Ledger,
        durably: Durably,
        granting: Granting,
        now: Callable[[], Moment],
        zone: tzinfo,
    ) -> None:
        """Args: zone: in which reservations are written."""
        self._lock = lock
        self._ledger = ledger
        self._durably = durably
        self._granting = granting
        self._now = now
        self._zone = zone

    async def all(self) -> tuple[Reservation, ...]:
        """Policy's and others."""
        async with self._lock:
            return await self._granting.reservations()

    async def windows(self) -> tuple[Window, ...]:
        """Those that run or come within days."""
        async with self._lock:
            return await self._granting.windows()

    def is_over(self, reservation: Reservation) -> bool:
        """Whether it has no further time."""
        return is_over(reservation, self._now().when(), self._zone)

    async def add(self, reservation: Reservation) -> None:
        """Keep devices for a group or a user at set times."""
        await self._change(partial(self._ledger.reserve, (reservation,)))

    async def declare(self, reservations: Collection[Reservation]) -> None:
        """Take over what policy reserves, all of it; what is known already is not written again."""
        known = [item for item in await self.all() if item.source == POLICY]
        if sorted(known, key=lambda item: item.id) == sorted(reservations, key=lambda item: item.id):
            return
        await self._change(partial(self._ledger.replace_reservations, POLICY, reservations))

    async def remove(self, number: str) -> bool:
        """Whether there was such a reservation."""
        return bool(await self._change(partial(self._ledger.forget_reservation, number)))

    async def put_away(self) -> None:
        """Forget those that have no further time. Runs under the lock."""
        for item in await self._granting.reservations():
            if self.is_over(item):
                await self._durably(partial(self._ledger.forget_reservation, item.id))
                self._granting.reservations_changed()

    async def _change(self, act: Callable[[], object]) -> object:
        async with self._lock:
            done = await self._durably(act)
            self._granting.reservations_changed()
            await self._granting.serve()
            return done
