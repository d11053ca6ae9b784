"""What is free, what a request could ever take, and who holds how much: one snapshot and its leases, made ready.

Pure, and quick to ask many times: a board serves a whole queue. A device is free only if it is known to be: state ok,
no live lease on it, its parent or its children, nor on a part of it that has gone, no running container has it that ds01 did not make, a process list that was
read and is empty, and no memory in use that nobody can account for.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from math import inf
from typing import TYPE_CHECKING

from allocator.model import ANY, FULL, Device, DeviceKind, DeviceState, GpuRequest, Obstacle
from allocator.reach import left_with
from allocator.slices import equivalents, halves

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from allocator.model import Lease, Moment, Refusal, Snapshot
    from policy.model import DeviceUuid

Devices = frozenset["DeviceUuid"]


def may_be(device: Device, want: GpuRequest) -> bool:
    """Whether policy gives the owner devices of this class, and the limit is not too small for this one."""
    if want.equivalents is not None and equivalents(device) > want.equivalents:
        return False
    return not _classes(device).isdisjoint(want.classes)


def _classes(device: Device) -> set[str]:
    """The names that policy gives a device by."""
    return {device.kind.value, device.profile}


def suits(device: Device, want: GpuRequest) -> bool:
    """Whether a device is what a request by number asks for."""
    if want.profile == FULL and device.kind is not DeviceKind.GPU:
        return False
    if want.profile not in {None, ANY, FULL} and device.profile != want.profile:
        return False
    if want.memory_mib is not None and (device.memory_mib is None or device.memory_mib < want.memory_mib):
        return False
    return may_be(device, want)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """What requests of one shape could take if nobody held any.

    largest: of a whole GPU; 0 when there is none. sums: for each tier, what its smallest one, two, ... are together.
    """

    tiers: tuple[Devices, ...]
    devices: Devices
    largest: Fraction
    sums: tuple[tuple[Fraction, ...], ...]


class Board:
    """One snapshot and the live leases on it."""

    def __init__(
        self,
        snapshot: Snapshot,
        leases: Collection[Lease],
        now: Moment | None = None,
        *,
        same_devices: Board | None = None,
        foreign: Devices = frozenset(),
        unattributed: Devices = frozenset(),
    ) -> None:
        """Args:

        now: for the ends of leases; None: they are not told.
        same_devices: an earlier board, whose answers about the same snapshot are used again.
        foreign: what containers have that ds01 did not make and that run.
        unattributed: where memory is in use by no process that can be seen.
        """
        self.snapshot = snapshot
        self.leases = tuple(leases)
        self.now = now
        self.foreign = foreign
        self.unattributed = unattributed
        self.holders = self._find_holders()
        self.free: Devices = frozenset(
            uuid for uuid, device in snapshot.devices.items() if self.obstacle(device) is None
        )
        same = same_devices if same_devices is not None and same_devices.snapshot is snapshot else None
        self._shapes: dict[tuple[object, ...], _Shape] = {} if same is None else same._shapes  # noqa: SLF001  one of us
        self.hopeless: dict[tuple[object, ...], Refusal | None]  # what `allocator.place.hopeless` found
        self.hopeless = {} if same is None else same.hopeless

    def usable(self, want: GpuRequest) -> Devices:
        """The devices that a request by number could take if nobody held any."""
        return self._shape(want).devices

    def tiers(self, want: GpuRequest) -> tuple[Devices, ...]:
        """The same in the classes of which one must give all that is asked, best first."""
        return self._shape(want).tiers

    def largest(self, want: GpuRequest) -> Fraction:
        """What the largest of those is of a whole GPU; 0 when there is none."""
        return self._shape(want).largest

    def smallest(self, want: GpuRequest, count: int) -> Iterator[Fraction]:
        """What the smallest `count` of each tier that has so many are of whole GPUs."""
        return (sums[count - 1] for sums in self._shape(want).sums if len(sums) >= count)

    def _shape(self, want: GpuRequest) -> _Shape:
        shape = (want.profile, want.memory_mib, want.classes, want.equivalents)
        if (found := self._shapes.get(shape)) is None:
            devices = self.snapshot.devices.values()
            some = [one for one in devices if one.state is DeviceState.OK and suits(one, want)]
            if want.profile is None and want.memory_mib is None:
                tiers = [{one.uuid for one in some if name in _classes(one)} for name in want.classes]
            else:  # whole GPUs last: they stay whole
                tiers = [
                    {one.uuid for one in some if one.kind is kind}
                    for kind in (DeviceKind.MIG, DeviceKind.GPU)
                ]
            found = self._shapes[shape] = _Shape(
                tiers=tuple(map(frozenset, tiers)),
                devices=frozenset(one.uuid for one in some),
                largest=max(map(equivalents, some), default=Fraction(0)),
                sums=tuple(
                    tuple(accumulate(sorted(equivalents(self.snapshot.devices[uuid]) for uuid in tier)))
                    for tier in tiers
                ),
            )
        return found

    @cached_property
    def emptied(self) -> Board:
        """The same devices, held and used by nobody: all that could ever be given back."""
        devices = {uuid: replace(device, processes=()) for uuid, device in self.snapshot.devices.items()}
        return Board(replace(self.snapshot, devices=devices), ())

    def held_by_owner(self, want: GpuRequest) -> tuple[int, Fraction]:
        """Devices and equivalents that the owner of a request holds."""
        return _total([lease for lease in self.leases if lease.owner_uid == want.owner_uid])

    def held_by_group(self, name: str) -> tuple[int, Fraction]:
        """Devices and equivalents that the members of a group hold together."""
        return _total([lease for lease in self.leases if name in lease.groups])

    def _find_holders(self) -> dict[DeviceUuid, Lease]:
        """By device, the lease that reaches it: on itself, its parent, or a part of it, gone or not.

        A lease on a GPU that was split since holds all parts: its container has the file of the GPU, and nobody made sure
        that the driver lets it open none of them.
        """
        direct = {uuid: lease for lease in self.leases for uuid in lease.devices}
        holders = dict(direct)
        for uuid, device in self.snapshot.devices.items():
            if device.parent is None:
                continue
            if device.parent in direct:
                holders.setdefault(uuid, direct[device.parent])
            if uuid in direct:
                holders.setdefault(device.parent, direct[uuid])
        for lease in [direct[uuid] for uuid in direct if uuid not in self.snapshot.devices]:
            for gpu in left_with(lease, self.snapshot):
                holders.setdefault(gpu, lease)
        return holders

    def obstacle(self, device: Device) -> Obstacle | None:
        """Why a device is not free, the first reason that holds; None: it is."""
        if device.state is not DeviceState.OK:
            return Obstacle.OUT_OF_SERVICE
        if device.uuid in self.holders:
            return Obstacle.HELD
        if device.uuid in self.foreign:
            return Obstacle.FOREIGN
        if device.uuid in self.unattributed:
            return Obstacle.UNATTRIBUTED
        if device.pids is None:
            return Obstacle.UNKNOWN
        return Obstacle.IN_USE if device.pids else None

    @cached_property
    def returning(self) -> tuple[tuple[Lease, float, tuple[Device, ...]], ...]:
        """Each lease with the seconds until it ends and those of its devices that are there; infinite where no end is certain.

        One that should have ended has none: its container goes on.
        """
        found = []
        for lease in self.leases:
            left = None if self.now is None else lease.seconds_left(self.now)
            devices = [self.snapshot.devices[uuid] for uuid in lease.devices if uuid in self.snapshot.devices]
            found.append((lease, left if left is not None and left > 0 else inf, tuple(devices)))
        return tuple(found)

    @cached_property
    def taken_halves(self) -> dict[DeviceUuid, frozenset[int]]:
        """By GPU, its halves in which a MIG device is leased."""
        found: dict[DeviceUuid, frozenset[int]] = defaultdict(frozenset)
        for lease in self.leases:
            for uuid in lease.devices:
                device = self.snapshot.devices.get(uuid)
                if device is not None and device.parent is not None:
                    found[device.parent] |= halves(device)
        return found


def _total(leases: Collection[Lease]) -> tuple[int, Fraction]:
    devices = sum(len(lease.devices) for lease in leases)
    return devices, sum((lease.equivalents for lease in leases), Fraction(0))
