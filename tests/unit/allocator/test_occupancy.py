"""Who has what, when the first of it comes back, and how to wait for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from allocator.board import Board
from allocator.occupancy import first_end, for_label, holders, holders_by_lease, how_to_wait
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, lease, want

NOW = Clock()()
MIXED = snapshot(gpu(0), gpu(1), *split(2, "1g.5gb", "1g.5gb"))


def test_holders_are_told_by_class_and_those_of_other_devices_are_not() -> None:
    """With the first end among theirs, and what a foreign container has."""
    mine = replace(lease("a", mig(2, 0).uuid, mig(2, 1).uuid, owner=1), seconds=600)
    other = replace(lease("b", gpu(0).uuid, owner=2), seconds=60)
    board = Board(MIXED, (mine, other), NOW, foreign=frozenset({gpu(1).uuid}))
    parts = frozenset({mig(2, 0).uuid, mig(2, 1).uuid, gpu(1).uuid})
    said = "held by user1 (2 1g.5gb); 1 used by containers that ds01 did not make; the earliest ends in 10min"
    assert holders(board, parts).startswith(said)
    assert holders_by_lease(board, [other]).startswith("held by user2 (1 GPU); the earliest ends in 1min")
    assert holders_by_lease(board, []) == holders(Board(MIXED, (), NOW), parts) == ""


def test_many_holders_are_cut_short() -> None:
    """The message stays a line."""
    machine = snapshot(*(gpu(at) for at in range(12)))
    held = tuple(lease(f"l{at}", gpu(at).uuid, owner=at) for at in range(12))
    assert "4 more" in holders(Board(machine, held, NOW), frozenset(machine.devices))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        pytest.param([None], "none of it has a time limit", id="no end"),
        pytest.param([None, 90], "the earliest ends in 1min (2026-01-01 00:18 UTC)", id="one end"),
        pytest.param([0, 90], "the earliest ends in 1min (2026-01-01 00:18 UTC)", id="one overdue"),
        pytest.param([None, 0], "what has a time limit is overdue", id="all overdue"),
    ],
)
def test_the_first_end_is_one_to_come(seconds: list[int | None], said: str) -> None:
    """What should have ended goes on, and nobody knows how long."""
    leases = [replace(lease(f"l{at}", gpu(at).uuid), seconds=one) for at, one in enumerate(seconds)]
    assert first_end(Board(MIXED, leases, NOW), leases) == said
    assert first_end(Board(MIXED, leases), leases) == "ends are not known"


@pytest.mark.parametrize(
    ("waited", "most", "said"),
    [
        pytest.param(0, 3600, ", or wait with --label ds01.wait=30m", id="half an hour will do"),
        pytest.param(0, 600, ", or wait with --label ds01.wait=10m", id="as long as policy lets it"),
        pytest.param(600, 3600, ", or wait with --label ds01.wait=30m", id="longer than it did"),
        pytest.param(1800, 3600, ", or wait with --label ds01.wait=60m", id="longer than half an hour"),
        pytest.param(3600, 3600, "", id="it waited as long as it may"),
        pytest.param(0, 0, "", id="nobody may wait"),
        pytest.param(0, None, ", or wait with the label ds01.wait", id="not told"),
    ],
)
def test_only_a_wait_that_policy_allows_is_advised(waited: int, most: int | None, said: str) -> None:
    """And only one that is longer than the one that was in vain."""
    asked = want(wait_seconds=waited, wait_most_seconds=most)
    assert how_to_wait(asked) == f"see ds01 gpu queue{said}"


@pytest.mark.parametrize(("seconds", "text"), [(45.9, "45s"), (119, "119s"), (120, "2m"), (5399, "89m")])
def test_a_time_for_a_label_is_not_longer(seconds: float, text: str) -> None:
    """Rounded down: an end that is advised is before what it is advised for."""
    assert for_label(seconds) == text
