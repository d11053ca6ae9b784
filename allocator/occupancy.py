"""Who has the devices that somebody asked for, when the first comes back, and how to wait for it: words of `allocator.refusals`. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from allocator.model import Device, DeviceKind
from policy.spoken import duration

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from allocator.board import Board, Devices
    from allocator.model import GpuRequest, Lease

_HOLDERS_TOLD: Final = 8
_ADVISED_SECONDS: Final = 1800  # to wait, where policy lets one wait so long and one did not yet


def holders(board: Board, devices: Devices) -> str:
    """Who holds what of which class of these, and when the first of it comes back for certain; "": nobody does."""
    held = {uuid: board.holders[uuid] for uuid in sorted(devices) if uuid in board.holders}
    leased = _held_by([(board.snapshot.devices[uuid], lease) for uuid, lease in held.items()])
    others = len((devices & board.foreign) - held.keys())
    foreign = f"{others} used by containers that ds01 did not make" if others else ""
    return _and(leased, foreign, first_end(board, held.values()) if held else "")


def holders_by_lease(board: Board, leases: Collection[Lease]) -> str:
    """The same of whatever these leases are on; "": there are none."""
    ids = {lease.id for lease in leases}
    held = [(device, lease) for lease, _, found in board.returning if lease.id in ids for device in found]
    return _and(_held_by(held), first_end(board, leases)) if held else ""


def _held_by(held: Iterable[tuple[Device, Lease]]) -> str:
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for device, lease in held:
        counted[lease.owner_name][class_of(device)] += 1
    told = [f"{name} ({_classes(counts)})" for name, counts in sorted(counted.items())]
    more = [f"{len(told) - _HOLDERS_TOLD} more"] if len(told) > _HOLDERS_TOLD else []
    return f"held by {', '.join([*told[:_HOLDERS_TOLD], *more])}" if told else ""


def _classes(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _and(*said: str) -> str:
    return "; ".join(filter(None, said))


def class_of(device: Device) -> str:
    """How a device's class is said: GPU, or the MIG profile."""
    return "GPU" if device.kind is DeviceKind.GPU else device.profile


def first_end(board: Board, leases: Collection[Lease]) -> str:
    """When the first of these ends. What should have ended is none: its container goes on, and nobody knows how long."""
    now = board.now
    if now is None:
        return "ends are not known"
    left = [seconds for lease in leases if (seconds := lease.seconds_left(now)) is not None]
    seconds = min((one for one in left if one > 0), default=None)
    if seconds is None:
        return "what has a time limit is overdue" if left else "none of it has a time limit"
    at = now.when() + timedelta(seconds=seconds)
    return f"the earliest ends in {duration(seconds)} ({at:%Y-%m-%d %H:%M} UTC)"


def how_to_wait(want: GpuRequest) -> str:
    """The next step of who could wait: where to look, and the label, if policy lets this one wait longer than it did."""
    look, most = "see ds01 gpu queue", want.wait_most_seconds
    if most is None:
        return f"{look}, or wait with the label ds01.wait"
    seconds = most if want.wait_seconds >= _ADVISED_SECONDS else min(most, _ADVISED_SECONDS)
    return (
        look
        if seconds <= want.wait_seconds
        else f"{look}, or wait with --label ds01.wait={for_label(seconds)}"
    )


def for_label(seconds: float) -> str:
    """A time as labels have it, at most so long: 45s, 30m."""
    whole = int(seconds)
    return f"{whole}s" if whole < 120 else f"{whole // 60}m"
