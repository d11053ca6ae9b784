"""Deciding on what the ledger and the last look say, and writing the grant down. Every method runs under the service's lock."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, timedelta
from functools import partial
from math import inf
from typing import TYPE_CHECKING

from allocator import queue
from allocator.board import Board
from allocator.ledger import Conflict
from allocator.model import Lease, LeaseState, Placement, Refusal, RefusalKind
from allocator.queue import NO_CLAIMS, Claims
from allocator.reservations import Window, upcoming
from allocator.shares import HALF_LIFE_SECONDS, shares
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from datetime import datetime, tzinfo
    from typing import Any

    from allocator.foreign import ForeignContainers
    from allocator.ledger import Ledger
    from allocator.model import GpuRequest, Moment, Snapshot
    from allocator.queue import Entry
    from allocator.reservations import Reservation
    from allocator.shares import Usage
    from allocator.waiting import Line, Waiter
    from allocator.watch import Watch
    from policy.model import LeaseId, Uid

    Durably = Callable[[Callable[[], Any]], Awaitable[Any]]


_TIMES_LAST = timedelta(minutes=10)  # how long times of reservations are counted on from one reading


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """Times of reservations, in seconds from `read`; good until `until`."""

    read: datetime
    until: datetime
    windows: tuple[Window, ...]
    lead_seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Declined:
    """Why a request gets nothing now, and what those behind it must leave to it."""

    refusal: Refusal
    claims: Claims = NO_CLAIMS


class Granting:
    """Grants to who asks, if nobody ahead needs it, and to those in line when something has become free."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        durably: Durably,
        watch: Watch,
        line: Line,
        foreign: ForeignContainers,
        now: Callable[[], Moment],
        new_id: Callable[[], LeaseId],
        half_life_seconds: float = HALF_LIFE_SECONDS,
        zone: tzinfo = UTC,
    ) -> None:
        """Args: durably: runs one transaction to its end. zone: in which reservations are written."""
        self._ledger = ledger
        self._durably = durably
        self._watch = watch
        self._line = line
        self._foreign = foreign
        self._now = now
        self._new_id = new_id
        self._half_life_seconds = half_life_seconds
        self._zone = zone
        self._reservations: tuple[Reservation, ...] | None = None  # None: to be read
        self._times: _Times | None = None
        self._board: Board | None = None
        self._served: Snapshot | None = None  # on which the claims of those in line rest

    def reservations_changed(self) -> None:
        """Read them again before the next decision."""
        self._reservations = None
        self._times = None

    async def reservations(self) -> tuple[Reservation, ...]:
        """All of them."""
        if self._reservations is None:
            self._reservations = await self._durably(self._ledger.reservations)
        return self._reservations

    async def windows(self, within_seconds: float = inf) -> tuple[Window, ...]:
        """The times of reservations that run or come soon: within this time, or within the longest lead."""
        now = self._now().when()
        # A clock that was ahead and is put right is before the reading: its times would be far ahead until it catches up.
        if self._times is None or not self._times.read <= now < self._times.until:
            self._times = _Times(
                read=now,
                until=now + _TIMES_LAST,
                windows=upcoming(await self.reservations(), now, self._zone),
                lead_seconds=max((one.lead_seconds for one in await self.reservations()), default=0),
            )
        passed = (now - self._times.read).total_seconds()
        last = max(within_seconds, self._times.lead_seconds) + passed
        return tuple(
            Window(reservation=item.reservation, begin=item.begin - passed, end=item.end - passed)
            for item in self._times.windows
            if item.end > passed and item.begin <= last
        )

    async def books(self, *more: Uid) -> tuple[Board, Mapping[Uid, float]]:
        """What is free, and what those in line, and `more`, have had.

        Raises: InventoryUnavailable: nothing can be relied on, or what is free is not known yet.
        """
        snapshot = self._watch.current()
        live, past = await self._read()
        now = self._now()
        self._board = Board(
            snapshot,
            live,
            now,
            same_devices=self._board,
            foreign=self._foreign.taken(snapshot),
            unattributed=self._watch.unattributed(),
        )
        return self._board, self._shares(live, past, now, more)

    async def used(self) -> Mapping[Uid, float]:
        """What those in line have had, which is known while the devices are not."""
        return self._shares(*await self._read(), self._now())

    async def _read(self) -> tuple[tuple[Lease, ...], Mapping[Uid, Usage]]:
        # INVARIANT: no write is under way, since both are done under the lock; so memory may be read here.
        return self._ledger.at_hand() or await self._durably(self._ledger.books)

    def _shares(
        self, live: tuple[Lease, ...], past: Mapping[Uid, Usage], now: Moment, more: Iterable[Uid] = ()
    ) -> Mapping[Uid, float]:
        waiting = self._line.owners()
        if not waiting:
            return {}  # an order of one needs no shares
        return shares(waiting.union(more), past, live, now, half_life_seconds=self._half_life_seconds)

    async def decide(self, entry: Entry) -> Lease | Declined:
        """A lease, or why not."""
        if self._served is not self._watch.snapshot:
            await self.serve()  # those in line could use other devices by now
        board, used = await self.books(entry.want.owner_uid)
        again = _asked_before(entry.want, board.leases)
        if again is not None:
            return again
        claimed = self._line.claimed_ahead_of(entry, used)
        windows = await self.windows(entry.want.seconds or 0)
        answer = queue.answer(board, entry.want, windows, claimed)
        if isinstance(answer.outcome, Refusal):
            return Declined(refusal=answer.outcome, claims=answer.claims)
        lease = await self._grant(entry.want, answer.outcome, board)
        return Declined(refusal=lease) if isinstance(lease, Refusal) else lease

    async def serve(self) -> None:
        """Give what is free to those in line, in their order, each from what nobody ahead of it could use.

        Who can get nothing any more, whatever comes back, is told.
        """
        if not len(self._line) or not self._watch.is_fresh() or not self._foreign.are_told:
            return
        board, used = await self.books()
        seen = board.snapshot
        windows = await self.windows(max((one.entry.want.seconds or 0 for one in self._line), default=0))
        ahead: list[Claims] = []
        together = NO_CLAIMS
        for waiter in self._line.ordered(used):
            if waiter not in self._line or waiter.outcome.done():
                continue
            want = waiter.entry.want
            claims = queue.still_waits(board, want, windows, together)
            if claims is None:
                answer = queue.answer(board, want, windows, Claims.of(ahead))
                if isinstance(answer.outcome, Placement):
                    await self._give(waiter, answer.outcome, board)
                    if not self._watch.is_fresh():
                        return
                    board, _ = await self.books()
                    continue
                waiter.refusal, claims = answer.outcome, answer.claims
                if answer.final:
                    waiter.outcome.set_result(answer.outcome)
            waiter.claims = claims
            ahead.append(claims)
            together = Claims(devices=together.devices | claims.devices)
        self._served = seen

    async def refusal(self, waiter: Waiter) -> Refusal:
        """Why somebody in line has nothing now, in words of this moment."""
        board, used = await self.books()
        ahead = self._line.claimed_ahead_of(waiter.entry, used)
        answer = queue.answer(board, waiter.entry.want, await self.windows(), ahead)
        return answer.outcome if isinstance(answer.outcome, Refusal) else waiter.refusal

    async def _give(self, waiter: Waiter, placement: Placement, board: Board) -> None:
        outcome = await self._grant(waiter.entry.want, placement, board)
        if isinstance(outcome, Refusal):
            waiter.refusal = outcome
        elif waiter in self._line and not waiter.outcome.done():
            waiter.outcome.set_result(outcome)
        else:
            await self.undo(outcome)

    async def _grant(self, want: GpuRequest, placement: Placement, board: Board) -> Lease | Refusal:
        now = self._now()
        devices = board.snapshot.devices
        lease = Lease(
            id=self._new_id(),
            owner_uid=want.owner_uid,
            owner_name=want.owner_name,
            devices=placement.devices,
            generations=tuple(devices[uuid].generation for uuid in placement.devices),
            gpus=tuple(devices[uuid].gpu for uuid in placement.devices),
            groups=tuple(sorted(group.name for group in want.groups)),
            equivalents=placement.equivalents,
            seconds=want.seconds,
            hold_seconds=want.hold_seconds,
            session=want.session,
            request_id=want.request_id,
            created=now,
            since=now,
            changed=now,
        )
        try:
            await self._durably(partial(self._ledger.grant, lease, limit=want.limit))
        except asyncio.CancelledError:
            await self.undo(lease)
            raise
        except Conflict:
            return Refusal(
                kind=RefusalKind.IN_USE,
                message="the devices were taken meanwhile (rule gpu_lease); try again",
            )
        log(events.LEASE_GRANTED, lease=lease.id, uid=lease.owner_uid, devices=list(lease.devices))
        return lease

    async def undo(self, lease: Lease) -> None:
        """Take back what nobody will learn of."""
        release = partial(
            self._ledger.change,
            lease.id,
            LeaseState.RELEASED,
            who=lease.session,
            why="the client was gone",
            now=self._now(),
        )
        await self._durably(release)


def _asked_before(want: GpuRequest, live: tuple[Lease, ...]) -> Lease | None:
    """The lease of an earlier asking whose answer was lost: one create never gets two."""
    if want.asked_ms is None:
        return None
    for lease in live:
        same = (lease.session, lease.request_id, lease.owner_uid) == (
            want.session,
            want.request_id,
            want.owner_uid,
        )
        if same and lease.state is LeaseState.PENDING and lease.container is None:
            return lease
    return None
