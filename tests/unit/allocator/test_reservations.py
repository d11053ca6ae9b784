"""Reservations: when they hold, across a change of clocks too, and what they keep from whom."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pytest

from allocator.board import Board
from allocator.model import DeviceState, GroupLimit, Placement, Refusal, RefusalKind
from allocator.place import place
from allocator.reservations import Reservation, Window, is_over, kept_for, missing, most, upcoming
from policy.model import Uid
from policy.when import parse_when
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, lease, want

if TYPE_CHECKING:
    from allocator.model import GpuRequest, Lease

NOW = Clock()()
BERLIN = ZoneInfo("Europe/Berlin")
THREE = snapshot(gpu(0), gpu(1), gpu(2))
FOUR = snapshot(gpu(0), gpu(1), gpu(2), gpu(3))


def reservation(when: str = "Tue 10:00-12:00", **changes: object) -> Reservation:
    base = Reservation(id="r", group="course", name="course", count=2, when=parse_when(when), when_text=when)
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def window(begin: float, **changes: object) -> Window:
    return Window(reservation=reservation(**changes), begin=begin, end=begin + 7200)  # type: ignore[arg-type]  # as above


def times(when: str, now: str) -> list[tuple[str, str]]:
    at = datetime.fromisoformat(now)
    found = upcoming([reservation(when)], at, BERLIN)
    return [
        (
            datetime.fromtimestamp(at.timestamp() + item.begin, UTC).isoformat()[:16],
            datetime.fromtimestamp(at.timestamp() + item.end, UTC).isoformat()[:16],
        )
        for item in found
    ]


def test_a_weekly_time_comes_again() -> None:
    """In local time; the one that runs is the first, with a beginning in the past."""
    assert times("Tue 10:00-12:00", "2026-06-02T09:30:00Z") == [
        ("2026-06-02T08:00", "2026-06-02T10:00"),
        ("2026-06-09T08:00", "2026-06-09T10:00"),
    ]


def test_it_stays_what_the_clock_shows() -> None:
    """When clocks change, ten o'clock is another moment in UTC, and a night is an hour longer."""
    assert times("Sun 10:00-12:00", "2026-10-20T00:00:00Z") == [("2026-10-25T09:00", "2026-10-25T11:00")]
    assert times("Sat 22:00-06:00", "2026-10-20T00:00:00Z") == [("2026-10-24T20:00", "2026-10-25T05:00")]


def test_one_date_is_once() -> None:
    """Before it is shown, after it is over."""
    assert times("2026-12-01 22:00-02:00", "2026-11-30T00:00:00Z") == [
        ("2026-12-01T21:00", "2026-12-02T01:00")
    ]
    assert times("2026-12-01 22:00-02:00", "2026-12-02T01:00:00Z") == []
    once = reservation("2026-12-01 22:00-02:00")
    assert not is_over(once, datetime(2026, 12, 2, 0, 59, tzinfo=UTC), BERLIN)
    assert is_over(once, datetime(2026, 12, 2, 1, 0, tzinfo=UTC), BERLIN)
    assert not is_over(reservation(), datetime(2099, 1, 1, tzinfo=UTC), BERLIN)


def test_one_date_is_told_however_far_ahead() -> None:
    """Who asks for a GPU for months would run into it."""
    assert times("2027-12-01 10:00-12:00", "2026-11-30T00:00:00Z") == [
        ("2027-12-01T09:00", "2027-12-01T11:00")
    ]


@pytest.mark.parametrize(
    ("profile", "number"), [("full", 2), ("mig", 2), ("1g.5gb", 1), ("7g.40gb", 0), ("any", 4)]
)
def test_there_are_so_many_of_a_class(profile: str, number: int) -> None:
    """What is out of service counts, what is split does not; what is not wholly known has no number."""
    lost = gpu(1, state=DeviceState.LOST)
    machine = snapshot(gpu(0), lost, *split(2, "1g.5gb", "2g.10gb"))
    assert most(machine, reservation(profile=profile)) == number
    assert most(replace(machine, complete=False), reservation(profile=profile)) is None


def placed(asked: GpuRequest, *windows: Window, leases: tuple[Lease, ...] = ()) -> Placement | Refusal:
    board = Board(THREE, leases, NOW)
    return place(board, asked, withheld=kept_for(board, asked, windows))


@pytest.mark.parametrize(
    ("seconds", "begin", "most"),
    [
        pytest.param(None, 901, 3, id="no end, long before"),
        pytest.param(None, 900, 1, id="no end, within the lead"),
        pytest.param(None, -60, 1, id="no end, while it runs"),
        pytest.param(600, 600, 3, id="ends in time"),
        pytest.param(601, 600, 1, id="ends too late"),
        pytest.param(86400, 7200, 1, id="ends too late, however long before"),
    ],
)
def test_others_may_have_what_is_back_in_time(seconds: int | None, begin: float, most: int) -> None:
    """A lease with an end may use a kept device if it ends before; others may not from the lead on."""
    for count in (1, 2, 3):
        outcome = placed(want(count=count, seconds=seconds), window(begin))
        assert isinstance(outcome, Placement) == (count <= most)
        if isinstance(outcome, Refusal):
            assert outcome.kind is RefusalKind.RESERVED
            assert outcome.waiting_helps


def test_its_own_people_may() -> None:
    """Members of the group, or the user."""
    assert isinstance(placed(want(count=3, groups=(GroupLimit(name="course"),)), window(0)), Placement)
    assert isinstance(placed(want(count=3), window(0, group=None, uid=Uid(1000))), Placement)
    assert isinstance(placed(want(count=3), window(0, group=None, uid=Uid(1001))), Refusal)


def test_what_is_held_or_comes_back_need_not_be_kept() -> None:
    """Devices of its own people, and of leases that end before it begins, count for it."""
    own = replace(lease("a", gpu(0).uuid, owner=5), groups=("course",))
    assert isinstance(placed(want(count=1), window(0), leases=(own,)), Placement)
    back = replace(lease("b", gpu(0).uuid, owner=5), seconds=500)
    assert isinstance(placed(want(count=1), window(600), leases=(back,)), Placement)
    late = replace(back, seconds=700)
    assert isinstance(placed(want(count=1), window(600), leases=(late,)), Refusal)
    assert list(missing(Board(THREE, (late,), NOW), [window(600)]).values()) == [2]


def kept(*windows: Window, leases: tuple[Lease, ...] = (), seconds: int | None = None) -> int:
    """How many of four GPUs are kept from a stranger."""
    board = Board(FOUR, leases, NOW)
    return len(kept_for(board, want(seconds=seconds), windows))


def test_one_device_does_not_count_for_two_at_the_same_time() -> None:
    """What comes back, and what a group holds, is used up by the first of the reservations that overlap."""
    back = replace(lease("a", gpu(0).uuid, owner=5), seconds=500)
    assert kept(window(600, id="x"), window(600, id="y"), leases=(back,)) == 3
    own = replace(lease("a", gpu(0).uuid, gpu(1).uuid, owner=5), groups=("course",))
    assert kept(window(0, id="x"), window(0, id="y"), leases=(own,)) == 2
    assert kept(window(0, id="x"), leases=(own,)) == 0


def test_one_after_the_other_they_keep_the_same() -> None:
    """A course that comes again needs no more devices than one of its times."""
    assert kept(window(0), window(7200), window(14400), seconds=20000) == 2
    assert kept(window(0), window(7199), seconds=20000) == 4


def test_what_another_begins_with_is_not_counted_on_though_nothing_is_kept_for_it_yet() -> None:
    """A reservation with a short lead takes what comes back first, since it begins first."""
    back = replace(lease("a", gpu(0).uuid, owner=5), seconds=100)
    soon = window(500, id="x", count=1, lead_seconds=60)
    assert kept(soon, window(600, id="y", count=1), leases=(back,)) == 1
    assert kept(window(600, id="y", count=1), leases=(back,)) == 0


def test_of_two_reservations_one_gets_all_of_its_own() -> None:
    """If there are too few for both, what began first is whole, for its own people too."""
    board = Board(THREE, (), NOW)
    asked = want(count=2, groups=(GroupLimit(name="course"),))
    windows = [window(-60, id="x"), window(0, id="y", group="other")]
    outcome = place(board, asked, withheld=kept_for(board, asked, windows))
    assert outcome == Placement(devices=(gpu(0).uuid, gpu(1).uuid), equivalents=Fraction(2))
    assert len(kept_for(board, replace(asked, groups=(GroupLimit(name="other"),)), windows)) == 2


def test_a_named_device_is_refused_only_where_it_must_be() -> None:
    """Others are kept as long as there are others."""
    named = want(count=None, device_ids=("0",))
    assert placed(named, window(0)) == Placement(devices=(gpu(0).uuid,))
    outcome = placed(named, window(0, count=3))
    assert isinstance(outcome, Refusal)
    assert "kept for a reservation" in outcome.message


def test_a_class_is_kept_and_others_are_not() -> None:
    """A reservation of MIG devices of one profile keeps those alone."""
    board = Board(snapshot(gpu(0), *split(1, "1g.5gb", "3g.20gb")), (), NOW)
    kept = frozenset(kept_for(board, want(), [window(0, count=1, profile="3g.20gb")]))
    assert kept == {mig(1, 1, "3g.20gb").uuid}
    assert (
        len(kept_for(board, want(), [window(0, count=1, profile="mig"), window(0, count=9, profile="any")]))
        == 3
    )
