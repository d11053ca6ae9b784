"""What one request gets beside those ahead of it (the laws are in tests/property/test_allocator_queue.py)."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from allocator.board import Board
from allocator.model import DeviceState, GroupLimit, Placement, Refusal, RefusalKind, Snapshot
from allocator.queue import NO_CLAIMS, Entry, answer, ordered, still_waits
from policy.model import Uid
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import lease, want

MACHINE = snapshot(gpu(0), gpu(1), *split(2, "1g.5gb"))
HELD = (lease("a", gpu(0).uuid, owner=9),)


def test_what_is_ahead_is_left_alone_and_the_rest_is_not() -> None:
    """Behind two GPUs that wait for one more, nobody gets the other GPU, and a MIG device goes to who wants one."""
    board = Board(MACHINE, HELD)
    first = answer(board, want(count=2, classes=("gpu",)), ())
    assert isinstance(first.outcome, Refusal)
    assert first.claims.devices == {gpu(0).uuid, gpu(1).uuid}
    behind = answer(board, want(owner_uid=Uid(2), profile="full"), (), first.claims)
    assert isinstance(behind.outcome, Refusal)
    assert "ahead in the queue" in behind.outcome.message
    backfilled = answer(board, want(owner_uid=Uid(2)), (), first.claims)
    assert backfilled.outcome == place_of(mig(2, 0).uuid)


def place_of(uuid: str) -> object:
    board = Board(MACHINE, HELD)
    outcome = answer(board, want(count=None, device_ids=(uuid,)), ()).outcome
    assert isinstance(outcome, Placement)
    return outcome


def test_room_in_a_shared_limit_is_left_too() -> None:
    """What a group may still have is not used up by who is behind."""
    group = (GroupLimit(name="g", devices=2),)
    board = Board(MACHINE, HELD)
    first = answer(board, want(count=2, classes=("gpu",), groups=group), ())
    behind = answer(board, want(owner_uid=Uid(2), groups=group, profile="1g.5gb"), (), first.claims)
    assert isinstance(behind.outcome, Refusal)
    assert behind.outcome.kind is RefusalKind.IN_USE
    assert "needed by a request ahead" in behind.outcome.message


def test_who_waits_for_a_limit_claims_no_device() -> None:
    """A full group does not hold up others."""
    full = (GroupLimit(name="g", devices=1),)
    held = (replace(HELD[0], groups=("g",)),)
    found = answer(Board(MACHINE, held), want(groups=full), ())
    assert isinstance(found.outcome, Refusal)
    assert found.outcome.kind is RefusalKind.GROUP_LIMIT
    assert not found.claims.devices


def test_weight_divides_the_share() -> None:
    """Twice the usage for twice the weight is level, and the first to ask goes first."""
    entries = [
        Entry(want=want(owner_uid=Uid(1)), asked_ms=2, number=0),
        Entry(want=want(owner_uid=Uid(2), weight=2), asked_ms=1, number=1),
        Entry(want=want(owner_uid=Uid(3), priority=1), asked_ms=9, number=2),
    ]
    line = ordered(entries, {Uid(1): 10.0, Uid(2): 20.0, Uid(3): 99.0})
    assert [entry.want.owner_uid for entry in line] == [3, 2, 1]


BROKEN = gpu(3, state=DeviceState.QUARANTINED)
THREE = (gpu(0), gpu(1), gpu(2))


@pytest.mark.parametrize(
    ("machine", "final"),
    [
        pytest.param(snapshot(*THREE, BROKEN), True, id="in quarantine"),
        pytest.param(snapshot(*THREE, *split(3, "1g.5gb")), True, id="split"),
        pytest.param(
            snapshot(*THREE, replace(BROKEN, state=DeviceState.UNRESPONSIVE, recovers=True)),
            False,
            id="silent",
        ),
        pytest.param(replace(snapshot(*THREE), complete=False), False, id="not told of"),
    ],
)
def test_who_can_get_nothing_whatever_comes_back_claims_nothing(machine: Snapshot, final: object) -> None:
    """Four GPUs of three hold up nobody; whether to wait on depends on what may recover by itself."""
    board = Board(machine, HELD)
    four = want(count=4, classes=("gpu",))
    found = answer(board, four, ())
    assert isinstance(found.outcome, Refusal)
    assert found.outcome.kind is RefusalKind.TOO_FEW
    assert (found.claims, found.final) == (NO_CLAIMS, final)
    assert still_waits(board, four, (), NO_CLAIMS) is None
    behind = answer(board, want(owner_uid=Uid(2), profile="full"), (), found.claims)
    assert isinstance(behind.outcome, Placement)


def test_what_lasts_is_told_before_what_passes() -> None:
    """A full group is not a reason to wait for devices that the server does not have."""
    full = (GroupLimit(name="g", devices=3),)
    held = (replace(HELD[0], groups=("g",)),)
    found = answer(Board(snapshot(gpu(0), gpu(1)), held), want(count=3, groups=full), ())
    assert isinstance(found.outcome, Refusal)
    assert (found.outcome.kind, found.final) == (RefusalKind.TOO_FEW, True)


def test_room_is_left_for_who_asked_under_a_tighter_policy() -> None:
    """A policy may have been read anew while somebody waits: the least of both limits is what is kept."""
    machine = snapshot(gpu(0), *split(2, "3g.20gb", "1g.5gb"))
    board = Board(machine, (lease("a", mig(2, 1).uuid, owner=2),))
    tight = want(owner_uid=Uid(4), equivalents=Fraction(1, 7), count=1)
    ahead = answer(board, tight, ())
    assert isinstance(ahead.outcome, Refusal)
    loose = answer(board, want(owner_uid=Uid(4), count=1), (), ahead.claims)
    assert isinstance(loose.outcome, Refusal)
    assert isinstance(answer(board, want(owner_uid=Uid(5), count=1), (), ahead.claims).outcome, Placement)
