"""One snapshot and its leases: what is free, what could be used, who holds how much."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import inf

from allocator.board import Board
from allocator.model import DeviceState, LeaseState
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, lease, want

MACHINE = snapshot(gpu(0), gpu(1, pids=(7,)), *split(2, "3g.20gb", "1g.5gb"))


def test_only_what_is_known_to_be_idle_is_free() -> None:
    """Neither what is held, nor what a process uses, nor a GPU in MIG mode."""
    board = Board(MACHINE, (lease("a", mig(2, 1).uuid),))
    assert board.free == {gpu(0).uuid, mig(2, 0).uuid}


WAS_SPLIT = replace(lease("a", mig(2, 0).uuid), gpus=(gpu(2).uuid,), state=LeaseState.LOST)


def test_a_gpu_is_held_by_who_had_a_part_that_is_gone() -> None:
    """Its container has the file of the GPU, which opens all of it once it is whole again."""
    board = Board(snapshot(gpu(1), gpu(2)), (WAS_SPLIT,))
    assert board.free == {gpu(1).uuid}
    assert board.holders[gpu(2).uuid] is WAS_SPLIT


def test_a_part_that_is_gone_holds_no_other_part() -> None:
    """Without their capabilities the file of the GPU opens none of them; the place itself it still holds."""
    again = snapshot(*split(2, "3g.20gb", "1g.5gb"))
    one = Board(snapshot(gpu(2, state=DeviceState.UNUSABLE), mig(2, 1)), (WAS_SPLIT,))
    assert one.free == {mig(2, 1).uuid}
    assert Board(again, (WAS_SPLIT,)).free == {mig(2, 1).uuid}


def test_a_part_of_nobody_knows_which_gpu_holds_every_whole_one() -> None:
    """Unknown is never free."""
    unknown = replace(WAS_SPLIT, gpus=(None,))
    seen = snapshot(gpu(1), gpu(2), gpu(3, state=DeviceState.UNUSABLE), mig(3, 0))
    assert Board(seen, (unknown,)).free == {mig(3, 0).uuid}
    assert Board(seen, (replace(unknown, gpus=()),)).free == {mig(3, 0).uuid}


def test_a_gpu_that_was_leased_whole_holds_the_parts_it_was_split_into() -> None:
    """Nobody made sure what the file of the GPU opens for its container then."""
    board = Board(snapshot(*split(2, "3g.20gb", "1g.5gb")), (lease("a", gpu(2).uuid),))
    assert board.free == frozenset()


def test_what_a_foreign_container_has_is_not_free() -> None:
    """Nor does it count as held by anybody, or as what nobody could ever use."""
    board = Board(MACHINE, (), foreign=frozenset({gpu(0).uuid}))
    assert board.free == {mig(2, 0).uuid, mig(2, 1).uuid}
    assert gpu(0).uuid in board.usable(want())
    assert not board.holders


def test_a_device_with_memory_of_nobody_is_not_free() -> None:
    """Whoever uses it cannot be seen; that is not nobody."""
    board = Board(MACHINE, (), unattributed=frozenset({gpu(0).uuid}))
    assert board.free == {mig(2, 0).uuid, mig(2, 1).uuid}
    assert gpu(0).uuid in board.usable(want())


def test_what_a_request_could_use_does_not_depend_on_who_holds_it() -> None:
    """By class, profile, memory, and the largest that the limit lets it have."""
    board = Board(MACHINE, (lease("a", gpu(0).uuid),))
    assert board.usable(want()) == {gpu(0).uuid, gpu(1).uuid, mig(2, 0).uuid, mig(2, 1).uuid}
    assert board.usable(want(profile="1g.5gb")) == {mig(2, 1).uuid}
    assert board.usable(want(profile="full")) == {gpu(0).uuid, gpu(1).uuid}
    assert board.usable(want(memory_mib=10000)) == {gpu(0).uuid, gpu(1).uuid, mig(2, 0).uuid}
    assert board.usable(want(classes=("1g.5gb",))) == {mig(2, 1).uuid}
    assert board.usable(want(equivalents=Fraction(3, 7))) == {mig(2, 0).uuid, mig(2, 1).uuid}


def test_memory_that_is_not_known_is_not_enough() -> None:
    """Unknown is never large."""
    board = Board(snapshot(gpu(0, memory_mib=None)), ())
    assert board.usable(want(memory_mib=1)) == frozenset()


def test_what_owner_and_group_hold() -> None:
    """Devices and equivalents, over all their leases."""
    mine = replace(lease("a", mig(2, 0).uuid), equivalents=Fraction(3, 7), groups=("g",))
    theirs = replace(lease("b", gpu(0).uuid, owner=2), groups=("g", "h"))
    board = Board(MACHINE, (mine, theirs))
    assert board.held_by_owner(want()) == (1, Fraction(3, 7))
    assert board.held_by_group("g") == (2, Fraction(10, 7))
    assert board.held_by_group("none") == (0, Fraction(0))


def test_halves_with_leases_are_known_by_gpu() -> None:
    """A leased 1g in the upper half breaks that half only."""
    part = mig(2, 1, gpu_instance_id=13)
    board = Board(snapshot(*split(2, "3g.20gb"), part), (lease("a", part.uuid),))
    assert board.taken_halves[gpu(2).uuid] == {1}


def test_only_an_end_to_come_is_certain() -> None:
    """A lease without one, one that should have ended, and all while the time is not told, come back at no time."""
    now = Clock()()
    leases = (
        replace(lease("a", gpu(0).uuid), seconds=60),
        lease("b", gpu(1).uuid),
        replace(lease("c", "GPU-gone"), seconds=0),
    )
    found = Board(MACHINE, leases, now).returning
    assert [(one.id, back, [device.index for device in devices]) for one, back, devices in found] == [
        ("a", 60, ["0"]),
        ("b", inf, ["1"]),
        ("c", inf, []),
    ]
    assert {back for _, back, _ in Board(MACHINE, leases).returning} == {inf}


def test_the_smallest_of_each_class_are_summed() -> None:
    """Held or not, in the classes that have so many, best class first."""
    board = Board(MACHINE, (lease("a", mig(2, 1).uuid),))
    classes = ("gpu", "mig")
    assert [*board.smallest(want(classes=classes), 1)] == [Fraction(1), Fraction(1, 7)]
    assert [*board.smallest(want(classes=classes), 2)] == [Fraction(2), Fraction(4, 7)]
    assert [*board.smallest(want(classes=classes), 3)] == []
