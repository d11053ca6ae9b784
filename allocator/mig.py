"""MIG as the planner sees it: how each GPU is partitioned now, what fits on it, and what is wanted.

Sizes are in memory slices (8 on an A100 or H100) and compute slices (7 there); starts are memory slices. All of it is read from
NVML: profiles differ by model, and by driver. SOURCE: NVML API reference, Multi-Instance GPU; MIG User Guide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policy.model import DeviceUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class MigProfile:
    """A kind of GPU instance that this GPU offers.

    number: the id that create and list calls take, not the enum index of `GetGpuInstanceProfileInfo`.
    starts: where it may begin; it covers `size` memory slices from there.
    most: how many of it an empty GPU takes.
    """

    name: str
    number: int
    compute_slices: int
    size: int
    starts: tuple[int, ...]
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInstance:
    """A GPU instance with the MIG devices in it.

    holders: sentences that say who refers to it, one for each: a lease, a container, a process. With any it is never touched.
    """

    number: int  # NVML's GPU instance id; it comes back when an instance is made at the same place
    profile: str
    compute_slices: int
    start: int
    size: int
    devices: tuple[DeviceUuid, ...] = ()  # none: no compute instance was made in it
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """One GPU that can do MIG. `holders` are those of the GPU as a whole."""

    gpu: DeviceUuid
    index: str
    mig_now: bool
    mig_pending: bool  # what it will be after a reset
    compute_slices: int = 0  # that an empty GPU has; 0 while MIG mode is off, when NVML tells no profiles
    profiles: tuple[MigProfile, ...] = ()
    instances: tuple[GpuInstance, ...] = ()
    holders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What one GPU is to be: whole (`profiles` is None), or MIG mode with so many instances of each profile."""

    profiles: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Destroy:
    """Destroy every compute instance of a GPU instance, then the instance."""

    gpu: DeviceUuid
    instance: GpuInstance


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """Create a GPU instance at `start` and one compute instance over the whole of it."""

    gpu: DeviceUuid
    profile: MigProfile
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetMode:
    """Switch MIG mode. A100: it takes a reset of the GPU, which nobody may have open then."""

    gpu: DeviceUuid
    enabled: bool


Step = Destroy | Create | SetMode


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What leads one GPU to its layout, in order; and what stands in the way.

    kept: sentences: an instance that the layout does not have, and who holds it.
    missing: instances of the layout that cannot be made before those are gone, by profile.
    """

    gpu: DeviceUuid
    steps: tuple[Step, ...] = ()
    kept: tuple[str, ...] = ()
    missing: Mapping[str, int]


class LayoutInvalid(ValueError):  # noqa: N818  told as a statement about the layout, like PolicyInvalid
    """The GPU does not offer a profile of the layout, or they do not fit on it together."""
