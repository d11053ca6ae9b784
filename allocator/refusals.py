"""The words of a refusal: what was asked, the limit or the holders, when the first lease ends, the next step. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from allocator import model
from allocator.board import suits
from allocator.model import (
    Device,
    DeviceKind,
    DeviceState,
    GpuRequest,
    Lease,
    Obstacle,
    Refusal,
    RefusalKind,
)
from allocator.slices import COMPUTE_SLICES
from policy.spoken import duration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.board import Board, Devices

_NAMED = {DeviceKind.GPU: "GPU", DeviceKind.MIG: "MIG device"}
_HOLDERS_TOLD = 8
_QUEUE = "see ds01 gpu queue, or wait with --label ds01.wait=30m"


def over_devices(board: Board, want: GpuRequest, asked: int) -> Refusal | None:
    """Whether `asked` more devices pass the limit of the owner or of a group."""
    said = number(asked, "GPU")
    held, _ = board.held_by_owner(want)
    if asked > want.limit:
        return _over_alone(said, str(want.limit), "ask for fewer")
    if held + asked > want.limit:
        return _over_own(want, said, str(held), str(want.limit), "ask for fewer")
    for group in want.groups:
        if group.devices is None:
            continue
        if asked > group.devices:
            return _over_alone(said, str(group.devices), "ask for fewer", group=group.name)
        of_group, _ = board.held_by_group(group.name)
        if of_group + asked > group.devices:
            return _over_group(group.name, said, str(of_group), str(group.devices))
    return None


def over_equivalents(board: Board, want: GpuRequest, asked: Fraction) -> Refusal | None:
    """Whether devices worth `asked` whole GPUs pass the limit of the owner or of a group."""
    said, step = f"{sevenths(asked)} of a GPU", "ask for a smaller MIG profile"
    _, held = board.held_by_owner(want)
    if want.equivalents is not None:
        if asked > want.equivalents:
            return _over_alone(said, sevenths(want.equivalents), step)
        if held + asked > want.equivalents:
            return _over_own(want, said, sevenths(held), sevenths(want.equivalents), step)
    for group in want.groups:
        if group.equivalents is None:
            continue
        if asked > group.equivalents:
            return _over_alone(said, sevenths(group.equivalents), step, group=group.name)
        _, of_group = board.held_by_group(group.name)
        if of_group + asked > group.equivalents:
            return _over_group(group.name, said, sevenths(of_group), sevenths(group.equivalents))
    return None


def _over_alone(asked: str, limit: str, step: str, *, group: str | None = None) -> Refusal:
    """More than the limit, whatever is held: nothing that comes back helps."""
    of_group = "" if group is None else f" for group {group} together"
    return Refusal(
        kind=RefusalKind.LIMIT, message=f"{asked} asked, limit is {limit}{of_group} (rule gpu_limit); {step}"
    )


def _over_own(want: GpuRequest, asked: str, held: str, limit: str, step: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.LIMIT,
        message=(
            f"{asked} asked, {want.owner_name} holds {held}, limit is {limit} (rule gpu_limit); {step}, or remove a"
            " container that holds one"
        ),
    )


def _over_group(name: str, asked: str, held: str, limit: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.GROUP_LIMIT,
        message=(
            f"{asked} asked, group {name} holds {held} together, its limit is {limit} (rule gpu_limit);"
            f" ask a member to give one back, {_QUEUE}"
        ),
    )


def sevenths(value: Fraction) -> str:
    """An amount of GPUs: whole ones plainly, others in compute slices."""
    slices = value * COMPUTE_SLICES
    if value.denominator == 1 or slices.denominator != 1:
        return str(value)
    return f"{slices}/{COMPUTE_SLICES}"


def too_few(board: Board, want: GpuRequest, count: int, *, claimed: Devices, withheld: Devices) -> Refusal:
    """Why no class has as many devices as a count asks for: never, not now, or not for this one."""
    usable = board.usable(want)
    total = _most_of_one_class(board, want, usable)
    if total < count:
        return Refusal(
            kind=RefusalKind.TOO_FEW,
            message=(
                f"{_asked(want, count)} asked, this server has {total} of one kind that you may lease"
                f" ({given(want)}){_out_of_service(board, want)} (rule gpu_lease);"
                " ask for fewer, or name devices with --gpus '\"device=...\"'"
            ),
        )
    free = usable & board.free
    kind = RefusalKind.IN_USE
    if _most_of_one_class(board, want, free - claimed) >= count and withheld:
        kind, why = RefusalKind.RESERVED, "what is free is kept for a reservation"
    elif _most_of_one_class(board, want, free) >= count and claimed:
        why = "what is free is for those who are ahead in the queue"
    else:
        why = _holders(board, usable)
    counts = Counter(board.snapshot.devices[uuid].kind for uuid in free)
    kinds = [one for one in DeviceKind if any(board.snapshot.devices[uuid].kind is one for uuid in usable)]
    said = " and ".join(number(counts[one], _NAMED[one]) for one in kinds)
    return Refusal(
        kind=kind, message=f"{_asked(want, count)} asked, {said} free (rule gpu_lease); {why}; {_QUEUE}"
    )


def _out_of_service(board: Board, want: GpuRequest) -> str:
    """What would do and does not answer, or has errors: it is not gone for ever, and not nothing."""
    count = sum(_is_out(one) and suits(one, want) for one in board.snapshot.devices.values())
    if not count:
        return ""
    return f", {number(count, 'device')} {'is' if count == 1 else 'are'} out of service: tell the admin"


def _is_out(device: Device) -> bool:
    """Whether it would be leased if nothing were the matter with it; a GPU in MIG mode never is."""
    mode = device.mig_mode
    split = mode is not None and (mode.current or mode.pending)
    return device.state not in (DeviceState.OK, DeviceState.UNUSABLE) and not split


def _most_of_one_class(board: Board, want: GpuRequest, devices: Devices) -> int:
    return max((len(tier & devices) for tier in board.tiers(want)), default=0)


def _asked(want: GpuRequest, count: int) -> str:
    size = "" if want.memory_mib is None else f" of at least {want.memory_mib} MiB"
    match want.profile:
        case None:
            return number(count, "GPU") + size
        case model.ANY:
            return number(count, "device") + size
        case model.FULL:
            return number(count, "whole GPU") + size
        case profile:
            return f"{number(count, 'MIG device')} {profile}{size}"


def _holders(board: Board, usable: Devices) -> str:
    """Who holds what of which class, and when the first of it comes back for certain."""
    held: dict[str, Counter[str]] = defaultdict(Counter)
    leases: dict[str, Lease] = {}
    for uuid in sorted(usable):
        if (lease := board.holders.get(uuid)) is not None:
            device = board.snapshot.devices[uuid]
            held[lease.owner_name][class_of(device)] += 1
            leases[lease.id] = lease
    foreign = _foreign(board, usable)
    if not held:
        unknown = sum(board.snapshot.devices[uuid].pids is None for uuid in usable - board.foreign)
        if unknown:
            said = "whether it is" if unknown == 1 else "whether they are"
            unsaid = f"of {number(unknown, 'device')} the driver does not say {said} in use"
            return "; ".join(filter(None, [foreign, unsaid]))
        return foreign or "the rest is used by processes that hold no lease"
    told = [f"{name} ({_classes(counts)})" for name, counts in sorted(held.items())]
    more = [f"{len(told) - _HOLDERS_TOLD} more"] if len(told) > _HOLDERS_TOLD else []
    said = f"held by {', '.join([*told[:_HOLDERS_TOLD], *more])}"
    return "; ".join(filter(None, [said, foreign, _first_end(board, list(leases.values()))]))


def _foreign(board: Board, usable: Devices) -> str:
    others = len((usable & board.foreign) - board.holders.keys())
    return f"{others} used by containers that ds01 did not make" if others else ""


def _classes(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def class_of(device: Device) -> str:
    """How a device's class is said: GPU, or the MIG profile."""
    return "GPU" if device.kind is DeviceKind.GPU else device.profile


def _first_end(board: Board, leases: Sequence[Lease]) -> str:
    now = board.now
    if now is None:
        return "ends are not known"
    left = [seconds for lease in leases if (seconds := lease.seconds_left(now)) is not None]
    if not left:
        return "none of it has a time limit"
    seconds = max(0.0, min(left))
    at = now.when() + timedelta(seconds=seconds)
    return f"the earliest ends in {duration(seconds)} ({at:%Y-%m-%d %H:%M} UTC)"


# --- named devices ------------------------------------------------------------------------------------------


def ambiguous(text: str, devices: int) -> Refusal:
    """A prefix of several UUIDs."""
    return Refusal(
        kind=RefusalKind.AMBIGUOUS_DEVICE,
        message=f"{text} names {devices} devices (rule gpu_lease); give the whole UUID",
    )


def unknown(text: str, indices: Sequence[str]) -> Refusal:
    """A name of no device."""
    known = ", ".join(indices) or "none"
    return Refusal(
        kind=RefusalKind.UNKNOWN_DEVICE,
        message=f"no device is called {text[:80]!r}, there are {known} (rule gpu_lease); name one of these or its UUID",
    )


def not_allowed(device: Device, want: GpuRequest) -> Refusal:
    """A class that policy does not give, or a device larger than the limit."""
    return Refusal(
        kind=RefusalKind.NOT_ALLOWED,
        message=(
            f"{_NAMED[device.kind]} {device.index} is a {class_of(device)}, you may have {given(want)}"
            " (rule gpu_limit); ask for one of these"
        ),
    )


def given(want: GpuRequest) -> str:
    """The classes that policy gives the owner, and how large they may be."""
    limit = "" if want.equivalents is None else f", at most {sevenths(want.equivalents)} of a GPU"
    return (", ".join(want.classes) or "none") + limit


def not_free(board: Board, device: Device) -> Refusal:
    """A device that is broken, held or in use."""
    if device.state is not DeviceState.OK:
        return _not_usable(board, device)
    lease = board.holders.get(device.uuid)
    if lease is not None:
        left = None if board.now is None else lease.seconds_left(board.now)
        end = "" if left is None else f", for {duration(max(0.0, left))} more"
        return _in_use(device, f"held by {lease.owner_name} since {lease.created.utc}{end}")
    match board.obstacle(device):
        case Obstacle.FOREIGN:
            return _in_use(device, "used by a container that ds01 did not make")
        case Obstacle.UNATTRIBUTED:
            return _in_use(
                device,
                "in use by a process that cannot be seen: tell the admin, whom ds01 gpu top tells more",
            )
    if not device.pids:
        return _in_use(device, "possibly in use: its processes cannot be read")
    return _in_use(device, f"used by process {device.pids[0]}, which holds no lease")


def reserved(device: Device) -> Refusal:
    """A free device that a reservation needs."""
    return Refusal(
        kind=RefusalKind.RESERVED,
        message=(
            f"{_NAMED[device.kind]} {device.index} is kept for a reservation (rule gpu_lease);"
            f" ask for another device, give the container an end with --label ds01.gpu.time=1h, {_QUEUE}"
        ),
    )


def waited_for(device: Device) -> Refusal:
    """A free device that somebody ahead in the queue could use."""
    return _in_use(device, "for those who are ahead in the queue")


def promised_room(want: GpuRequest) -> Refusal:
    """Devices that are free, within a limit that a request ahead will need."""
    return Refusal(
        kind=RefusalKind.IN_USE,
        message=(
            f"what {want.owner_name} and the own group may still have is needed by a request ahead in the queue"
            f" (rule gpu_limit); {_QUEUE}"
        ),
    )


def _in_use(device: Device, why: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.IN_USE,
        message=f"{_NAMED[device.kind]} {device.index} is {why} (rule gpu_lease); ask for another device, {_QUEUE}",
    )


def _not_usable(board: Board, device: Device) -> Refusal:
    devices = board.snapshot.devices.values()
    parts = [other.index for other in devices if other.parent == device.uuid]
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


def number(count: int, noun: str) -> str:
    """A count with its noun."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
