"""Containers that ds01 did not make, as the proxy tells them, and which devices they have.

A device that one of them has is taken while it runs; one that is stopped may come back by its restart policy, so that its
devices are never destroyed for MIG. One that only watches, as policy says, takes and holds nothing: what runs on a device,
its own processes too, is NVML's to tell. Kept in memory alone: all are told again and again, and before that was done once
nobody can say what is free.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from allocator.adoption import Inspected, read_inspect
from allocator.held_devices import EVERYTHING, Held, devices_of, held
from allocator.model import DeviceKind, InventoryUnavailable, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allocator.model import Snapshot
    from policy.model import ContainerId, DeviceUuid, Json, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """One container.

    runs: paused and on its way up again count, too. monitor: it is one of `gpu.monitors` of the policy.
    inspected: what tells of its owner; None where nothing could be read.
    adopted_by: to whom an admin gave it; None: to nobody.
    """

    id: ContainerId
    name: str
    runs: bool
    held: Held
    monitor: bool = False
    inspected: Inspected | None = None
    adopted_by: Uid | None = None

    @property
    def takes(self) -> bool:
        """Whether nobody else gets what it has."""
        return self.runs and not self.monitor


def read_foreign(
    container: ContainerId,
    name: str,
    inspect: Mapping[str, Json] | None,
    *,
    runs: bool,
    monitor: bool = False,
    adopted_by: Uid | None = None,
) -> Foreign:
    """What an inspect, or `policy.foreign.excerpt` of it, shows. None, and what cannot be read: every GPU."""
    unknown = Foreign(id=container, name=name, runs=runs, held=EVERYTHING, adopted_by=adopted_by)
    if inspect is None:
        return unknown
    try:
        told = replace(
            unknown, monitor=monitor, inspected=read_inspect({**inspect, "Id": container, "Name": name})
        )
        return replace(told, held=held(inspect))
    except TypeError:
        return unknown


class ForeignContainers:
    """All of them, and the devices that they come to in a snapshot."""

    def __init__(self) -> None:
        """Nothing was told yet, and that is not "there are none"."""
        self._told: tuple[Foreign, ...] | None = None
        self._known: tuple[Snapshot, Mapping[DeviceUuid, tuple[Foreign, ...]]] | None = None

    def tell(self, containers: Iterable[Foreign]) -> None:
        """All that there are, in place of what was told before."""
        self._told = tuple(containers)
        self._known = None

    @property
    def are_told(self) -> bool:
        """Whether they are known; everything below raises InventoryUnavailable before that."""
        return self._told is not None

    def all(self) -> tuple[Foreign, ...]:
        """In the order in which they were told."""
        if self._told is None:
            raise InventoryUnavailable(
                "ds01-proxy has not told yet which containers there are", Problem.NOT_TOLD
            )
        return self._told

    def find(self, container: ContainerId) -> Foreign | None:
        """One of them by its full id."""
        return next((one for one in self.all() if one.id == container), None)

    def inspected(self) -> tuple[Inspected, ...]:
        """What tells of their owners."""
        return tuple(one.inspected for one in self.all() if one.inspected is not None)

    def by_device(self, snapshot: Snapshot) -> Mapping[DeviceUuid, tuple[Foreign, ...]]:
        """Who has each device, running or stopped, monitors too; a device that nobody has is not in it."""
        # A snapshot is asked about at every decision, and there is a new one every few seconds.
        if self._known is None or self._known[0] is not snapshot:
            self._known = (snapshot, self._find(snapshot))
        return self._known[1]

    def taken(self, snapshot: Snapshot) -> frozenset[DeviceUuid]:
        """The devices that one takes, and the GPU of each MIG device among them."""
        found = {uuid for uuid, some in self.by_device(snapshot).items() if any(one.takes for one in some)}
        parents = (snapshot.devices[uuid].parent for uuid in found)
        return frozenset(found | {parent for parent in parents if parent is not None})

    def _find(self, snapshot: Snapshot) -> Mapping[DeviceUuid, tuple[Foreign, ...]]:
        minors = {
            device.minor: uuid
            for uuid, device in snapshot.devices.items()
            if device.minor is not None and device.kind is DeviceKind.GPU
        }
        found: dict[DeviceUuid, tuple[Foreign, ...]] = {}
        for one in self.all():
            for uuid in devices_of(one.held, snapshot, minors=minors):
                found[uuid] = (*found.get(uuid, ()), one)
        return found
