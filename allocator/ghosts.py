"""Memory that is used with no process to be seen: a leak of the driver, another pid namespace, a process stuck in it.

Pure. A single look proves nothing: processes come and go between NVML's two answers. Two looks in a row do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from allocator.model import Moment
from policy.model import DeviceUuid

SWEEPS = 2
# Below this it is the driver's own: page tables, ECC. A CUDA context alone takes more than 100 MiB.
FLOOR_MIB = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One device at one sweep.

    used_mib: without what the driver reserves (nvmlDeviceGetMemoryInfo_v2). visible: processes on it that `/proc` shows; for a
    GPU in MIG mode, those on its MIG devices too. None: not known, which is neither a ghost nor none.
    """

    device: DeviceUuid
    used_mib: int | None
    visible: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ghost:
    """Memory of a device that is nobody's to be seen: unattributed."""

    device: DeviceUuid
    used_mib: int
    since: Moment  # the first look at which it was there
    sweeps: int  # in how many looks, at least SWEEPS


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicions:
    """What earlier sweeps leave: devices that had used memory and no process. Begin with an empty one."""

    by_device: Mapping[DeviceUuid, Ghost] = field(default_factory=dict)

    @property
    def ghosts(self) -> tuple[Ghost, ...]:
        """What has lasted long enough to be told, by UUID."""
        told = (one for one in self.by_device.values() if one.sweeps >= SWEEPS)
        return tuple(sorted(told, key=lambda one: one.device))


def suspect(before: Suspicions, looks: Iterable[Look], *, now: Moment) -> Suspicions:
    """Take in one sweep of all devices. One that could not be judged keeps what was thought of it, one that is gone does not."""
    after: dict[DeviceUuid, Ghost] = {}
    for look in looks:
        known = before.by_device.get(look.device)
        if look.used_mib is None or look.visible is None:
            after.update({look.device: known} if known else {})
        elif look.visible == 0 and is_used(look.used_mib):
            after[look.device] = Ghost(
                device=look.device,
                used_mib=look.used_mib,
                since=known.since if known else now,
                sweeps=known.sweeps + 1 if known else 1,
            )
    return Suspicions(by_device=after)


def is_used(used_mib: int | None) -> bool:
    """Whether so much memory is somebody's. What is not known says nothing."""
    return used_mib is not None and used_mib >= FLOOR_MIB
