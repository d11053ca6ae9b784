"""The allocator's values: devices as NVML reported them, leases as the ledger holds them, requests and refusals.

A lease is in one of these states, and holds its devices in every one but the last:
- pending: granted; its create is under way and no container is known.
- bound: its container exists and was never started.
- active: its container runs, or was let start a moment ago.
- held: its container has stopped; the devices stay its own until it is removed, or until its time is over.
- lost: a device of it went away, or came back as another; held until its container has stopped or is removed: it does not start again.
- released: over. Only a running container that still carries it brings it back, if nobody else has the devices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from fractions import Fraction
from typing import TYPE_CHECKING

from allocator.readings import Measures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.readings import GpuProcess, MigMode, Span, XidEvent
    from policy.model import ContainerId, DeviceUuid, LeaseId, Uid

ANY = "any"  # as a profile: one device of whatever kind, the smallest that is free
FULL = "full"  # as a profile: a whole GPU


class DeviceKind(StrEnum):
    """What can be leased: a whole GPU, or one MIG device of it."""

    GPU = "gpu"
    MIG = "mig"


class DeviceState(StrEnum):
    """Whether a device may be used at all."""

    OK = "ok"
    LOST = "lost"  # the driver says it has fallen off the bus
    QUARANTINED = "quarantined"  # it answers, but with errors; or a person said so
    DRAINING = "draining"  # who holds it goes on; nobody else gets it until it was reset
    UNRESPONSIVE = "unresponsive"  # it did not answer in time: nothing is known of it
    UNUSABLE = "unusable"  # a GPU in MIG mode, or on its way into or out of it: never leased whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """One GPU or MIG device; None is unknown, wherever it may stand.

    index: for printing and for users who type it: "0", "0:1". It may change with every boot.
    processes: None is never free.
    profile_id, placement: of a MIG device's GPU instance. SOURCE: gpu instance info of NVML, real ids.
    remark: what is known against it: why it is quarantined or draining, or what an admin should look at.
    recovers: whether it may be in service again without anybody's doing: it is silent, or in error, for a moment, or being split.
    silent_seconds: how long it has not answered; None: it did.
    error: the NVML code it answered with instead of its processes; None: none.
    """

    uuid: DeviceUuid
    kind: DeviceKind
    index: str
    profile: str  # "1g.5gb" for a MIG device, the product name for a GPU
    parent: DeviceUuid | None = None
    memory_mib: int | None = None
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    profile_id: int | None = None
    placement: Span | None = None
    mig_mode: MigMode | None = None
    processes: tuple[GpuProcess, ...] | None = None
    measures: Measures = field(default_factory=Measures)
    serial: str | None = None
    pci_bus_id: str | None = None
    minor: int | None = None  # of /dev/nvidiaN
    compute_capability: str | None = None  # "8.0"
    numa_node: int | None = None
    state: DeviceState = DeviceState.OK
    remark: str | None = None
    recovers: bool = False
    silent_seconds: float | None = None
    error: int | None = None
    generation: int = 0  # grows each time a MIG UUID comes back (UUIDs recur after destroy and create)

    @property
    def gpu(self) -> DeviceUuid:
        """The GPU that it is, or is a part of."""
        return self.uuid if self.parent is None else self.parent

    @property
    def pids(self) -> tuple[int, ...] | None:
        """Each process once, sorted; None: unknown, and unknown is never free."""
        if self.processes is None:
            return None
        return tuple(sorted({process.pid for process in self.processes}))


class Link(IntEnum):
    """How near two GPUs are, nearest first. SOURCE: nvmlGpuTopologyLevel_t; NVLink between its first two levels."""

    INTERNAL = 0  # on one board
    NVLINK = 5
    SINGLE = 10  # one PCIe switch
    MULTIPLE = 20  # several PCIe switches
    HOSTBRIDGE = 30
    NODE = 40  # one NUMA node
    SYSTEM = 50  # across NUMA nodes


DevicePair = tuple["DeviceUuid", "DeviceUuid"]  # sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All devices at one moment, by UUID.

    events: what the driver reported since the last look, oldest first; each stands in one snapshot.
    links: how near two whole GPUs are, by sorted pair. None, and a pair that is missing: not known; such pairs count as
        far apart, and without any the order of the indices decides.
    unidentified: GPUs that could not say their UUID, by index, and why.
    complete: whether a device that is not in it is not there; False while a GPU did not answer at all.
    awaited: MIG devices that a reboot took and that are being made again: not in it, and not gone.
    cpu_ms: what the look cost the NVML process.
    """

    devices: Mapping[DeviceUuid, Device] = field(default_factory=dict)
    events: tuple[XidEvent, ...] = ()
    links: Mapping[DevicePair, Link] | None = None
    unidentified: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    awaited: frozenset[DeviceUuid] = frozenset()
    driver: str | None = None
    cpu_ms: float | None = None

    @property
    def is_settled(self) -> bool:
        """Whether what is in service stays all there is until somebody does something about it."""
        return (
            self.complete
            and not self.awaited
            and not any(device.recovers for device in self.devices.values())
        )


class LeaseState(StrEnum):
    """See the module's docstring."""

    PENDING = "pending"
    BOUND = "bound"
    ACTIVE = "active"
    HELD = "held"
    LOST = "lost"
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When: for people (UTC, ISO 8601) and for arithmetic (CLOCK_BOOTTIME of one boot)."""

    utc: str
    boottime_ms: int
    boot_id: str

    def seconds_since(self, earlier: Moment) -> float:
        """For a grace and for freshness: how long ago `earlier` was, by this boot's clock; infinite when it was in another boot.

        Nothing of another boot is under way or fresh. Not for a time that somebody was promised: a reboot would end it.
        """
        if earlier.boot_id != self.boot_id:
            return float("inf")
        return (self.boottime_ms - earlier.boottime_ms) / 1000

    def elapsed_since(self, earlier: Moment) -> float:
        """For a time that was promised or used: how long ago `earlier` was, at least 0; it goes on across a reboot.

        There by UTC, which is all there is then. Not for a grace: a clock that is put back would make it last.
        """
        if earlier.boot_id == self.boot_id:
            return max(0.0, self.seconds_since(earlier))
        return max(0.0, (self.when() - earlier.when()).total_seconds())

    def when(self) -> datetime:
        """The time of day, aware."""
        return datetime.fromisoformat(self.utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Devices held for one container of one user.

    generations: of `devices`, in their order; 0: not known.
    gpus: the GPU that each of `devices` is, or is a part of, in their order; None, and nothing at all: not known.
    groups: the policy groups of the owner, sorted; each one's limit counts this lease.
    equivalents: what the devices are of whole GPUs, by compute slices.
    seconds: how long it lasts from `created`; None: until its container is removed.
    hold_seconds: how long a container that does not run keeps it; None: until it is removed.
    since: since when it holds its devices without a break: `created`, unless it was released and came back.
    """

    id: LeaseId
    owner_uid: Uid
    owner_name: str
    devices: tuple[DeviceUuid, ...]  # sorted, at least one
    generations: tuple[int, ...] = ()
    gpus: tuple[DeviceUuid | None, ...] = ()
    groups: tuple[str, ...] = ()
    equivalents: Fraction = Fraction(1)
    seconds: int | None = None
    hold_seconds: int | None = None
    session: str  # of the proxy that asked
    request_id: str
    created: Moment
    since: Moment
    changed: Moment  # of the last change of state
    state: LeaseState = LeaseState.PENDING
    container: ContainerId | None = None

    @property
    def live(self) -> bool:
        """Whether it holds its devices."""
        return self.state is not LeaseState.RELEASED

    def seconds_left(self, now: Moment) -> float | None:
        """Until it ends, below 0 when it should have; None: it has no end."""
        return None if self.seconds is None else self.seconds - now.elapsed_since(self.created)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLimit:
    """A policy group of the owner, and what all its members together may hold; None: no such limit."""

    name: str
    devices: int | None = None
    equivalents: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRequest:
    """What one create asks for. Exactly one of `count` (1 or more) and `device_ids` is set.

    limit, equivalents: the most the owner may hold at once, these included, in devices and in whole GPUs.
    profile: a MIG profile ("2g.10gb"), FULL or ANY; None: what `classes` prefers.
    memory_mib: at least so much on each device.
    classes: what the owner may have, best first: "gpu", "mig" or a MIG profile. One grant never mixes GPUs and MIG
        devices, since a CUDA process sees only one MIG device and none beside a whole GPU.
    seconds, hold_seconds: as in Lease.
    wait_most_seconds: how long policy lets it wait if it says so; None: not told.
    weight, priority: in the queue; a weight of 2 gets twice the share, a higher priority goes first whatever the shares.
    asked_ms: CLOCK_BOOTTIME of its first asking, where it asks again; None: now.
    """

    owner_uid: Uid
    owner_name: str
    groups: tuple[GroupLimit, ...] = ()
    limit: int
    equivalents: Fraction | None = None
    count: int | None = None
    device_ids: tuple[str, ...] = ()
    profile: str | None = None
    memory_mib: int | None = None
    classes: tuple[str, ...] = ("gpu", "mig")
    seconds: int | None = None
    hold_seconds: int | None = None
    wait_seconds: int = 0
    wait_most_seconds: int | None = None
    weight: int = 1
    priority: int = 0
    asked_ms: int | None = None
    request_id: str
    session: str


class Obstacle(StrEnum):
    """What keeps a device from being leased now."""

    OUTAGE = "outage"  # no device can be read
    OUT_OF_SERVICE = "out_of_service"  # its state is not ok
    HELD = "held"  # by a lease on it, its GPU or a part of it
    FOREIGN = "foreign"  # a running container has it that ds01 did not make
    UNATTRIBUTED = "unattributed"  # its memory is in use by no process that can be seen
    UNKNOWN = "unknown"  # its processes cannot be read
    IN_USE = "in_use"  # by processes without a lease
    RESERVED = "reserved"  # it is free, and kept for a reservation


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The devices chosen: distinct UUIDs, sorted."""

    devices: tuple[DeviceUuid, ...]
    equivalents: Fraction = Fraction(1)


class RefusalKind(StrEnum):
    """Why no device now."""

    LIMIT = "limit"  # the owner would hold too many
    GROUP_LIMIT = "group_limit"  # the owner's group would: another member's release may help
    NOT_ALLOWED = "not_allowed"  # a class that policy does not give
    UNKNOWN_DEVICE = "unknown_device"
    AMBIGUOUS_DEVICE = "ambiguous_device"
    NOT_USABLE = "not_usable"  # lost, quarantined, or a GPU in MIG mode
    TOO_FEW = "too_few"  # this server never has that many of one kind
    IN_USE = (
        "in_use"  # held by leases, used by processes without one, or for who waits longer: waiting may help
    )
    RESERVED = "reserved"  # free, and kept for a reservation: waiting may help


_PASSING = frozenset({RefusalKind.IN_USE, RefusalKind.RESERVED, RefusalKind.GROUP_LIMIT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A message the user can act on: what was asked, the limit or the holders, the next step."""

    kind: RefusalKind
    message: str

    @property
    def waiting_helps(self) -> bool:
        """Whether somebody else's release can change the answer."""
        return self.kind in _PASSING


class Problem(StrEnum):
    """Why NVML cannot say what there is."""

    NOT_READ = "not_read"  # not yet
    NOT_TOLD = "not_told"  # NVML can, but not which containers have devices past ds01
    NO_LIBRARY = "no_library"
    NO_DRIVER = "no_driver"
    MISMATCH = "driver_mismatch"
    NO_PERMISSION = "no_permission"
    UNRESPONSIVE = "unresponsive"  # no answer in time
    NO_WORKER = "no_worker"  # the NVML process could not be started, or ended
    FAILED = "failed"


class InventoryUnavailable(Exception):  # noqa: N818  the name says what is wrong
    """NVML cannot say what there is: no library, no driver, versions differ, or no answer in time."""

    def __init__(self, message: str, problem: Problem = Problem.FAILED) -> None:
        """Say it in one sentence for the admin."""
        super().__init__(message)
        self.problem = problem


class LedgerUnavailable(Exception):  # noqa: N818  the name says what is wrong
    """The ledger cannot be read or written."""
