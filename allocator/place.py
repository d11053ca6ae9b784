"""Which devices for one request: pure, and exact about why not.

A device is free only if it is known to be: state ok, no live lease on it, its parent or its children, and a
process list that was read and is empty. A plain count takes whole GPUs if enough are free, else MIG devices
(`GpuRequest.kinds`), filling GPUs that are already shared first, so that the others stay whole.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from allocator.model import Device, DeviceKind, DeviceState, Placement, Refusal, RefusalKind

if TYPE_CHECKING:
    from collections.abc import Collection

    from allocator.model import GpuRequest, Lease, Snapshot
    from policy.model import DeviceUuid

_PREFIX_MIN = 8  # "GPU-" and four hex digits
_NAMED = {DeviceKind.GPU: "GPU", DeviceKind.MIG: "MIG device"}


def place(snapshot: Snapshot, leases: Collection[Lease], want: GpuRequest) -> Placement | Refusal:
    """Choose devices for one request; change nothing.

    Args: leases: the live ones, at most one per device.
    Returns: exactly `want.count` distinct UUIDs, or exactly the devices that were named; else a Refusal.
    """
    chosen = _choose_count(snapshot, leases, want, want.count) if want.count else _named(snapshot, want)
    if isinstance(chosen, Refusal):
        return chosen
    over = _over_limit(leases, want, len(chosen))
    if over is not None:
        return over
    blocked = [_obstacle(device, snapshot, leases) for device in chosen]
    refusals = [item for item in blocked if item is not None]
    # What waiting cannot cure is said first.
    for refusal in sorted(refusals, key=lambda item: item.waiting_helps):
        return refusal
    return Placement(devices=tuple(sorted(device.uuid for device in chosen)))


def is_free(device: Device, snapshot: Snapshot, leases: Collection[Lease]) -> bool:
    """Whether nobody holds or uses the device, as far as is known for certain."""
    return _obstacle(device, snapshot, leases) is None


def _over_limit(leases: Collection[Lease], want: GpuRequest, asked: int) -> Refusal | None:
    held = sum(len(lease.devices) for lease in leases if lease.owner_uid == want.owner_uid)
    if held + asked <= want.limit:
        return None
    return Refusal(
        kind=RefusalKind.LIMIT,
        message=(
            f"{_number(asked, 'GPU')} asked, {want.owner_name} holds {held}, limit is {want.limit}"
            " (rule gpu_limit); ask for fewer, or remove a container that holds one"
        ),
    )


def _choose_count(
    snapshot: Snapshot, leases: Collection[Lease], want: GpuRequest, count: int
) -> list[Device] | Refusal:
    """Free devices of one kind, best first; if no kind has enough, the refusal for the count."""
    over = _over_limit(leases, want, count)
    if over is not None:
        return over
    usable = [device for device in snapshot.devices.values() if device.state is DeviceState.OK]
    free = [device for device in usable if is_free(device, snapshot, leases)]
    for kind in want.kinds:
        candidates = [device for device in free if device.kind is kind]
        if len(candidates) >= count:
            return _packed(candidates, leases, snapshot)[:count]
    return _too_few(usable, free, leases, want, count)


def _packed(candidates: list[Device], leases: Collection[Lease], snapshot: Snapshot) -> list[Device]:
    """Order by: parent already shared, fewest free left on it, smallest, then index."""
    left = Counter(device.parent for device in candidates)
    shared = {
        snapshot.devices[uuid].parent
        for lease in leases
        for uuid in lease.devices
        if uuid in snapshot.devices
    }

    def key(device: Device) -> tuple[bool, int, float, tuple[int, ...], str]:
        memory = float("inf") if device.memory_mib is None else device.memory_mib
        if device.kind is DeviceKind.GPU:
            return (False, 0, 0, _order(device), device.uuid)
        return (device.parent not in shared, left[device.parent], memory, _order(device), device.uuid)

    return sorted(candidates, key=key)


def _order(device: Device) -> tuple[int, ...]:
    return tuple(int(part) for part in device.index.split(":"))


def _too_few(
    usable: list[Device], free: list[Device], leases: Collection[Lease], want: GpuRequest, count: int
) -> Refusal:
    total = max((sum(device.kind is kind for device in usable) for kind in want.kinds), default=0)
    if total < count:
        return Refusal(
            kind=RefusalKind.TOO_FEW,
            message=(
                f"{_number(count, 'GPU')} asked, this server has {total} of one kind to lease (rule gpu_lease);"
                " ask for fewer, or name devices with --gpus '\"device=...\"'"
            ),
        )
    counts = Counter(device.kind for device in free)
    said = " and ".join(f"{_number(counts[kind], _NAMED[kind])}" for kind in want.kinds)
    return Refusal(
        kind=RefusalKind.IN_USE,
        message=(
            f"{_number(count, 'GPU')} asked, {said} free (rule gpu_lease); {_holders(leases)}"
            " wait for one to end, or ask its holder"
        ),
    )


def _holders(leases: Collection[Lease]) -> str:
    held = Counter[str]()
    for lease in leases:
        held[lease.owner_name] += len(lease.devices)
    if not held:
        return "the rest is used by processes that hold no lease;"
    return "held by " + ", ".join(f"{name} ({number})" for name, number in sorted(held.items())) + ";"


def _named(snapshot: Snapshot, want: GpuRequest) -> list[Device] | Refusal:
    """The devices a user named, each once."""
    found: dict[DeviceUuid, Device] = {}
    for text in want.device_ids:
        device = _find(snapshot, text)
        if isinstance(device, Refusal):
            return device
        found[device.uuid] = device
    return list(found.values())


def _find(snapshot: Snapshot, text: str) -> Device | Refusal:
    asked = text.casefold()
    exact = [device for device in snapshot.devices.values() if asked in _spellings(device)]
    if len(exact) == 1:
        return exact[0]
    near = exact or [
        device
        for device in snapshot.devices.values()
        if len(asked) >= _PREFIX_MIN and device.uuid.casefold().startswith(asked)
    ]
    if len(near) == 1:
        return near[0]
    if near:
        return Refusal(
            kind=RefusalKind.AMBIGUOUS_DEVICE,
            message=f"{text} names {len(near)} devices (rule gpu_lease); give the whole UUID",
        )
    known = ", ".join(device.index for device in sorted(snapshot.devices.values(), key=_order)) or "none"
    return Refusal(
        kind=RefusalKind.UNKNOWN_DEVICE,
        message=f"no device is called {text[:80]!r}, there are {known} (rule gpu_lease); name one of these or its UUID",
    )


def _spellings(device: Device) -> tuple[str, ...]:
    """Full names in folded case: index, UUID, and the MIG form of drivers before 470."""
    legacy = f"MIG-{device.parent}/{device.gpu_instance_id}/{device.compute_instance_id}"
    return (device.index, device.uuid.casefold(), legacy.casefold())


def _obstacle(device: Device, snapshot: Snapshot, leases: Collection[Lease]) -> Refusal | None:
    """Why the device is not free; None when it is."""
    if device.state is not DeviceState.OK:
        return _not_usable(device, snapshot)
    for lease in leases:
        if any(_overlaps(device, uuid, snapshot) for uuid in lease.devices):
            return _in_use(device, f"held by {lease.owner_name} since {lease.created.utc}")
    if device.pids is None:
        return _in_use(device, "possibly in use: its processes cannot be read")
    if device.pids:
        return _in_use(device, f"used by process {device.pids[0]}, which holds no lease")
    return None


def _overlaps(device: Device, held: DeviceUuid, snapshot: Snapshot) -> bool:
    """Whether a lease on `held` reaches this device: itself, its parent, or a part of it."""
    other = snapshot.devices.get(held)
    return held in (device.uuid, device.parent) or (other is not None and other.parent == device.uuid)


def _in_use(device: Device, why: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.IN_USE,
        message=f"{_NAMED[device.kind]} {device.index} is {why} (rule gpu_lease); wait, or ask for another device",
    )


def _not_usable(device: Device, snapshot: Snapshot) -> Refusal:
    parts = [other.index for other in snapshot.devices.values() if other.parent == device.uuid]
    if parts:
        why, step = "is split into MIG devices", f"ask for one of {', '.join(sorted(parts))}"
    elif device.state is DeviceState.UNUSABLE:
        why, step = (
            "is in MIG mode without MIG devices",
            "ask for another device, or ask the admin to make some",
        )
    else:
        why, step = f"is {device.state}", "ask for another device, and tell the admin"
    return Refusal(
        kind=RefusalKind.NOT_USABLE,
        message=f"{_NAMED[device.kind]} {device.index} {why} (rule gpu_lease); {step}",
    )


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
