"""A machine of A100-40 GPUs in memory, behind the allocator's `Inventory` port."""

from __future__ import annotations

from dataclasses import replace

from allocator.kernel_log import LoggedXid, parse_address
from allocator.model import Device, DeviceKind, DeviceState, InventoryUnavailable, Problem, Snapshot
from allocator.readings import GpuProcess, XidEvent
from policy.model import DeviceUuid

# profile: (memory MiB, slices)
A100_40 = {"1g.5gb": 4864, "2g.10gb": 9856, "3g.20gb": 19968, "4g.20gb": 19968, "7g.40gb": 40192}


def _changed(base: Device, changes: dict[str, object]) -> Device:
    """With fields by name; `pids` stands for processes of which nothing else is known."""
    if "pids" in changes:
        pids: tuple[int, ...] | None = changes.pop("pids")  # type: ignore[assignment]  # tests pass fields by name
        changes["processes"] = None if pids is None else tuple(GpuProcess(pid=pid) for pid in pids)
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def gpu(number: int, **changes: object) -> Device:
    """A whole A100-40, idle."""
    base = Device(
        uuid=DeviceUuid(f"GPU-{number:08x}-0000-0000-0000-000000000000"),
        kind=DeviceKind.GPU,
        index=str(number),
        profile="NVIDIA A100-SXM4-40GB",
        memory_mib=40960,
        processes=(),
        pci_bus_id=f"00000000:{7 + 8 * number:02X}:00.0",
    )
    return _changed(base, changes)


def logged(device: Device, code: int) -> LoggedXid:
    """What the kernel log has of an error of a GPU, or of the GPU instance of a MIG device."""
    number = int((device.parent or device.uuid).split("-")[1], 16)
    address = parse_address(gpu(number).pci_bus_id or "")
    assert address is not None
    return LoggedXid(
        address=address,
        xid=code,
        gpu_instance_id=device.gpu_instance_id,
        compute_instance_id=device.compute_instance_id,
    )


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
        processes=(),
    )
    return _changed(base, changes)


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
        self.kind = Problem.FAILED
        self._events: list[XidEvent] = []

    async def read(self) -> Snapshot:
        if self.problem is not None:
            raise InventoryUnavailable(self.problem, self.kind)
        events, self._events = tuple(self._events), []
        return replace(self.snapshot, events=events)

    def xid(self, device: Device, code: int) -> None:
        """Report an error with the next reading: of a GPU, or of the GPU instance of a MIG device."""
        event = XidEvent(
            gpu=device.parent or device.uuid,
            xid=code,
            gpu_instance_id=device.gpu_instance_id,
            compute_instance_id=device.compute_instance_id,
        )
        self._events.append(event)

    def put(self, device: Device) -> None:
        """Add or replace a device."""
        self.snapshot = Snapshot(devices={**self.snapshot.devices, device.uuid: device})

    def take(self, uuid: DeviceUuid) -> None:
        """Make a device vanish."""
        self.snapshot = snapshot(*(item for item in self.snapshot.devices.values() if item.uuid != uuid))
