"""Why a device cannot be leased now, as the list tells it to each who looks."""

from __future__ import annotations

from typing import Any

import pytest

from allocator.board import Board
from allocator.model import DeviceState, Obstacle
from allocator.obstacles import obstacles, outage
from allocator.reservations import Reservation, Window
from policy.model import Uid
from policy.when import parse_when
from tests.fakes.fake_nvml import gpu, snapshot
from tests.fakes.leasing import Clock, lease

NOW = Clock()()
MACHINE = snapshot(
    gpu(0),
    gpu(1),
    gpu(2, pids=(7,)),
    gpu(3, pids=None),
    gpu(4, state=DeviceState.QUARANTINED),
    gpu(5),
    gpu(6),
)
BOARD = Board(
    MACHINE,
    (lease("a", gpu(1).uuid),),
    NOW,
    foreign=frozenset({gpu(5).uuid}),
    unattributed=frozenset({gpu(6).uuid}),
)


def window(begin: float, **whose: Any) -> Window:
    when = "daily 10:00-12:00"
    item = Reservation(id="r", name="thesis of bob", count=1, when=parse_when(when), when_text=when, **whose)
    return Window(reservation=item, begin=begin, end=begin + 60)


def told(*windows: Window, uid: int = 1, sees_all: bool = False) -> dict[str, dict[str, str] | None]:
    found = obstacles(BOARD, windows, uid=Uid(uid), now=NOW, sees_all=sees_all)
    return {MACHINE.devices[uuid].index: one for uuid, one in found.items()}


def test_each_reason_has_its_kind_and_its_words() -> None:
    """And what is free has none."""
    found = told()
    assert found["0"] is None
    kinds = {index: None if one is None else one["kind"] for index, one in found.items()}
    assert kinds == {
        "0": None,
        "1": Obstacle.HELD,
        "2": Obstacle.IN_USE,
        "3": Obstacle.UNKNOWN,
        "4": Obstacle.OUT_OF_SERVICE,
        "5": Obstacle.FOREIGN,
        "6": Obstacle.UNATTRIBUTED,
    }
    assert "no process that can be seen" in (found["6"] or {})["message"]
    assert outage()["kind"] == Obstacle.OUTAGE
    assert len({one["message"] for one in (*found.values(), outage()) if one is not None}) == 7


@pytest.mark.parametrize(
    ("begin", "times"),
    [
        pytest.param(-5, "until 2026-01-01T00:17:35Z", id="running"),
        pytest.param(60, "from 2026-01-01T00:17:40Z until 2026-01-01T00:18:40Z", id="soon"),
    ],
)
def test_what_is_kept_says_until_when_and_to_the_trusted_for_whom(begin: float, times: str) -> None:
    """Others read no name; a device that has another reason keeps that."""
    found, all_of_it = told(window(begin, group="g")), told(window(begin, group="g"), sees_all=True)
    assert found["0"] == {
        "kind": "reserved",
        "message": f"kept for a reservation {times}; see ds01 gpu queue",
    }
    assert (all_of_it["0"] or {})["message"].startswith(f"kept for thesis of bob {times}")
    assert (found["1"] or {})["kind"] == "held"


def test_what_nobody_is_kept_from_is_free() -> None:
    """A reservation that is far off, and one's own."""
    assert told(window(3600, group="g"))["0"] is None
    assert told(window(0, uid=Uid(1)))["0"] is None
    assert (told(window(0, uid=Uid(2)))["0"] or {})["kind"] == "reserved"
