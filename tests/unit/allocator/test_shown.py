"""What is shown to whom."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from allocator import shown
from allocator.board import Board
from allocator.model import Refusal, RefusalKind
from allocator.queue import NO_CLAIMS
from allocator.reservations import Reservation, Window
from allocator.waiting import Line
from policy.when import parse_when
from tests.fakes.fake_nvml import gpu, snapshot
from tests.fakes.leasing import Clock, lease, want

if TYPE_CHECKING:
    from typing import Any

NOW = Clock()()
BUSY = Refusal(kind=RefusalKind.IN_USE, message="busy")


def test_a_lease_shows_its_end() -> None:
    """As a time of day and in seconds, below 0 when it should have ended; without one, neither."""
    item = replace(lease("a", "GPU-1"), seconds=90)
    shows = shown.lease(item, NOW)
    assert (shows["ends_in_seconds"], shows["ends_at"]) == (90, "2026-01-01T00:18:10Z")
    assert shows["seconds"] == 90
    later = Clock()
    later.seconds += 100
    assert shown.lease(item, later())["ends_in_seconds"] == -10
    endless = shown.lease(lease("a", "GPU-1"), NOW)
    assert (endless["seconds"], endless["ends_at"]) == (None, None)


async def waiter(uid: int, *, sees_all: bool) -> dict[str, Any]:
    line, clock = Line(), Clock()
    entry = line.enter(want(count=None, device_ids=("0",), wait_seconds=60), clock())
    clock.seconds += 7
    with line.joined(entry, BUSY, NO_CLAIMS) as item:
        return shown.waiter(item, 1, clock(), uid, sees_all=sees_all)


async def test_others_see_that_somebody_waits_and_not_who() -> None:
    """Position, time and what for; the name, the request and which device only the same user and the trusted."""
    own, other = await waiter(1000, sees_all=False), await waiter(4, sees_all=False)
    assert own == await waiter(4, sees_all=True)
    assert (own["owner_name"], own["wants"], own["waited_seconds"]) == ("alice", {"device_ids": ["0"]}, 7)
    assert (other["owner_name"], other["request_id"], other["wants"]) == (None, None, {"count": 1})


def test_a_reservation_shows_its_next_time() -> None:
    """The first of those told, with what it lacks then; none when it has no further one."""
    when = "daily 10:00-12:00"
    item = Reservation(id="r", group="g", name="g", count=2, when=parse_when(when), when_text=when, by="ann")
    times = [Window(reservation=item, begin=begin, end=begin + 9) for begin in (5, 86405)]
    board = Board(snapshot(gpu(0)), (), NOW)
    past, found = shown.reservations([replace(item, id="past"), item], times, NOW, board)
    assert (past["next"], found["by"], found["reason"]) == (None, "ann", None)
    assert found["next"] == {
        "begins_at": "2026-01-01T00:16:45Z",
        "ends_at": "2026-01-01T00:16:54Z",
        "running": False,
        "needs": 2,
    }
    assert shown.reservations([item], times, NOW, None)[0]["next"]["needs"] is None
    assert (shown.too_much(item, board) or "").startswith("2 x full is more than this server has")
    assert shown.too_much(replace(item, count=1), board) is shown.too_much(item, None) is None


def test_a_window_shows_what_it_lacks() -> None:
    """How many devices are still needed; None while nobody can say."""
    when = "Tue 10:00-12:00"
    item = Reservation(id="r", group="g", name="g", count=2, when=parse_when(when), when_text=when)
    held = replace(lease("a", gpu(0).uuid, owner=3), groups=("g",))
    running, later = Window(reservation=item, begin=-5, end=60), Window(reservation=item, begin=5, end=60)
    board = Board(snapshot(gpu(0), gpu(1)), (held,), NOW)
    (found,) = shown.windows([running], NOW, board)
    assert (found["running"], found["needs"], found["ends_at"]) == (True, 1, "2026-01-01T00:17:40Z")
    assert [one["needs"] for one in shown.windows([running, later], NOW, board)] == [1, 2]
    assert shown.windows([later], NOW, None)[0]["needs"] is None
