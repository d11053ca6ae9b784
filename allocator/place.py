"""Which devices for one request: pure, and exact about why not (`allocator.refusals` has the words).

A count takes one class after the other as policy prefers them; a size, or "any", takes the smallest that will do.
Among equal MIG devices those go first that leave most whole: a GPU that is shared already, a half of it that is broken
already, the upper half, since the lower alone takes a 4g. Of whole GPUs one takes the farthest from the others, and
several the nearest to each other.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import combinations
from math import comb
from types import MappingProxyType
from typing import TYPE_CHECKING

from allocator import refusals
from allocator.board import may_be
from allocator.model import Device, DeviceKind, Link, Placement, Refusal
from allocator.slices import equivalents, halves

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from allocator.board import Board, Devices
    from allocator.model import GpuRequest, Snapshot
    from allocator.reservations import Window
    from policy.model import DeviceUuid

_PREFIX_MIN = 8  # "GPU-" and four hex digits
_MOST_SETS = 500  # all sets of GPUs are compared up to here; beyond, sets are grown from each GPU
_NONE: Devices = frozenset()
_NOTHING_KEPT: Mapping[DeviceUuid, Window] = MappingProxyType({})


def place(
    board: Board,
    want: GpuRequest,
    *,
    claimed: Devices = _NONE,
    withheld: Mapping[DeviceUuid, Window] = _NOTHING_KEPT,
) -> Placement | Refusal:
    """Choose devices for one request; change nothing.

    Args:
        claimed: what somebody further ahead in the queue could use.
        withheld: what reservations keep from this request, each with the first that it is kept for.
    Returns: exactly `want.count` distinct UUIDs, or exactly the devices that were named; else a Refusal.
    """
    if want.count is not None:
        over = refusals.over_devices(board, want, want.count)
        return over or _by_count(board, want, want.count, claimed, withheld)
    chosen = _named(board.snapshot, want)
    if isinstance(chosen, Refusal):
        return chosen
    return (
        refusals.over_devices(board, want, len(chosen))
        or _obstacle(board, want, chosen, claimed, withheld)
        or refusals.over_equivalents(board, want, _sum(chosen))
        or _placed(chosen)
    )


def hopeless(board: Board, want: GpuRequest) -> Refusal | None:
    """Why a request would get nothing even if everybody gave everything back; None: it would get its devices.

    The words name no owner: they are the same for all who ask for the same.
    """
    asked = (want.count, want.device_ids, want.profile, want.memory_mib, want.classes)
    key = (*asked, want.limit, want.equivalents, want.groups)
    if key not in board.hopeless:
        outcome = place(board.emptied, want)
        board.hopeless[key] = outcome if isinstance(outcome, Refusal) else None
    return board.hopeless[key]


def over_limits(board: Board, want: GpuRequest, count: int) -> Refusal | None:
    """Whether even the smallest of so many devices would pass a limit, of the owner or of a group."""
    return refusals.over_devices(board, want, count) or _over_at_best(board, want, count)


def could_use(board: Board, want: GpuRequest) -> Devices:
    """Every device of which a request might take some once others are given back."""
    if want.count is not None:
        return board.usable(want)
    chosen = _named(board.snapshot, want)
    if isinstance(chosen, Refusal):
        return _NONE
    return frozenset(device.uuid for device in chosen)


def in_order(board: Board, devices: Collection[DeviceUuid]) -> list[Device]:
    """MIG devices and GPUs in the order in which one of them would be taken, smallest first."""
    found = [board.snapshot.devices[uuid] for uuid in devices]
    left: dict[DeviceUuid | None, int] = {}
    for uuid in board.free:
        parent = board.snapshot.devices[uuid].parent
        left[parent] = left.get(parent, 0) + 1
    return sorted(found, key=lambda device: _rank(board, device, left))


def _rank(board: Board, device: Device, left: dict[DeviceUuid | None, int]) -> tuple[object, ...]:
    taken = board.taken_halves.get(device.parent, frozenset()) if device.parent else frozenset()
    own = halves(device)
    return (
        (device.memory_mib is None, equivalents(device), device.memory_mib or 0),
        not taken,
        not own & taken,
        left.get(device.parent, 0) if device.parent else 0,
        0 in own,
        order(device),
        device.uuid,
    )


def order(device: Device) -> tuple[int, ...]:
    """By index, as numbers."""
    return tuple(int(part) for part in device.index.split(":"))


# --- by number ----------------------------------------------------------------------------------------------


def _by_count(
    board: Board, want: GpuRequest, count: int, claimed: Devices, withheld: Mapping[DeviceUuid, Window]
) -> Placement | Refusal:
    open_to = board.free - claimed - withheld.keys()
    for tier in board.tiers(want):
        if len(able := tier & open_to) < count:
            continue
        ordered = in_order(board, able)
        for chosen in (_best(board, ordered, count), _smallest(ordered, count)):
            if refusals.over_equivalents(board, want, _sum(chosen)) is None:
                return _placed(chosen)
    return _over_at_best(board, want, count) or refusals.too_few(
        board, want, count, claimed=claimed, withheld=withheld
    )


def _over_at_best(board: Board, want: GpuRequest, count: int) -> Refusal | None:
    """Why even the smallest devices of the server would pass a limit; None: they would not, or there are too few."""
    over: Refusal | None = None
    for worth in board.smallest(want, count):
        over = refusals.over_equivalents(board, want, worth)
        if over is None:
            return None
    return over


def _best(board: Board, tier: Sequence[Device], count: int) -> list[Device]:
    links = board.snapshot.links
    if tier[0].kind is DeviceKind.MIG or not links:
        return list(tier[:count])  # MIG devices do not reach each other
    if count == 1:
        return [max(tier, key=lambda one: sum(_link(board, one, other) for other in tier))]
    if comb(len(tier), count) <= _MOST_SETS:
        return list(min(combinations(tier, count), key=lambda some: _spread(board, some)))
    return min((_grown(board, tier, seed, count) for seed in tier), key=lambda some: _spread(board, some))


def _grown(board: Board, tier: Sequence[Device], seed: Device, count: int) -> list[Device]:
    """A near set that begins with one GPU."""
    grown = [seed]
    while len(grown) < count:
        rest = [device for device in tier if device not in grown]
        grown.append(min(rest, key=lambda one: sum(_link(board, one, other) for other in grown)))
    return grown


def _spread(board: Board, devices: Iterable[Device]) -> int:
    return sum(_link(board, one, other) for one, other in combinations(devices, 2))


def _link(board: Board, one: Device, other: Device) -> int:
    if one is other or board.snapshot.links is None:
        return 0
    pair = (one.uuid, other.uuid) if one.uuid < other.uuid else (other.uuid, one.uuid)
    return board.snapshot.links.get(pair, Link.SYSTEM)


def _smallest(tier: Sequence[Device], count: int) -> list[Device]:
    return sorted(tier, key=equivalents)[:count]


def _sum(devices: Collection[Device]) -> Fraction:
    return sum(map(equivalents, devices), Fraction(0))


def _placed(devices: Collection[Device]) -> Placement:
    return Placement(devices=tuple(sorted(device.uuid for device in devices)), equivalents=_sum(devices))


# --- by name ------------------------------------------------------------------------------------------------


def _named(snapshot: Snapshot, want: GpuRequest) -> list[Device] | Refusal:
    """The devices a user named, each once."""
    found: dict[DeviceUuid, Device] = {}
    for text in want.device_ids:
        device = find(snapshot, text)
        if isinstance(device, Refusal):
            return device
        found[device.uuid] = device
    return list(found.values())


def find(snapshot: Snapshot, text: str) -> Device | Refusal:
    """The one device that goes by this name: index, UUID, a beginning of it, or the MIG form of drivers before 470."""
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
        return refusals.ambiguous(text, len(near))
    return refusals.unknown(text, [device.index for device in sorted(snapshot.devices.values(), key=order)])


def _spellings(device: Device) -> tuple[str, ...]:
    """Full names in folded case: index, UUID, and the MIG form of drivers before 470."""
    legacy = f"MIG-{device.parent}/{device.gpu_instance_id}/{device.compute_instance_id}"
    return (device.index, device.uuid.casefold(), legacy.casefold())


def _obstacle(
    board: Board,
    want: GpuRequest,
    chosen: Collection[Device],
    claimed: Devices,
    withheld: Mapping[DeviceUuid, Window],
) -> Refusal | None:
    """Why a named device cannot be had; what waiting cannot cure is said first."""
    found: list[Refusal] = []
    for device in chosen:
        if not may_be(device, want):
            found.append(refusals.not_allowed(device, want))
        elif device.uuid not in board.free:
            found.append(refusals.not_free(board, want, device))
        elif device.uuid in withheld:
            found.append(refusals.reserved(board, want, device, withheld[device.uuid]))
        elif device.uuid in claimed:
            found.append(refusals.waited_for(board, want, device))
    return min(found, key=lambda refusal: refusal.waiting_helps, default=None)
