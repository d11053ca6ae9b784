"""Reservations made, declared and given up: each change under the service's lock, on disk before it counts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from allocator.reservations import is_over
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection
    from datetime import tzinfo

    from allocator.granting import Durably, Granting
    from allocator.ledger import Ledger
    from allocator.model import Moment
    from allocator.reservations import Reservation, Window

POLICY = "policy"  # the source of reservations that policy states
_ITSELF = "ds01"


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
        _made(reservation)

    async def declare(self, reservations: Collection[Reservation]) -> None:
        """Take over what policy reserves, all of it; what is known already is not written again."""
        known = [item for item in await self.all() if item.source == POLICY]
        if sorted(known, key=lambda item: item.id) == sorted(reservations, key=lambda item: item.id):
            return
        await self._change(partial(self._ledger.replace_reservations, POLICY, reservations))
        for item in known:
            if item not in reservations:
                _removed(item, by=POLICY)
        for item in reservations:
            if item not in known:
                _made(item)

    async def remove(self, number: str, *, by: str) -> bool:
        """Whether there was such a reservation. Args: by: who takes it back, for the log."""
        known = [item for item in await self.all() if item.id == number]
        done = bool(await self._change(partial(self._ledger.forget_reservation, number)))
        for item in known if done else ():
            _removed(item, by=by)
        return done

    async def put_away(self) -> None:
        """Forget those that have no further time. Runs under the lock."""
        for item in await self._granting.reservations():
            if self.is_over(item):
                await self._durably(partial(self._ledger.forget_reservation, item.id))
                self._granting.reservations_changed()
                _removed(item, by=_ITSELF)

    async def _change(self, act: Callable[[], object]) -> object:
        async with self._lock:
            done = await self._durably(act)
            self._granting.reservations_changed()
            await self._granting.serve()
            return done


def _made(item: Reservation) -> None:
    log(
        events.RESERVATION_MADE,
        reservation=item.id,
        whom=item.name,
        count=item.count,
        profile=item.profile,
        when=item.when_text,
        by=item.by or item.source,
        reason=item.reason,
    )


def _removed(item: Reservation, *, by: str) -> None:
    log(events.RESERVATION_REMOVED, reservation=item.id, whom=item.name, by=by)
