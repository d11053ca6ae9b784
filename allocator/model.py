"""The allocator's values: devices as NVML reported them, leases as the ledger holds them, requests and refusals."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING

from allocator.readings import Measures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from allocator.readings import GpuProcess, MigMode, Span, XidEvent
    from policy.model import ContainerId, DeviceUuid, LeaseId, Uid


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
    silent_seconds: float | None = None
    error: int | None = None
    generation: int = 0  # grows each time a MIG UUID comes back (UUIDs recur after destroy and create)

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
    cpu_ms: what the look cost the NVML process.
    """

    devices: Mapping[DeviceUuid, Device] = field(default_factory=dict)
    events: tuple[XidEvent, ...] = ()
    links: Mapping[DevicePair, Link] | None = None
    unidentified: Mapping[str, str] = field(default_factory=dict)
    complete: bool = True
    driver: str | None = None
    cpu_ms: float | None = None


class LeaseState(StrEnum):
    """A lease is live, and holds its devices, in every state but RELEASED."""

    PENDING = "pending"  # granted; its container is not known yet
    ACTIVE = "active"
    LOST = "lost"  # a device of it went away: held until its container is removed
    RELEASED = "released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """When: for people (UTC, ISO 8601) and for arithmetic (CLOCK_BOOTTIME of one boot)."""

    utc: str
    boottime_ms: int
    boot_id: str

    def seconds_since(self, earlier: Moment) -> float:
        """How long ago `earlier` was; infinite when it was in another boot."""
        if earlier.boot_id != self.boot_id:
            return float("inf")
        return (self.boottime_ms - earlier.boottime_ms) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """Devices held for one container of one user."""

    id: LeaseId
    owner_uid: Uid
    owner_name: str
    devices: tuple[DeviceUuid, ...]  # sorted, at least one
    session: str  # of the proxy that asked
    request_id: str
    created: Moment
    changed: Moment  # of the last change of state
    state: LeaseState = LeaseState.PENDING
    container: ContainerId | None = None

    @property
    def live(self) -> bool:
        """Whether it holds its devices."""
        return self.state is not LeaseState.RELEASED


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRequest:
    """What one create asks for. Exactly one of `count` (1 or more) and `device_ids` is set.

    limit: the most devices the owner may hold at once, these included.
    kinds: for a count, the kinds to try, in order; one grant never mixes them, since a CUDA process
        sees only one MIG device and none beside a whole GPU.
    """

    owner_uid: Uid
    owner_name: str
    limit: int
    count: int | None = None
    device_ids: tuple[str, ...] = ()
    kinds: tuple[DeviceKind, ...] = (DeviceKind.GPU, DeviceKind.MIG)
    wait_seconds: int = 0
    request_id: str
    session: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The devices chosen: distinct UUIDs, sorted."""

    devices: tuple[DeviceUuid, ...]


class RefusalKind(StrEnum):
    """Why no device now."""

    LIMIT = "limit"  # the owner would hold too many
    UNKNOWN_DEVICE = "unknown_device"
    AMBIGUOUS_DEVICE = "ambiguous_device"
    NOT_USABLE = "not_usable"  # lost, quarantined, or a GPU in MIG mode
    TOO_FEW = "too_few"  # this server never has that many of one kind
    IN_USE = "in_use"  # held by leases, or used by processes without one: waiting may help


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A message the user can act on: what was asked, the limit or the holders, the next step."""

    kind: RefusalKind
    message: str

    @property
    def waiting_helps(self) -> bool:
        """Whether somebody else's release can change the answer."""
        return self.kind is RefusalKind.IN_USE


class Problem(StrEnum):
    """Why NVML cannot say what there is."""

    NOT_READ = "not_read"  # not yet
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
