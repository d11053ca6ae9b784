"""The words of a refusal: what was asked, the limit or the holders, when the first lease ends, the next step. Pure.

Who has what and how to wait for it is said by `allocator.occupancy`.
"""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import TYPE_CHECKING

from allocator import model
from allocator.board import may_be, suits
from allocator.model import (
    Device,
    DeviceKind,
    DeviceState,
    GpuRequest,
    Obstacle,
    Refusal,
    RefusalKind,
)
from allocator.occupancy import class_of, for_label, holders, holders_by_lease, how_to_wait
from allocator.slices import COMPUTE_SLICES
from policy.spoken import duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from allocator.board import Board, Devices
    from allocator.reservations import Window
    from policy.model import DeviceUuid

_NAMED = {DeviceKind.GPU: "GPU", DeviceKind.MIG: "MIG device"}
_TYPING_SECONDS = 60  # until who reads a refusal has asked again


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
            return _over_group(board, want, group.name, (said, str(of_group), str(group.devices)))
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
            return _over_group(
                board, want, group.name, (said, sevenths(of_group), sevenths(group.equivalents))
            )
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


def _over_group(board: Board, want: GpuRequest, name: str, said: tuple[str, str, str]) -> Refusal:
    asked, held, limit = said
    of_group = [lease for lease in board.leases if name in lease.groups]
    return _refusal(
        RefusalKind.GROUP_LIMIT,
        f"{asked} asked, group {name} holds {held} together, its limit is {limit} (rule gpu_limit)",
        holders_by_lease(board, of_group),
        f"ask a member to give one back, {how_to_wait(want)}",
    )


def _refusal(kind: RefusalKind, *parts: str) -> Refusal:
    """Args: parts: of the sentence; empty ones are left out."""
    return Refusal(kind=kind, message="; ".join(filter(None, parts)))


def sevenths(value: Fraction) -> str:
    """An amount of GPUs: whole ones plainly, others in compute slices."""
    slices = value * COMPUTE_SLICES
    if value.denominator == 1 or slices.denominator != 1:
        return str(value)
    return f"{slices}/{COMPUTE_SLICES}"


def too_few(
    board: Board, want: GpuRequest, count: int, *, claimed: Devices, withheld: Mapping[DeviceUuid, Window]
) -> Refusal:
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
    kind, why, step = RefusalKind.IN_USE, "", ""
    if _most_of_one_class(board, want, free - claimed) >= count and withheld:
        kind = RefusalKind.RESERVED
        first = min((withheld[uuid] for uuid in free & withheld.keys()), key=lambda window: window.begin)
        why, step = f"what is free is {_kept(first)}", _end_before(first)
    elif _most_of_one_class(board, want, free) >= count and claimed:
        why = "what is free is for those who are ahead in the queue"
    held = holders(board, usable)
    counts = Counter(board.snapshot.devices[uuid].kind for uuid in free)
    kinds = [one for one in DeviceKind if any(board.snapshot.devices[uuid].kind is one for uuid in usable)]
    said = " and ".join(number(counts[one], _NAMED[one]) for one in kinds)
    return _refusal(
        kind,
        f"{_asked(want, count)} asked, {said} free (rule gpu_lease)",
        *((why, held) if why else (held or _unheld(board, usable),)),
        f"{step}{how_to_wait(want)}",
    )


def _unheld(board: Board, usable: Devices) -> str:
    """Why none of these is free although no lease and no other container has them."""
    unknown = sum(board.snapshot.devices[uuid].pids is None for uuid in usable - board.foreign)
    if not unknown:
        return "the rest is used by processes that hold no lease"
    said = "whether it is" if unknown == 1 else "whether they are"
    return f"of {number(unknown, 'device')} the driver does not say {said} in use"


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


def not_free(board: Board, want: GpuRequest, device: Device) -> Refusal:
    """A device that is broken, held or in use."""
    if device.state is not DeviceState.OK:
        return _not_usable(board, device)
    lease = board.holders.get(device.uuid)
    if lease is not None:
        left = None if board.now is None else lease.seconds_left(board.now)
        over = "" if left is None else f", for {duration(left)} more" if left > 0 else " and is overdue"
        return _in_use(want, device, f"held by {lease.owner_name} since {lease.created.utc}{over}")
    return _in_use(want, device, _used(board, device), _others(board, want, device))


def _used(board: Board, device: Device) -> str:
    match board.obstacle(device):
        case Obstacle.FOREIGN:
            return "used by a container that ds01 did not make"
        case Obstacle.UNATTRIBUTED:
            return "in use by a process that cannot be seen: tell the admin, whom ds01 gpu top tells more"
    if not device.pids:
        return "possibly in use: its processes cannot be read"
    return f"used by process {device.pids[0]}, which holds no lease"


def _others(board: Board, want: GpuRequest, device: Device) -> str:
    """Who has the others of the class, of those that this one may have."""
    found = [one for one in board.snapshot.devices.values() if class_of(one) == class_of(device)]
    usable = {one.uuid for one in found if one.state is DeviceState.OK and may_be(one, want)}
    held = holders(board, frozenset(usable - {device.uuid}))
    return held and f"others of its class are {held}"


def reserved(board: Board, want: GpuRequest, device: Device, window: Window) -> Refusal:
    """A free device that a reservation needs."""
    return _refusal(
        RefusalKind.RESERVED,
        f"{_NAMED[device.kind]} {device.index} is {_kept(window)} (rule gpu_lease)",
        _others(board, want, device),
        f"ask for another device, {_end_before(window)}{how_to_wait(want)}",
    )


def _kept(window: Window) -> str:
    if window.begin <= 0:
        return f"kept for a reservation, for {duration(window.end)} more"
    return f"kept for a reservation that begins in {duration(window.begin)}"


def _end_before(window: Window) -> str:
    """The step of who could be done before a reservation begins; "": it runs, or begins too soon for that."""
    seconds = window.begin - _TYPING_SECONDS
    if seconds < _TYPING_SECONDS:
        return ""
    return f"give the container an end with --label ds01.gpu.time={for_label(seconds)}, "


def waited_for(board: Board, want: GpuRequest, device: Device) -> Refusal:
    """A free device that somebody ahead in the queue could use."""
    return _in_use(want, device, "for those who are ahead in the queue", _others(board, want, device))


def promised_room(board: Board, want: GpuRequest) -> Refusal:
    """Devices that are free, within a limit that a request ahead will need."""
    groups = {group.name for group in want.groups}
    counted = [one for one in board.leases if one.owner_uid == want.owner_uid or groups & set(one.groups)]
    return _refusal(
        RefusalKind.IN_USE,
        f"what {want.owner_name} and the own group may still have is needed by a request ahead in the queue"
        " (rule gpu_limit)",
        holders_by_lease(board, counted),
        how_to_wait(want),
    )


def _in_use(want: GpuRequest, device: Device, why: str, others: str = "") -> Refusal:
    return _refusal(
        RefusalKind.IN_USE,
        f"{_NAMED[device.kind]} {device.index} is {why} (rule gpu_lease)",
        others,
        f"ask for another device, {how_to_wait(want)}",
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
