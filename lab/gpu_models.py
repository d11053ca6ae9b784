"""The GPU models that can be simulated, and the MIG profiles they have."""

from __future__ import annotations

from typing import Final, NamedTuple


class Profile(NamedTuple):
    """One MIG profile: real id, compute slices of 7, memory slices of 8, permitted starts, CI profile."""

    id: int
    compute: int
    size: int
    starts: tuple[int, ...]
    ci_profile: int


_NARROW, _WIDE, _HALF = tuple(range(7)), (0, 2, 4, 6), (0, 4)
SHAPES: Final = (  # SOURCE: nvidia-smi mig -lgip; the same rows as lab/nvml/mig.c
    Profile(19, 1, 1, _NARROW, 0),
    Profile(20, 1, 1, _NARROW, 0),
    Profile(15, 1, 2, _WIDE, 0),
    Profile(14, 2, 2, (0, 2, 4), 1),
    Profile(9, 3, 4, _HALF, 2),
    Profile(5, 4, 4, (0,), 3),
    Profile(0, 7, 8, (0,), 4),
)
_FORTY = ("1g.5gb", "1g.5gb+me", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb")
_EIGHTY = ("1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")
MODELS: Final = {  # profile set -> (marketing name, MiB, profile names)
    "a100-40": ("NVIDIA A100-SXM4-40GB", 40960, _FORTY),
    "a100-80": ("NVIDIA A100-SXM4-80GB", 81920, _EIGHTY),
    "h100-80": ("NVIDIA H100 80GB HBM3", 81559, _EIGHTY),
}
