"""All GPU processes with whose they are: the one door to attribution for the service.

Owns what is remembered between two sweeps: where containers are, and who a process was that has ended since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from allocator.attribution import (
    Attribution,
    Identity,
    KnownContainer,
    ProcessFacts,
    Seen,
    SubuidRange,
    Surroundings,
    attribute,
    by_path,
    own_paths,
    unseen,
)
from allocator.holders import DeviceFile, Holdings
from allocator.model import Moment
from allocator.processes import Absent, Processes
from policy.model import ContainerId, DeviceUuid, Uid

KEEP_SECONDS = 600.0
_MOST_KEPT = 4096
_WHY = {
    Absent.GONE: "it ended before it could be looked at",
    Absent.HIDDEN: "it is not in this daemon's pid namespace; run the allocator in the host's",
    Absent.UNREADABLE: "/proc does not show it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A container that runs, as the engine says: State.Pid, and its owner by ds01's seal (None: nobody proven)."""

    id: ContainerId
    pid: int
    owner: Uid | None


class Containers(Protocol):
    """What the engine runs now."""

    async def running(self) -> tuple[Running, ...] | None:
        """All containers that run; None when the engine does not say, and then the last answer still counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attributed:
    """A process on a device, and whose it is.

    facts: None for a process that could not be looked at, and for one that has ended.
    ended: when it was first missed; None while it runs.
    """

    seen: Seen
    attribution: Attribution
    identity: Identity | None = None
    facts: ProcessFacts | None = None
    name: str = ""
    ended: Moment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenElsewhere:
    """A process that has device files of NVIDIA's open and that NVML does not list."""

    facts: ProcessFacts
    attribution: Attribution
    files: frozenset[DeviceFile]


_Key = tuple[Identity, DeviceUuid]


class Attributor:
    """Attributes what NVML lists. One call at a time runs; others wait."""

    def __init__(
        self,
        *,
        processes: Processes,
        containers: Containers,
        now: Callable[[], Moment],
        subuids: Callable[[], tuple[tuple[int, int, int], ...]] = tuple,
        first_uid: int = 1000,
    ) -> None:
        """Read processes through `processes`; `subuids` as `host.subuids.lent`, read in a thread at each sweep."""
        self._processes = processes
        self._containers = containers
        self._now = now
        self._subuids = subuids
        self._first_uid = first_uid
        self._turn = asyncio.Lock()
        self._running: tuple[Running, ...] = ()
        self._known: dict[tuple[ContainerId, int], tuple[Identity, KnownContainer]] = {}
        self._last: dict[_Key, Attributed] = {}
        self._listed: dict[
            tuple[int, DeviceUuid], Identity
        ] = {}  # which process a listed pid was, last sweep

    async def attribute(
        self, seen: Iterable[Seen], *, unread: Collection[DeviceUuid] = ()
    ) -> tuple[Attributed, ...]:
        """Each process of one sweep, in its order; behind them those that ended less than ten minutes ago.

        Args: unread: devices whose processes this sweep could not list: theirs stay as they were last told.
        Raises: OSError: /etc/subuid is there and cannot be read.
        """
        wanted = tuple(seen)
        async with self._turn:
            await self._ask_engine()
            return await asyncio.to_thread(self._sweep, wanted, frozenset(unread))

    async def attribute_open(self, holdings: Holdings, listed: Iterable[int]) -> tuple[OpenElsewhere, ...]:
        """Those with a device open that are not among the pids that NVML `listed`, by pid."""
        pids = sorted(holdings.open.keys() - set(listed))
        async with self._turn:
            await self._ask_engine()
            return await asyncio.to_thread(self._open, pids, holdings)

    async def _ask_engine(self) -> None:
        said = await self._containers.running()
        if said is not None:
            self._running = said

    # Everything below runs in one thread at a time.

    def _sweep(self, wanted: tuple[Seen, ...], unread: frozenset[DeviceUuid]) -> tuple[Attributed, ...]:
        around = self._surroundings()
        told: list[Attributed] = []
        listed: dict[tuple[int, DeviceUuid], Identity] = {}
        for seen in wanted:
            one = self._one(seen, around)
            place = (seen.pid, seen.device)
            identity = one.identity or self._listed.get(place)
            if identity is not None:
                listed[place] = identity
            if one.identity is not None or identity is None:
                told.append(one)  # else it has ended and NVML lists it still: told below by what it was
        self._listed = listed
        current = {(one.identity, one.seen.device): one for one in told if one.identity is not None}
        former = self._remember(current, unread)
        self._processes.forget_ended()
        return (*told, *former)

    def _one(self, seen: Seen, around: Surroundings) -> Attributed:
        facts = self._processes.look(seen.pid)
        if isinstance(facts, Absent):
            return Attributed(seen=seen, attribution=unseen(_WHY[facts]))
        return Attributed(
            seen=seen,
            attribution=attribute(facts, around),
            identity=facts.identity,
            facts=facts,
            name=facts.name,
        )

    def _remember(
        self, current: dict[_Key, Attributed], unread: frozenset[DeviceUuid]
    ) -> tuple[Attributed, ...]:
        """Keep this sweep, and say what is kept of earlier ones; the oldest go where there are too many."""
        now = self._now()
        former: dict[_Key, Attributed] = {}
        for key, one in self._last.items():
            if key in current:
                continue
            if one.ended is None and key[1] not in unread:
                former[key] = replace(one, facts=None, ended=now)
            elif one.ended is None or now.seconds_since(one.ended) < KEEP_SECONDS:
                former[key] = one
        former = dict(list(former.items())[-_MOST_KEPT:])
        self._last = {**former, **current}
        return tuple(former.values())

    def _open(self, pids: list[int], holdings: Holdings) -> tuple[OpenElsewhere, ...]:
        around = self._surroundings()
        looked = ((pid, self._processes.look(pid)) for pid in pids)
        return tuple(
            OpenElsewhere(facts=facts, attribution=attribute(facts, around), files=holdings.open[pid])
            for pid, facts in looked
            if isinstance(facts, ProcessFacts)
        )

    def _surroundings(self) -> Surroundings:
        known = tuple(filter(None, map(self._where, self._running)))
        self._known = {
            key: self._known[key] for one in self._running if (key := (one.id, one.pid)) in self._known
        }
        return Surroundings(
            containers=by_path(known),
            subuids=tuple(
                SubuidRange(owner=Uid(uid), first=first, count=count) for uid, first, count in self._subuids()
            ),
            first_uid=self._first_uid,
        )

    def _where(self, running: Running) -> KnownContainer | None:
        """Where a container is: read once for each of its first processes, as long as that one runs."""
        found = self._known.get((running.id, running.pid))
        if found is not None and self._processes.is_running(found[0]):
            return replace(found[1], owner=running.owner)
        facts = self._processes.look(running.pid)
        if isinstance(facts, Absent) or facts.cgroup is None:
            return None
        known = KnownContainer(id=running.id, owner=running.owner, paths=own_paths(facts.cgroup, running.id))
        if not known.paths:
            return None
        self._known[running.id, running.pid] = (facts.identity, known)
        return known
