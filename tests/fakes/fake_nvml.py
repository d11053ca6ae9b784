"""A machine of A100-40 GPUs in memory, behind the allocator's `Inventory` port."""

from __future__ import annotations

from dataclasses import replace

from allocator.model import Device, DeviceKind, DeviceState, InventoryUnavailable, Snapshot
from policy.model import DeviceUuid

# profile: (memory MiB, slices)
A100_40 = {"1g.5gb": 4864, "2g.10gb": 9856, "3g.20gb": 19968, "4g.20gb": 19968, "7g.40gb": 40192}


def gpu(number: int, **changes: object) -> Device:
    """A whole A100-40, idle."""
    base = Device(
        uuid=DeviceUuid(f"GPU-{number:08x}-0000-0000-0000-000000000000"),
        kind=DeviceKind.GPU,
        index=str(number),
        profile="NVIDIA A100-SXM4-40GB",
        memory_mib=40960,
        pids=(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def mig(parent: int, place: int, profile: str = "1g.5gb", **changes: object) -> Device:
    """One MIG device of GPU `parent`, idle."""
    base = Device(
        uuid=DeviceUuid(f"MIG-{parent:08x}-{place:04x}-5000-0000-000000000000"),
        kind=DeviceKind.MIG,
        index=f"{parent}:{place}",
        parent=gpu(parent).uuid,
        profile=profile,
        memory_mib=A100_40[profile],
        gpu_instance_id=7 + place,
        compute_instance_id=0,
        pids=(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def split(number: int, *profiles: str) -> tuple[Device, ...]:
    """A GPU in MIG mode and its devices."""
    parts = (mig(number, place, profile) for place, profile in enumerate(profiles))
    return (gpu(number, state=DeviceState.UNUSABLE), *parts)


def snapshot(*devices: Device) -> Snapshot:
    """These devices, by UUID."""
    return Snapshot(devices={device.uuid: device for device in devices})


class FakeNvml:
    """An inventory whose devices tests change, and which fails on demand."""

    def __init__(self, *devices: Device) -> None:
        self.snapshot = snapshot(*devices)
        self.problem: str | None = None

    async def read(self) -> Snapshot:
        if self.problem is not None:
            raise InventoryUnavailable(self.problem)
        return self.snapshot

    def put(self, device: Device) -> None:
        """Add or replace a device."""
        self.snapshot = Snapshot(devices={**self.snapshot.devices, device.uuid: device})

    def take(self, uuid: DeviceUuid) -> None:
        """Make a device vanish."""
        self.snapshot = snapshot(*(item for item in self.snapshot.devices.values() if item.uuid != uuid))
