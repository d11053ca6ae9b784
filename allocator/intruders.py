"""Processes in containers on GPUs that these do not lease: looked for in each round, told once each.

Owns what earlier rounds leave; what a process may be on is `allocator.unleased`'s, what becomes of it `allocator.host_control`'s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.attributor import KEEP_SECONDS
from allocator.model import LedgerUnavailable
from allocator.unleased import Books, holder, is_leased, is_ours
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from allocator.attribution import Identity
    from allocator.attributor import Attributed, Containers
    from allocator.foreign import ForeignContainers
    from allocator.model import Lease, Moment, Snapshot
    from policy.model import DeviceUuid, LeaseId

    Place = tuple[Identity, DeviceUuid]

# A container that ends keeps its processes for a moment longer than its lease.
SETTLE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suspicion:
    """A container on a device that it does not lease, from when to when it was seen.

    SECURITY: kept by container, not by process: many short ones, one after another, would never last long enough.
    """

    since: Moment
    last: Moment


class Intruders:
    """What the last round found, and what was told of it."""

    def __init__(
        self,
        *,
        leases: Callable[[], Awaitable[Collection[Lease]]],
        tell_holder: Callable[[LeaseId, DeviceUuid], Awaitable[None]],
        containers: Containers,
        foreign: ForeignContainers,
        now: Callable[[], Moment],
    ) -> None:
        """Args: leases: the live ones. tell_holder: leaves a note; both raise LedgerUnavailable."""
        self._leases = leases
        self._tell_holder = tell_holder
        self._containers = containers
        self._foreign = foreign
        self._now = now
        self._suspicions: dict[tuple[object, DeviceUuid], _Suspicion] = {}  # by container, step or process
        self._told: set[Place] = set()
        self._notes: dict[tuple[LeaseId, DeviceUuid], None] = {}  # to be left yet
        self.leased: Mapping[Place, bool] = {}  # what is missing is not known
        self.ours: Mapping[Identity, tuple[DeviceUuid, ...]] = {}  # unleased, in containers that ds01 made

    async def sweep(self, processes: Collection[Attributed], snapshot: Snapshot) -> None:
        """Judge all processes of one round, log what is new and leave notes to holders."""
        present = {place for one in processes if (place := _place(one)) is not None}
        self._told &= present
        self.leased = {place: known for place, known in self.leased.items() if place in present}
        self.ours = {}
        books = await self._books(snapshot)
        if books is None:
            return
        self._judge(processes, books)
        await self._leave_notes()

    async def _books(self, snapshot: Snapshot) -> Books | None:
        """None while it is not known who holds what, or which containers there are: then nobody is judged."""
        if await self._containers.running() is None or not self._foreign.are_told:
            return None
        try:
            leases = await self._leases()
        except LedgerUnavailable:
            return None
        return Books(snapshot=snapshot, leases=leases, foreign={one.id: one for one in self._foreign.all()})

    def _judge(self, processes: Collection[Attributed], books: Books) -> None:
        leased = dict(self.leased)
        ours: dict[Identity, tuple[DeviceUuid, ...]] = {}
        for one in processes:
            place = _place(one)
            if place is None or one.ended is not None:
                continue  # what has ended stays as it was told last
            identity, device = place
            leased.pop(place, None)
            who = one.attribution.container or one.attribution.step or identity
            told = self._settled((who, device), leased=is_leased(one.seen, one.attribution, books))
            if told is None:
                continue
            leased[place] = told
            if not told:
                self._tell(one, place, books)
                if is_ours(one.attribution, books):
                    ours[identity] = (*ours.get(identity, ()), device)
        self.leased, self.ours = leased, ours
        now = self._now()
        self._suspicions = {
            key: one for key, one in self._suspicions.items() if now.seconds_since(one.last) < KEEP_SECONDS
        }

    def _settled(self, what: tuple[object, DeviceUuid], *, leased: bool | None) -> bool | None:
        """The answer; a no counts once it has lasted."""
        if leased:
            self._suspicions.pop(what, None)
        if leased is not False:
            return leased
        now = self._now()
        known = self._suspicions.get(what)
        since = now if known is None else known.since
        self._suspicions[what] = _Suspicion(since=since, last=now)
        return None if now.seconds_since(since) < SETTLE_SECONDS else False

    def _tell(self, one: Attributed, place: Place, books: Books) -> None:
        if place in self._told:
            return
        self._told.add(place)
        held = holder(one.seen, books)
        log(
            events.UNLEASED_PROCESS_REPORTED,
            device=one.seen.device,
            pid=one.seen.pid,
            kind=one.attribution.kind.value,
            container=one.attribution.container,
            step=one.attribution.step or None,
            uid=one.attribution.owner,
            lease=None if held is None else held.id,
            holder_uid=None if held is None else held.owner_uid,
        )
        if held is not None:
            self._notes[held.id, one.seen.device] = None

    async def _leave_notes(self) -> None:
        for note in tuple(self._notes):
            try:
                await self._tell_holder(*note)
            except LedgerUnavailable:
                return  # in the next round
            del self._notes[note]


def _place(one: Attributed) -> Place | None:
    return None if one.identity is None else (one.identity, one.seen.device)
