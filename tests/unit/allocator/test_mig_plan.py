"""Planning a GPU's partition: fewest destroyed, nothing that is held, and exact about what stands in the way."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.mig import (
    Create,
    Destroy,
    GpuInstance,
    Layout,
    LayoutInvalid,
    MigProfile,
    Partition,
    Plan,
    SetMode,
)
from allocator.mig_plan import arrange, plan
from policy.model import DeviceUuid

GPU = DeviceUuid("GPU-1")


def _profile(
    name: str, number: int, compute: int, size: int, starts: tuple[int, ...], most: int
) -> MigProfile:
    return MigProfile(name=name, number=number, compute_slices=compute, size=size, starts=starts, most=most)


# SOURCE: nvidia-smi mig -lgip and -lgipp of an A100-40.
A100_40 = (
    _profile("1g.5gb", 19, 1, 1, tuple(range(7)), 7),
    _profile("1g.10gb", 15, 1, 2, (0, 2, 4, 6), 4),
    _profile("2g.10gb", 14, 2, 2, (0, 2, 4), 3),
    _profile("3g.20gb", 9, 3, 4, (0, 4), 2),
    _profile("4g.20gb", 5, 4, 4, (0,), 1),
    _profile("7g.40gb", 0, 7, 8, (0,), 1),
)
BY_NAME = {profile.name: profile for profile in A100_40}


def _instance(name: str, start: int, *holders: str) -> GpuInstance:
    profile = BY_NAME[name]
    return GpuInstance(
        number=8 // profile.size - 1 + start // profile.size,
        profile=name,
        compute_slices=profile.compute_slices,
        start=start,
        size=profile.size,
        devices=(DeviceUuid(f"MIG-{name}-{start}"),),
        holders=holders,
    )


def _gpu(*instances: GpuInstance, on: bool = True, pending: bool | None = None) -> Partition:
    return Partition(
        gpu=GPU,
        index="0",
        mig_now=on,
        mig_pending=on if pending is None else pending,
        compute_slices=7 if on else 0,
        profiles=A100_40 if on else (),
        instances=instances,
    )


def _made(found: Plan) -> list[tuple[str, int]]:
    return [(step.profile.name, step.start) for step in found.steps if isinstance(step, Create)]


def _gone(found: Plan) -> list[tuple[str, int]]:
    return [(step.instance.profile, step.instance.start) for step in found.steps if isinstance(step, Destroy)]


@pytest.mark.parametrize(
    ("now", "wanted", "gone", "made"),
    [
        pytest.param((), {"1g.5gb": 7}, [], [("1g.5gb", start) for start in range(7)], id="empty"),
        pytest.param((), {"3g.20gb": 1, "4g.20gb": 1}, [], [("4g.20gb", 0), ("3g.20gb", 4)], id="order"),
        pytest.param(((_instance("3g.20gb", 4)),), {"3g.20gb": 2}, [], [("3g.20gb", 0)], id="kept"),
        pytest.param((_instance("1g.5gb", 0),), {"1g.5gb": 0}, [("1g.5gb", 0)], [], id="none-wanted"),
        pytest.param((_instance("2g.10gb", 2),), {"2g.10gb": 1}, [], [], id="as-wanted"),
        pytest.param(
            (_instance("3g.20gb", 0),),
            {"3g.20gb": 1, "4g.20gb": 1},
            [("3g.20gb", 0)],
            [("4g.20gb", 0), ("3g.20gb", 4)],
            id="in-the-wrong-place",
        ),
        pytest.param(
            (_instance("1g.5gb", 0), _instance("1g.5gb", 4)),
            {"1g.5gb": 2, "3g.20gb": 1},
            [("1g.5gb", 0)],
            [("3g.20gb", 0), ("1g.5gb", 5)],
            id="one-of-two-is-in-the-way",
        ),
    ],
)
def test_steps(
    now: tuple[GpuInstance, ...],
    wanted: dict[str, int],
    gone: list[tuple[str, int]],
    made: list[tuple[str, int]],
) -> None:
    """Destroyed is only what must be; created is from the largest down, each at a start it may have."""
    found = plan(_gpu(*now), Layout(profiles=wanted))
    assert len(_gone(found)) == len(gone)
    assert Counter(name for name, _ in _made(found)) == Counter(name for name, _ in made)
    assert found.kept == ()
    assert found.missing == {}


def test_an_instance_without_a_mig_device_is_made_again() -> None:
    """It is a rest of something that failed, and nobody could use it."""
    rest = replace(_instance("2g.10gb", 0), devices=())
    found = plan(_gpu(rest), Layout(profiles={"2g.10gb": 1}))
    assert _gone(found) == [("2g.10gb", 0)]
    assert len(_made(found)) == 1


def test_what_is_held_stays_and_is_named() -> None:
    """With who holds it, and what cannot be had meanwhile; the rest of the layout is made."""
    held = _instance("3g.20gb", 0, "container web of alice, stopped")
    found = plan(_gpu(held, _instance("1g.5gb", 4)), Layout(profiles={"4g.20gb": 1, "2g.10gb": 1}))
    assert _gone(found) == [("1g.5gb", 4)]
    assert _made(found) == [("2g.10gb", 4)]
    assert found.missing == {"4g.20gb": 1}
    assert found.kept == ("instance 1 (3g.20gb) of GPU 0: container web of alice, stopped",)


def test_what_is_held_in_the_wrong_place_is_named_too() -> None:
    """It is of the layout, but what is missing would have to lie there."""
    held = _instance("1g.5gb", 4, "a lease of bob")
    found = plan(
        _gpu(_instance("3g.20gb", 0), held), Layout(profiles={"3g.20gb": 1, "2g.10gb": 1, "1g.5gb": 1})
    )
    assert (found.steps, found.missing) == ((), {"2g.10gb": 1})
    assert found.kept == ("instance 11 (1g.5gb) of GPU 0: a lease of bob",)


def test_what_is_held_and_wanted_is_no_obstacle() -> None:
    """It counts as the layout's own."""
    found = plan(_gpu(_instance("2g.10gb", 2, "a lease of bob")), Layout(profiles={"2g.10gb": 2}))
    assert found.kept == ()
    assert len(_made(found)) == 1


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        pytest.param({"9g.90gb": 1}, "no MIG profile '9g.90gb'; it has 1g.10gb", id="unknown"),
        pytest.param({"1g.5gb": 8}, "8 x 1g.5gb do not fit on GPU 0, limit is 7", id="too-many"),
        pytest.param({"3g.20gb": 2, "2g.10gb": 1}, "8 compute slices of 7", id="too-many-slices"),
        pytest.param({"3g.20gb": 1, "1g.10gb": 3}, "do not fit on GPU 0 together", id="memory"),
        pytest.param({"4g.20gb": 2}, "limit is 1", id="twice-what-exists-once"),
    ],
)
def test_a_layout_that_cannot_be_had_is_refused(wanted: dict[str, int], said: str) -> None:
    """Whatever is on the GPU now."""
    with pytest.raises(LayoutInvalid, match=said):
        plan(_gpu(_instance("1g.5gb", 0, "somebody")), Layout(profiles=wanted))


def test_a_mode_is_switched_only_on_a_gpu_that_nobody_has() -> None:
    """What comes after the reset is not planned before NVML can tell what fits."""
    found = plan(_gpu(on=False), Layout(profiles={"1g.5gb": 7}))
    assert found.steps == (SetMode(gpu=GPU, enabled=True),)
    assert found.missing == {"1g.5gb": 7}
    busy = replace(_gpu(on=False), holders=("process 12",))
    assert plan(busy, Layout(profiles={})).kept == ("process 12",)
    assert plan(busy, Layout(profiles={})).steps == ()


def test_a_mode_that_waits_for_a_reset_is_not_asked_for_again() -> None:
    """Nothing can be done before the reset."""
    found = plan(_gpu(on=False, pending=True), Layout(profiles={"1g.5gb": 1}))
    assert found.steps == ()
    assert found.missing == {"1g.5gb": 1}


def test_a_gpu_becomes_whole_when_nobody_holds_an_instance() -> None:
    """First every instance goes, then the mode."""
    found = plan(_gpu(_instance("1g.5gb", 0), _instance("1g.5gb", 1)), Layout(profiles=None))
    assert [type(step) for step in found.steps] == [Destroy, Destroy, SetMode]
    held = plan(_gpu(_instance("1g.5gb", 0, "a lease of bob"), _instance("1g.5gb", 1)), Layout(profiles=None))
    assert held.steps == ()
    assert held.kept == ("instance 7 (1g.5gb): a lease of bob",)
    assert plan(_gpu(on=False), Layout(profiles=None)).steps == ()


@st.composite
def partitions(draw: st.DrawFn) -> Partition:
    """Some instances that fit, each held or not."""
    used, compute, instances = 0, 0, list[GpuInstance]()
    for profile in draw(st.lists(st.sampled_from(A100_40), max_size=7)):
        starts = [start for start in profile.starts if not used & (((1 << profile.size) - 1) << start)]
        if not starts or compute + profile.compute_slices > 7:
            continue
        start = draw(st.sampled_from(starts))
        used |= ((1 << profile.size) - 1) << start
        compute += profile.compute_slices
        instances.append(_instance(profile.name, start, *(["somebody"] if draw(st.booleans()) else [])))
    return _gpu(*instances)


layouts = st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.integers(0, 7), max_size=3)


def _fits(wanted: dict[str, int], held: tuple[GpuInstance, ...] = ()) -> bool:
    """Every combination of starts, tried one by one."""
    rest = [BY_NAME[name] for name, count in wanted.items() for _ in range(count)]
    slices = sum(item.compute_slices for item in rest) + sum(item.compute_slices for item in held)
    if slices > 7:
        return False
    slots = [{*range(item.start, item.start + item.size)} for item in held]
    for starts in product(*(profile.starts for profile in rest)):
        taken = slots + [{*range(s, s + p.size)} for s, p in zip(starts, rest, strict=True)]
        if len(set().union(*taken)) == sum(map(len, taken)):
            return True
    return False


@settings(max_examples=300, deadline=None)
@given(partitions(), layouts)
def test_every_plan_can_be_carried_out(partition: Partition, wanted: dict[str, int]) -> None:
    """Step by step nothing overlaps and no held instance goes; afterwards the layout is there, but for what is named missing."""
    if sum(wanted.values()) > 7 or not _fits(wanted):
        with pytest.raises(LayoutInvalid):
            plan(partition, Layout(profiles=wanted))
        return
    found = plan(partition, Layout(profiles=wanted))
    there = {item.start: item for item in partition.instances}
    for step in found.steps:
        match step:
            case Destroy(instance=instance):
                assert not instance.holders
                del there[instance.start]
            case Create(profile=profile, start=start):
                assert start in profile.starts
                there[start] = _instance(profile.name, start)
                taken = [
                    slot for item in there.values() for slot in range(item.start, item.start + item.size)
                ]
                assert len(taken) == len(set(taken))
                assert sum(item.compute_slices for item in there.values()) <= 7
            case SetMode():
                pytest.fail("the mode stays")
    held = tuple(item for item in partition.instances if item.holders)
    had = Counter(item.profile for item in there.values())
    assert Counter(wanted) - had == Counter(found.missing)
    extra = had - Counter(wanted)
    assert extra == (Counter(item.profile for item in held) - Counter(wanted))
    assert bool(found.kept) == bool(extra or found.missing)
    if not held:
        assert found.missing == {}
    again = plan(replace(partition, instances=tuple(there.values())), Layout(profiles=wanted))
    assert again.steps == ()


@settings(max_examples=200, deadline=None)
@given(partitions(), layouts)
def test_nothing_is_missing_that_fits_beside_what_is_held(
    partition: Partition, wanted: dict[str, int]
) -> None:
    """The oracle tries every start."""
    if sum(wanted.values()) > 7 or not _fits(wanted):
        return
    held = tuple(item for item in partition.instances if item.holders)
    rest = Counter(wanted) - Counter(item.profile for item in held)
    found = plan(partition, Layout(profiles=wanted))
    assert (not found.missing) == _fits(dict(rest), held)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(A100_40), max_size=7))
def test_an_empty_gpu_takes_whatever_fits(profiles: list[MigProfile]) -> None:
    """The oracle tries every start; places are in the order given and do not overlap."""
    placed = arrange(profiles, compute_slices=7)
    assert (placed is not None) == _fits(Counter(profile.name for profile in profiles))
    if placed is not None:
        assert [profile for profile, _ in placed] == profiles
        slots = [slot for profile, start in placed for slot in range(start, start + profile.size)]
        assert len(slots) == len(set(slots))
        assert all(start in profile.starts for profile, start in placed)
