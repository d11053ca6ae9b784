"""How much of a GPU a device is, and which part: compute slices, GPU-equivalents, memory slices. Pure.

A GPU has 7 compute slices and 8 memory slices. SOURCE: NVIDIA MIG user guide.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING

from allocator.model import DeviceKind

if TYPE_CHECKING:
    from allocator.model import Device

COMPUTE_SLICES = 7
MEMORY_SLICES = 8
_PROFILE = re.compile(r"(?:([1-7])c\.)?([1-7])g\.[0-9]{1,3}gb(?:\+[a-z0-9.]+)?", re.ASCII)


@lru_cache(maxsize=256)
def compute_slices(profile: str) -> int | None:
    """Of a MIG profile, "2g.10gb" or "1c.2g.10gb"; None when it cannot be read."""
    found = _PROFILE.fullmatch(profile)
    return int(found[1] or found[2]) if found else None


@lru_cache(maxsize=256)
def _equivalents(profile: str) -> Fraction:
    slices = compute_slices(profile)
    return Fraction(1) if slices is None else Fraction(slices, COMPUTE_SLICES)


def equivalents(device: Device) -> Fraction:
    """What a device is of a whole GPU. An unreadable profile counts as all of one: unknown is never little."""
    return Fraction(1) if device.kind is DeviceKind.GPU else _equivalents(device.profile)


def memory_span(device: Device) -> range | None:
    """The memory slices of a MIG device; None when it is not known.

    As the driver says, or by its id: GPU instance ids are the nodes of a tree: 0 is all, 1 and 2 the halves, 3 to 6 the quarters, 7 to 14 the eighths.
    SOURCE: MIG user guide. Where a driver numbers otherwise, only the packing is worse.
    """
    if device.placement is not None:
        return range(device.placement.start, device.placement.start + device.placement.size)
    number = device.gpu_instance_id
    if device.kind is not DeviceKind.MIG or number is None or not 0 <= number <= 14:
        return None
    depth = (number + 1).bit_length() - 1
    size = MEMORY_SLICES >> depth
    start = (number + 1 - (1 << depth)) * size
    return range(start, start + size)


def halves(device: Device) -> frozenset[int]:
    """Which halves of its GPU a device touches: 0 has the slices 0 to 3, where alone a 4g fits, 1 the others."""
    span = memory_span(device)
    half = MEMORY_SLICES // 2
    return frozenset({0, 1}) if span is None else frozenset({span[0] // half, span[-1] // half})
