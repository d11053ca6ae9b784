"""What reservations keep, against an oracle that tries every way to give devices to them."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.board import Board
from allocator.reservations import Reservation, Window, kept_for, matches, missing
from policy.model import Uid
from policy.when import parse_when
from tests.fakes.fake_nvml import gpu, snapshot, split
from tests.fakes.leasing import Clock, lease, want

if TYPE_CHECKING:
    from collections.abc import Collection

    from allocator.board import Devices
    from allocator.model import Lease, Snapshot
    from policy.model import DeviceUuid

NOW = Clock()()
STRANGER = want(owner_uid=Uid(99))
GPUS = snapshot(gpu(0), gpu(1), gpu(2), gpu(3))
MIXED = snapshot(gpu(0), *split(1, "1g.5gb", "1g.5gb", "2g.10gb"))
LONG = 7 * 86400  # a lead within which every window of these tests begins


@st.composite
def windows(
    draw: st.DrawFn, *profiles: str, length: tuple[float, ...] | None = (100, 250)
) -> tuple[Window, ...]:
    """Args: length: None: they all overlap."""
    when = "daily 10:00-12:00"
    found = []
    for at in range(draw(st.integers(1, 3))):
        begin = draw(st.sampled_from([-60, 100, 200, 300, 400]))
        item = Reservation(
            id=f"r{at}",
            group=(group := draw(st.sampled_from("ab"))),
            name=group,
            count=draw(st.integers(1, 2)),
            profile=draw(st.sampled_from(profiles)),
            when=parse_when(when),
            when_text=when,
            lead_seconds=LONG,
        )
        end = 1000 if length is None else begin + draw(st.sampled_from(length))
        found.append(Window(reservation=item, begin=begin, end=end))
    return tuple(found)


@st.composite
def leased(draw: st.DrawFn, machine: Snapshot, *groups: tuple[str, ...]) -> tuple[Lease, ...]:
    names = draw(st.lists(st.sampled_from(sorted(machine.devices)), max_size=3, unique=True))
    ends, whose = st.sampled_from([None, 50, 150, 250]), st.sampled_from(groups)
    return tuple(
        replace(lease(f"l{at}", uuid, owner=7), seconds=draw(ends), groups=draw(whose))
        for at, uuid in enumerate(names)
    )


ANYBODY = ((), ("a",), ("b",))
# Which of its own devices a group uses for which of several times is not searched for: then one more may be kept.
PLAIN = st.one_of(
    st.tuples(windows("full"), leased(GPUS, ())),
    st.tuples(windows("full", length=None), leased(GPUS, *ANYBODY)),
)


def counts_for(board: Board, uuid: DeviceUuid, window: Window, free: Devices) -> bool:
    """Whether a reservation may have a device when it begins."""
    if not matches(board.snapshot.devices[uuid], window.reservation):
        return False
    holder = board.holders.get(uuid)
    if holder is None:
        return uuid in free
    left = holder.seconds_left(NOW)
    return window.reservation.group in holder.groups or (left is not None and left <= window.begin)


def all_whole(board: Board, some: Collection[Window], free: Devices) -> bool:
    """Whether every reservation can have its devices, no two that overlap the same; tries everything."""
    given: list[tuple[Window, frozenset[DeviceUuid]]] = []

    def rest(left: list[Window]) -> bool:
        if not left:
            return True
        window, *more = left
        busy = {uuid for other, devices in given if window.overlaps(other) for uuid in devices}
        able = [uuid for uuid in board.snapshot.devices if counts_for(board, uuid, window, free)]
        for chosen in combinations(sorted(set(able) - busy), window.reservation.count):
            given.append((window, frozenset(chosen)))
            if rest(more):
                return True
            given.pop()
        return False

    return rest(list(some))


@given(drawn=PLAIN)
@settings(max_examples=200, deadline=None)
def test_as_many_are_kept_as_are_needed_and_no_more(
    drawn: tuple[tuple[Window, ...], tuple[Lease, ...]],
) -> None:
    """With what is kept every reservation is whole, with one less it is not; where that cannot be, everything is kept."""
    some, leases = drawn
    board = Board(GPUS, leases, NOW)
    kept = frozenset(kept_for(board, STRANGER, some))
    if not all_whole(board, some, board.free):
        assert kept == board.free
        return
    assert all_whole(board, some, kept)
    assert not any(all_whole(board, some, kept - {uuid}) for uuid in kept)


@given(some=windows("full", "mig", "1g.5gb", "any"), leases=leased(MIXED, *ANYBODY))
@settings(max_examples=200, deadline=None)
def test_what_is_kept_is_enough_for_every_class(some: tuple[Window, ...], leases: tuple[Lease, ...]) -> None:
    """Reservations of any class that could be whole are so with what is kept for them."""
    board = Board(MIXED, leases, NOW)
    kept = frozenset(kept_for(board, STRANGER, some))
    if all_whole(board, some, board.free):
        assert all_whole(board, some, kept)


@given(drawn=PLAIN)
@settings(max_examples=200, deadline=None)
def test_what_is_lacking_is_what_leases_do_not_give(
    drawn: tuple[tuple[Window, ...], tuple[Lease, ...]],
) -> None:
    """Nothing is lacking exactly where the leased devices alone would do."""
    some, leases = drawn
    board = Board(GPUS, leases, NOW)
    nothing: Devices = frozenset()
    assert (not any(missing(board, some).values())) == all_whole(board, some, nothing)
