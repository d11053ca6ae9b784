"""Every GPU process, all the time: each look at the devices is attributed, and what nobody may run outside containers is acted on.

Owns the rounds and what they told last; leaves whose a process is to `allocator.attributor`, what becomes of it to
`allocator.host_control`. A round that fails is told and tried again: it never ends the daemon.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from allocator.attribution import Seen
from allocator.ghosts import SWEEPS, Look, Suspicions, suspect
from allocator.host_control import Subject
from allocator.model import LedgerUnavailable
from allocator.unlisted import Listings
from observability import events
from observability.logging import log
from policy.host_processes import HostProcesses

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping

    from allocator.attribution import Identity
    from allocator.attributor import Attributed, Attributor, OpenElsewhere, Running
    from allocator.ghosts import Ghost
    from allocator.holders import Holdings
    from allocator.host_control import HostControl
    from allocator.intruders import Intruders, Place
    from allocator.model import Device, Moment, Snapshot
    from allocator.readings import GpuProcess
    from allocator.unlisted import Unlisted
    from allocator.watch import Watch
    from policy.model import ContainerId, DeviceUuid, Uid

_TICK_SECONDS = 1.0
_MOST_NAMES = 4096  # more than what runs at once
HOLDERS_SECONDS = 30.0  # between two scans of every descriptor of the machine
_LATE_SECONDS = 15.0  # a round is not of now any more; more than an interval, a sweep and a round


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A running container with the name that people know it by."""

    running: Running
    name: str


class Told:
    """What the proxy says the engine runs; the `Containers` of the attributor."""

    def __init__(self) -> None:
        """Nothing was told yet, and that is not "nothing runs"."""
        self._named: tuple[Named, ...] | None = None
        self._names: dict[ContainerId, str] = {}  # of what ran, too: who has ended keeps its name for a while

    def tell(self, named: Iterable[Named]) -> None:
        """All containers that run now."""
        self._named = tuple(named)
        for one in self._named:
            self._names.pop(one.running.id, None)
            self._names[one.running.id] = one.name
        while len(self._names) > _MOST_NAMES:
            del self._names[next(iter(self._names))]

    @property
    def are_told(self) -> bool:
        """Whether it is known which containers run."""
        return self._named is not None

    async def running(self) -> tuple[Running, ...] | None:
        return None if self._named is None else tuple(one.running for one in self._named)

    def name(self, container: ContainerId | None) -> str | None:
        """What a container is called, or was; None: unknown."""
        return None if container is None else self._names.get(container)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """Who had a device file open and is in no list of NVML's; `unread`: processes whose descriptors could not be read."""

    at: Moment
    elsewhere: tuple[OpenElsewhere, ...] = ()
    unread: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one round told.

    at: when the devices were looked at that it is about.
    unlisted: devices whose processes are not known; those listed earlier stand among `processes` as they were then.
    ghosts: None: memory without a process was not judged yet.
    scan: who has device files open, by the last scan, which is older; None: there was none yet.
    """

    at: Moment
    processes: tuple[Attributed, ...] = ()
    unlisted: tuple[Unlisted, ...] = ()
    ghosts: tuple[Ghost, ...] | None = None
    scan: Scan | None = None
    leased: Mapping[Place, bool] = field(
        default_factory=dict
    )  # whether a process's container leases its device


class Tracking:
    """Rounds for ever, and the last one."""

    def __init__(
        self,
        *,
        watch: Watch,
        attributor: Attributor,
        control: HostControl,
        intruders: Intruders,
        granted: Callable[[], Awaitable[Collection[Uid]]],
        scan: Callable[[], Holdings],
        now: Callable[[], Moment],
    ) -> None:
        """Args: granted: who has access outside containers now. scan: `allocator.holders.holders`; blocks."""
        self._watch = watch
        self._attributor = attributor
        self._control = control
        self._intruders = intruders
        self._granted = granted
        self._scan = scan
        self._now = now
        self._looks = -1
        self._holdings: tuple[Moment, Holdings] | None = (
            None  # of the last scan that succeeded, with when it began
        )
        self._scanned: Moment | None = None
        self._scanning: asyncio.Task[Any] | None = None
        self._suspicions = Suspicions()
        self._listings = Listings()
        self._failure: str | None = None  # of the last round
        self._rounds = 0
        self._told_ghosts: frozenset[DeviceUuid] = frozenset()
        self.rules = HostProcesses()  # what policy says; until it is told, processes are reported
        self.last: Round | None = None

    async def run(self) -> None:
        """A round after each look, until cancelled."""
        while True:
            try:
                await self._round_if_new()
            except (OSError, LedgerUnavailable) as error:  # the second: who was granted access is on disk
                self._failure = str(error)
                log(events.ATTRIBUTION_FAILED, problem=self._failure)
            await asyncio.sleep(_TICK_SECONDS)

    @property
    def problem(self) -> str | None:
        """Why `last` is not of now, or not there yet; None: it is of now."""
        if self._watch.problem is not None:
            return self._watch.problem
        if not self._watch.is_fresh():
            return "the GPUs could not be looked at since"
        if self._failure is not None:
            return f"whose the processes are cannot be told: {self._failure}"
        if self.last is None or self._now().seconds_since(self.last.at) > _LATE_SECONDS:
            return "whose the processes are is being looked at"
        return None

    async def open_elsewhere(self) -> tuple[OpenElsewhere, ...]:
        """Everybody who has a device file open now, with whose they are. Raises: OSError."""
        holdings = await asyncio.to_thread(self._scan)
        return await self._attributor.attribute_open(holdings, ())

    async def _round_if_new(self) -> None:
        # A failed look is no look: everything would read as ended.
        at = self._watch.seen
        if at is None or self._watch.looks == self._looks or not self._watch.is_fresh():
            return
        self._looks = self._watch.looks
        self.last = await self._round(self._watch.current(), at)
        self._failure = None

    async def _round(self, snapshot: Snapshot, at: Moment) -> Round:
        seen = tuple(_seen(snapshot))
        unlisted = self._listings.take_in(snapshot, at)
        processes = await self._attributor.attribute(
            seen, unread=frozenset(one.device for one in unlisted if one.device is not None)
        )
        self._suspicions = suspect(self._suspicions, _looks(snapshot, processes), now=self._now())
        self._rounds += 1
        self._tell_ghosts(snapshot)
        self._scan_now_and_then()
        scan = await self._last_scan({one.seen.pid for one in processes})
        granted = await self._granted()
        await self._intruders.sweep(processes, snapshot)
        elsewhere = () if scan is None else scan.elsewhere
        subjects = tuple(_subjects(processes, elsewhere, self._intruders.ours))
        await asyncio.to_thread(self._control.act, subjects, self.rules, granted=granted)
        return Round(
            at=at,
            processes=processes,
            unlisted=unlisted,
            ghosts=self._suspicions.ghosts if self._rounds >= SWEEPS else None,
            scan=scan,
            leased=self._intruders.leased,
        )

    async def _last_scan(self, listed: Collection[int]) -> Scan | None:
        """What the last scan of descriptors found beside the pids that NVML `listed`, with whose they are now."""
        if self._holdings is None:
            return None
        at, holdings = self._holdings
        elsewhere = await self._attributor.attribute_open(holdings, listed)
        return Scan(at=at, elsewhere=elsewhere, unread=holdings.unread)

    def _scan_now_and_then(self) -> None:
        """Start a scan if the last one is old; never a second beside one that has not returned."""
        if self._scanning is not None and not self._scanning.done():
            return
        if self._scanned is not None and self._now().seconds_since(self._scanned) < HOLDERS_SECONDS:
            return
        self._scanned = self._now()
        self._scanning = asyncio.get_running_loop().create_task(self._scan_once(self._scanned))

    async def _scan_once(self, began: Moment) -> None:
        try:
            self._holdings = began, await asyncio.to_thread(self._scan)
        except OSError as error:
            log(events.ATTRIBUTION_FAILED, problem=str(error))

    def _tell_ghosts(self, snapshot: Snapshot) -> None:
        """Each once, for as long as it lasts."""
        ghosts = self._suspicions.ghosts
        for ghost in ghosts:
            if ghost.device not in self._told_ghosts:
                log(
                    events.MEMORY_UNATTRIBUTED,
                    device=ghost.device,
                    used_mib=ghost.used_mib,
                    holders=self._holding(snapshot.devices.get(ghost.device)),
                )
        self._told_ghosts = frozenset(ghost.device for ghost in ghosts)
        if self._rounds >= SWEEPS:
            self._watch.ghosts = self._told_ghosts

    def _holding(self, device: Device | None) -> list[int] | None:
        """Who has the device's file open, by the last scan; None: not known."""
        minor = None if device is None else device.minor
        if minor is None or self._holdings is None:
            return None
        _, holdings = self._holdings
        return sorted(pid for pid, files in holdings.open.items() if any(f.gpu_minor == minor for f in files))


def _seen(snapshot: Snapshot) -> Iterator[Seen]:
    """Every process of a look, once: a GPU in MIG mode lists those of its instances as well, which list them themselves.

    One on an instance that is no device of the look is told as the GPU's, so that it is told at all.
    """
    for device in snapshot.devices.values():
        parts = [part for part in snapshot.devices.values() if part.parent == device.uuid]
        for process in device.processes or ():
            if any(_is_of(process, part) for part in parts):
                continue
            yield Seen(
                pid=process.pid,
                device=device.uuid,
                gpu_instance_id=process.gpu_instance_id
                if process.gpu_instance_id is not None
                else device.gpu_instance_id,
                compute_instance_id=process.compute_instance_id
                if process.compute_instance_id is not None
                else device.compute_instance_id,
                memory_mib=process.memory_mib,
            )


def _is_of(process: GpuProcess, part: Device) -> bool:
    """Whether a process that a GPU lists may be on that MIG device of it; an id that is not known may be any."""
    if process.gpu_instance_id is None or part.gpu_instance_id not in (None, process.gpu_instance_id):
        return False
    return None in (process.compute_instance_id, part.compute_instance_id) or (
        process.compute_instance_id == part.compute_instance_id
    )


def _looks(snapshot: Snapshot, processes: Collection[Attributed]) -> Iterator[Look]:
    """How much of each device is used, and by how many that can be seen: on the device itself and on its parts."""
    for device in snapshot.devices.values():
        of_it = {device.uuid} | {
            part.uuid for part in snapshot.devices.values() if part.parent == device.uuid
        }
        unknown = any(snapshot.devices[uuid].processes is None for uuid in of_it)
        visible = sum(one.seen.device in of_it and one.facts is not None for one in processes)
        yield Look(
            device=device.uuid,
            used_mib=device.measures.memory_used_mib,
            visible=None if unknown else visible,
        )


def _subjects(
    processes: Collection[Attributed],
    elsewhere: Collection[OpenElsewhere],
    unleased: Mapping[Identity, tuple[DeviceUuid, ...]],
) -> Iterator[Subject]:
    """Each process that runs now, once, whatever it uses."""
    devices: dict[Identity, list[DeviceUuid]] = {}
    first: dict[Identity, Attributed] = {}
    for one in processes:
        if one.identity is not None and one.ended is None and one.facts is not None:
            devices.setdefault(one.identity, []).append(one.seen.device)
            first.setdefault(one.identity, one)
    for identity, one in first.items():
        executable = None if one.facts is None else one.facts.executable
        yield Subject(
            identity=identity,
            attribution=one.attribution,
            executable=executable,
            name=one.name,
            devices=tuple(dict.fromkeys(devices[identity])),
            unleased=unleased.get(identity, ()),
        )
    for other in elsewhere:
        if other.facts.identity not in first:
            yield Subject(
                identity=other.facts.identity,
                attribution=other.attribution,
                executable=other.facts.executable,
                name=other.facts.name,
            )
