"""The devices of a grant outside containers: as they were named, for as long as they are the same, and as device files. Pure.

INVARIANT: a MIG device is never more than itself: once it has gone, came back as another, or its GPU leaves MIG mode, the file of
its GPU could open something else, and the grant is over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from allocator.device_policy import gpu_nodes
from allocator.mig_capabilities import FilesUnknown
from allocator.model import DeviceKind, DeviceState, Refusal, RefusalKind
from allocator.place import find, order
from allocator.reconcile import is_there

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from allocator.device_policy import Node
    from allocator.model import Device, Snapshot
    from policy.model import DeviceUuid


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class GrantedDevice:
    """A GPU or MIG device. generation: as in `Device`, since UUIDs of MIG devices recur; 0: not known."""

    uuid: DeviceUuid
    generation: int


class CapabilityNumbers(Protocol):
    """`allocator.mig_capabilities.Capabilities`."""

    def of(self, *, gpu_minor: int, gpu_instance: int, compute_instance: int) -> tuple[int, int]:
        """Raises: FilesUnknown."""


def choose(names: Iterable[str], snapshot: Snapshot) -> tuple[GrantedDevice, ...] | Refusal:
    """The devices that an admin named, each once; any spelling of a lease will do."""
    chosen: set[GrantedDevice] = set()
    for name in names:
        device = find(snapshot, name)
        if isinstance(device, Refusal):
            return device
        problem = _obstacle(device, snapshot)
        if problem is not None:
            return Refusal(kind=RefusalKind.NOT_USABLE, message=problem)
        chosen.add(GrantedDevice(uuid=device.uuid, generation=device.generation))
    return tuple(sorted(chosen))


def _obstacle(device: Device, snapshot: Snapshot) -> str | None:
    """Why a device cannot be granted. One that is out of service can: to look at it may be what the grant is for."""
    if device.state is DeviceState.LOST:
        return f"device {device.index} is lost; see ds01 gpu"
    if device.kind is DeviceKind.GPU:
        # SECURITY: its file opens nothing while it is split, and all of it once it is not; who names it means neither.
        return (
            None
            if device.state is not DeviceState.UNUSABLE and not _is_split(device)
            else _split(device, snapshot)
        )
    if _keeps_mode(device, snapshot) is not True:
        return f"the GPU of MIG device {device.index} is not, or does not stay, in MIG mode; see ds01 gpu mig plan"
    return None


def _is_split(gpu: Device) -> bool:
    return gpu.mig_mode is not None and (gpu.mig_mode.current or gpu.mig_mode.pending)


def _split(gpu: Device, snapshot: Snapshot) -> str:
    parts = sorted((one for one in snapshot.devices.values() if one.parent == gpu.uuid), key=order)
    which = (
        f"name its MIG devices: {', '.join(one.index for one in parts)}" if parts else "it has no MIG device"
    )
    return (
        f"GPU {gpu.index} is in MIG mode, or will be or was until its reset, and not granted whole; {which}"
    )


def _keeps_mode(device: Device, snapshot: Snapshot) -> bool | None:
    """Whether the GPU of a MIG device is in MIG mode, after its next reset too; None: not known."""
    gpu = None if device.parent is None else snapshot.devices.get(device.parent)
    if gpu is None or gpu.mig_mode is None:
        return None
    return gpu.mig_mode.current and gpu.mig_mode.pending


def why_over(devices: Sequence[GrantedDevice], snapshot: Snapshot) -> str | None:
    """Why a grant of these cannot go on; None: it can, or nothing is known for certain."""
    for one in devices:
        if not is_there(snapshot, one.uuid, one.generation):
            return f"device {one.uuid} has gone, or came back as another"
        device = snapshot.devices.get(one.uuid)
        if device is not None and device.kind is DeviceKind.MIG and _keeps_mode(device, snapshot) is False:
            return f"the GPU of {one.uuid} leaves MIG mode"
    return None


def files(
    devices: Sequence[GrantedDevice], snapshot: Snapshot, capabilities: CapabilityNumbers
) -> tuple[Node, ...]:
    """What lets a slice open these and nothing else. Raises: FilesUnknown: of one of them it is not certain."""
    minors: list[int] = []
    numbers: list[int] = []
    for one in devices:
        device = snapshot.devices.get(one.uuid)
        if device is None or not is_there(snapshot, one.uuid, one.generation):
            raise FilesUnknown(f"device {one.uuid} is not there now")
        if device.minor is None:
            raise FilesUnknown(f"the driver does not tell the file of device {device.index}")
        minors.append(device.minor)
        if device.kind is DeviceKind.MIG:
            numbers += _capabilities(device, device.minor, snapshot, capabilities)
    return gpu_nodes(minors, numbers)


def _capabilities(
    device: Device, gpu_minor: int, snapshot: Snapshot, capabilities: CapabilityNumbers
) -> tuple[int, int]:
    instance, compute = device.gpu_instance_id, device.compute_instance_id
    if instance is None or compute is None or _keeps_mode(device, snapshot) is not True:
        raise FilesUnknown(
            f"of which instance MIG device {device.index} is, and that it stays one, is not told"
        )
    return capabilities.of(gpu_minor=gpu_minor, gpu_instance=instance, compute_instance=compute)
