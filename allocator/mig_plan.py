"""From a GPU's partition to its layout with the fewest destroyed instances: pure.

INVARIANT: an instance with a holder is in no step, and neither is a GPU with a holder in a change of mode. Instances cannot be moved,
so what is kept decides what fits: every choice of what to keep is tried, which are at most 2^7.
SOURCE: NVML API reference, Multi-Instance GPU: instances fit if their memory slices do not overlap and their compute slices suffice.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from allocator.mig import Create, Destroy, LayoutInvalid, Plan, SetMode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from allocator.mig import GpuInstance, Layout, MigProfile, Partition, Step

Placed = tuple[tuple["MigProfile", int], ...]  # profile and start


def plan(partition: Partition, layout: Layout) -> Plan:
    """The steps for one GPU; none when it is as wanted.

    Raises: LayoutInvalid: the layout can never be had on this GPU.
    """
    if layout.profiles is None:
        return _whole(partition)
    if not partition.mig_now:
        return _mode(partition, enabled=True, missing=layout.profiles)
    _check(partition, layout.profiles)
    wanted = Counter({name: count for name, count in layout.profiles.items() if count})
    choice = _best(partition, wanted)
    goes = [item for item in partition.instances if item not in choice.kept]
    steps: list[Step] = [
        Destroy(gpu=partition.gpu, instance=item) for item in sorted(goes, key=lambda item: item.start)
    ]
    made = sorted(choice.made, key=lambda item: (-item[0].size, item[1]))
    steps += [Create(gpu=partition.gpu, profile=profile, start=start) for profile, start in made]
    had = Counter(item.profile for item in choice.kept)
    missing = wanted - had - Counter(profile.name for profile, _ in choice.made)
    return Plan(
        gpu=partition.gpu,
        steps=tuple(steps),
        kept=tuple(_in_the_way(partition, choice.kept, wanted, missing)),
        missing=dict(missing),
    )


def arrange(profiles: Sequence[MigProfile], *, compute_slices: int) -> Placed | None:
    """Places for all of these on an empty GPU, in the order given; None when they do not fit together.

    Each at its first start at which the rest has places too.
    """
    whole = _arrangements(profiles, 0, compute_slices, first_start=0)
    return next((found for found in whole if len(found) == len(profiles)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Choice:
    kept: tuple[GpuInstance, ...]
    made: Placed
    score: tuple[int, int]  # slices of the layout that are there in the end, instances kept


def _whole(partition: Partition) -> Plan:
    """MIG mode off, once nobody holds anything of the GPU."""
    held = [
        f"instance {item.number} ({item.profile}): {holder}"
        for item in partition.instances
        for holder in item.holders
    ]
    if held:
        return Plan(gpu=partition.gpu, kept=tuple(held), missing={})
    gone = tuple(Destroy(gpu=partition.gpu, instance=item) for item in partition.instances)
    mode = _mode(partition, enabled=False, missing={})
    return Plan(gpu=partition.gpu, steps=(*gone, *mode.steps), kept=mode.kept, missing={})


def _mode(partition: Partition, *, enabled: bool, missing: Mapping[str, int]) -> Plan:
    """Switch the mode; what comes after the reset is planned then, when NVML tells what fits."""
    missing = {name: count for name, count in missing.items() if count}
    if partition.mig_pending is enabled:
        return Plan(gpu=partition.gpu, missing=missing)
    if partition.holders:
        return Plan(gpu=partition.gpu, kept=partition.holders, missing=missing)
    return Plan(gpu=partition.gpu, steps=(SetMode(gpu=partition.gpu, enabled=enabled),), missing=missing)


def _check(partition: Partition, wanted: Mapping[str, int]) -> None:
    offered = {profile.name: profile for profile in partition.profiles}
    unknown = sorted(set(wanted) - offered.keys())
    if unknown:
        raise LayoutInvalid(
            f"GPU {partition.index} has no MIG profile {unknown[0]!r}; it has {', '.join(sorted(offered))}"
        )
    for name, count in wanted.items():
        if count > offered[name].most:
            raise LayoutInvalid(
                f"{count} x {name} do not fit on GPU {partition.index}, limit is {offered[name].most};"
                " take fewer or another profile"
            )
    rest = [offered[name] for name, count in wanted.items() for _ in range(count)]
    slices = sum(profile.compute_slices for profile in rest)
    if arrange(rest, compute_slices=partition.compute_slices) is None:
        asked = " + ".join(f"{count} x {name}" for name, count in sorted(wanted.items()) if count)
        raise LayoutInvalid(
            f"{asked} do not fit on GPU {partition.index} together, with their {slices} compute slices of"
            f" {partition.compute_slices}; take fewer or smaller profiles"
        )


def _best(partition: Partition, wanted: Counter[str]) -> _Choice:
    """Of all that could be kept, what leaves most of the layout in the end, and then destroys least."""
    held = tuple(item for item in partition.instances if item.holders)
    # One without a MIG device is a rest of something that failed: nobody can use it, so it goes.
    free = [
        item for item in partition.instances if item.devices and not item.holders and item.profile in wanted
    ]
    choices = (
        _choice(partition, (*held, *kept), wanted)
        for count in range(len(free), -1, -1)
        for kept in combinations(free, count)
        if not Counter(item.profile for item in kept) - (wanted - Counter(item.profile for item in held))
    )
    return max(choices, key=lambda choice: choice.score)


def _choice(partition: Partition, kept: tuple[GpuInstance, ...], wanted: Counter[str]) -> _Choice:
    offered = {profile.name: profile for profile in partition.profiles}
    had = wanted & Counter(item.profile for item in kept)
    rest = [offered[name] for name, count in (wanted - had).items() for _ in range(count)]
    made = _fit(rest, kept, partition)
    slices = sum(offered[name].compute_slices * count for name, count in had.items())
    slices += sum(profile.compute_slices for profile, _ in made)
    return _Choice(kept=kept, made=made, score=(slices, len(kept)))


def _fit(rest: Sequence[MigProfile], kept: Sequence[GpuInstance], partition: Partition) -> Placed:
    """Places for as many slices of `rest` as fit beside what is kept."""
    used = sum(_mask(item.start, item.size) for item in kept)
    left = partition.compute_slices - sum(item.compute_slices for item in kept)
    ordered = sorted(rest, key=lambda profile: (-profile.size, profile.name))
    best: Placed = ()
    for found in _arrangements(ordered, used, left, first_start=0):
        if _slices(found) > _slices(best) or (len(found) > len(best) and _slices(found) == _slices(best)):
            best = found
        if len(best) == len(ordered):
            break
    return best


def _arrangements(rest: Sequence[MigProfile], used: int, left: int, *, first_start: int) -> Iterator[Placed]:
    """Every way to place some of `rest`; several of one profile only in order of their starts."""
    if not rest:
        yield ()
        return
    profile, others = rest[0], rest[1:]
    same = bool(others) and others[0] is profile
    if profile.compute_slices <= left:
        for start in profile.starts:
            mask = _mask(start, profile.size)
            if start >= first_start and not used & mask:
                behind = start if same else 0
                for found in _arrangements(
                    others, used | mask, left - profile.compute_slices, first_start=behind
                ):
                    yield ((profile, start), *found)
    skipped = [
        other for other in others if other is not profile
    ]  # one that is left out leaves out its equals
    yield from _arrangements(skipped, used, left, first_start=0)


def _mask(start: int, size: int) -> int:
    return ((1 << size) - 1) << start


def _slices(placed: Placed) -> int:
    return sum(profile.compute_slices for profile, _ in placed)


def _in_the_way(
    partition: Partition, kept: Sequence[GpuInstance], wanted: Counter[str], missing: Counter[str]
) -> Iterator[str]:
    """Held instances that the layout has no place for; all of them while something is missing, for one may lie in its place."""
    left = Counter() if missing else Counter(wanted)
    for item in kept:
        if left[item.profile] > 0:
            left[item.profile] -= 1
        else:
            yield from (
                f"instance {item.number} ({item.profile}) of GPU {partition.index}: {holder}"
                for holder in item.holders
            )
