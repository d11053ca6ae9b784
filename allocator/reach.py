"""What a container can open of GPUs beside the devices of its lease as they are now. Pure.

A grant of a MIG device carries the file of its GPU, /dev/nvidiaN. While the GPU is split, that file opens nothing alone; once it is
whole again, it opens all of it. So a lease on a part that has gone counts against the GPU, until its container cannot run any more.
The other parts of a GPU that is still split are out of reach: each wants two capabilities, whose numbers follow the place, and what
is made anew at the same place has the UUID that the lease holds.
SOURCE: NVIDIA's MIG user guide, device nodes and capabilities; ADR 0022.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator.model import DeviceKind

if TYPE_CHECKING:
    from allocator.model import Lease, Snapshot
    from policy.model import DeviceUuid


def left_with(lease: Lease, snapshot: Snapshot) -> frozenset[DeviceUuid]:
    """The GPUs whose file the container of a lease was handed with a part that is not there any more.

    Where nobody wrote down of which GPU the part was, every one: unknown is never free.
    """
    gpus = lease.gpus or (None,) * len(lease.devices)
    pairs = zip(lease.devices, gpus, strict=True)
    gone = {gpu for uuid, gpu in pairs if uuid not in snapshot.devices and gpu != uuid}
    if None not in gone:
        return frozenset(gpu for gpu in gone if gpu is not None)
    return frozenset(uuid for uuid, device in snapshot.devices.items() if device.kind is DeviceKind.GPU)
