"""What is free, said again from the devices alone and without the allocator's own code: an oracle for its tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from allocator.model import Device, Snapshot
    from policy.model import DeviceUuid


def free_by_hand(
    machine: Snapshot,
    held: Collection[DeviceUuid],
    *,
    out: Collection[DeviceUuid] = (),
    used: Collection[DeviceUuid] = (),
) -> set[DeviceUuid]:
    """A device that is well, known to be idle, and of which nobody has it, its GPU or a part of it.

    Args: held: leased, or had by a container that ds01 did not make. out: quarantined, with their parts.
        used: memory is in use by nobody, or a part that is gone was leased, on the device itself.
    """
    free = set()
    for device in machine.devices.values():
        kin = _kin(device, machine)
        well = device.state.value == "ok" and device.processes == ()
        if well and not kin & set(held) and not {device.uuid, device.parent} & set(out):
            free.add(device.uuid)
    return free - set(used)


def _kin(device: Device, machine: Snapshot) -> set[DeviceUuid]:
    """The device, the GPU it is a part of, and its parts."""
    parts = {one.uuid for one in machine.devices.values() if one.parent == device.uuid}
    return {device.uuid} | parts | ({device.parent} if device.parent is not None else set())
