"""Whether a container may start on the devices of its lease, and the words if not. Pure.

dockerd hands out what a create was given at every start, whatever has become of it: a MIG device that was made anew at the same
place answers to the same UUID, with another profile too. So a start asks for device, generation and state (ADR 0009, ADR 0022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from allocator.model import Device, DeviceKind, DeviceState, InventoryUnavailable, LeaseState, Problem
from allocator.reconcile import is_there

if TYPE_CHECKING:
    from allocator.model import Lease, Moment, Snapshot
    from policy.model import ContainerId, DeviceUuid

_STARTABLE = frozenset({LeaseState.PENDING, LeaseState.BOUND, LeaseState.ACTIVE, LeaseState.HELD})
_NEW = "create the container again to get a new one"
_OTHER = "create the container again to get another"


def is_over(lease: Lease, container: ContainerId, now: Moment) -> str | None:
    """Why the lease itself lets nothing start; None: it does. One that was not confirmed is that of the container that starts."""
    left = lease.seconds_left(now)
    own = lease.container == container or (lease.state is LeaseState.PENDING and lease.container is None)
    if lease.state in _STARTABLE and own and (left is None or left > 0):
        return None
    what = "has lost a device" if lease.state is LeaseState.LOST else "has ended"
    return f"the GPU lease {lease.id} of this container {what} (rule gpu_lease); {_NEW}"


def is_gone(lease: Lease, snapshot: Snapshot) -> str | None:
    """Why the devices are not what was leased; None: they are.

    Raises: InventoryUnavailable: of one of them nobody can say.
    """
    generations = lease.generations or (0,) * len(lease.devices)
    for uuid, generation in zip(lease.devices, generations, strict=True):
        said = _of_one(snapshot, uuid, generation)
        if said is not None:
            return said
    return None


def _of_one(snapshot: Snapshot, uuid: DeviceUuid, generation: int) -> str | None:
    device = snapshot.devices.get(uuid)
    if device is None:
        if uuid in snapshot.awaited:
            raise InventoryUnavailable(f"device {uuid} is being made again after the reboot")
        if not snapshot.complete:
            raise InventoryUnavailable("not every GPU answers", Problem.UNRESPONSIVE)
        return f"device {uuid} of this container is not there any more (rule gpu_lease); {_OTHER}"
    named = f"{'GPU' if device.kind is DeviceKind.GPU else 'MIG device'} {device.index} of this container"
    if device.state is not DeviceState.LOST and not is_there(snapshot, uuid, generation):
        return f"{named} is another one by now, with the same UUID (rule gpu_lease); {_OTHER}"
    return _by_state(device, named)


def _by_state(device: Device, named: str) -> str | None:
    match device.state:
        case DeviceState.OK | DeviceState.DRAINING:  # who holds it goes on
            return None
        case DeviceState.QUARANTINED:
            why = "" if device.remark is None else f": {device.remark}"
            return f"{named} is out of service{why} (rule gpu_lease); wait until it is back, or {_OTHER}"
        case DeviceState.UNRESPONSIVE:
            raise InventoryUnavailable(f"{named} does not answer", Problem.UNRESPONSIVE)
        case DeviceState.UNUSABLE:
            if device.kind is DeviceKind.MIG:
                raise InventoryUnavailable(f"{named} is being made anew", Problem.FAILED)
            waits = device.mig_mode is not None and not device.mig_mode.current
            # A mode that waits for a reset changes nothing yet.
            return None if waits else f"{named} was split into MIG devices (rule gpu_lease); {_OTHER}"
        case DeviceState.LOST:
            return f"{named} is lost (rule gpu_lease); {_OTHER}"
        case _:
            assert_never(device.state)
