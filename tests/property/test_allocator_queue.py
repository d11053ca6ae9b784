"""The line against a small oracle: whatever comes back, nobody ahead waits longer for what was given to those behind."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import combinations, pairwise
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from allocator.board import Board, suits
from allocator.model import DeviceState, GroupLimit, Lease, Moment, Placement, Refusal, RefusalKind, Snapshot
from allocator.place import place
from allocator.queue import Claims, Entry, answer, ordered, still_waits
from allocator.shares import HALF_LIFE_SECONDS, of_lease, used, with_lease
from allocator.slices import equivalents
from policy.model import DeviceUuid, LeaseId, Uid
from tests.fakes.fake_nvml import gpu, snapshot, split
from tests.fakes.leasing import Clock, lease, want

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.model import Device, GpuRequest

MACHINES = st.sampled_from(
    [
        snapshot(gpu(0), gpu(1), gpu(2)),
        snapshot(gpu(0), *split(1, "1g.5gb", "1g.5gb", "2g.10gb")),
        snapshot(gpu(0), gpu(1), *split(2, "3g.20gb", "1g.5gb")),
        snapshot(gpu(0, state=DeviceState.LOST), gpu(1), *split(2, "2g.10gb", "2g.10gb", "1g.5gb")),
        snapshot(
            gpu(0, state=DeviceState.UNRESPONSIVE, recovers=True),
            gpu(1),
            gpu(2, pids=(7,)),
            *split(3, "1g.5gb"),
        ),
    ]
)
WORTHS = [Fraction(1, 7), Fraction(3, 7), Fraction(1)]
GROUPS = st.sampled_from([(), (GroupLimit(name="a", devices=2),), (GroupLimit(name="b", devices=3),)])
LIMITS = {RefusalKind.LIMIT, RefusalKind.GROUP_LIMIT}
WAITING = {RefusalKind.IN_USE, RefusalKind.RESERVED}


@st.composite
def lines(draw: st.DrawFn) -> tuple[Snapshot, tuple[Lease, ...], list[GpuRequest]]:
    machine = draw(MACHINES)
    names = [uuid for uuid, device in machine.devices.items() if device.state is DeviceState.OK]
    held = draw(st.lists(st.sampled_from(names), max_size=4, unique=True))
    groups = {uid: draw(GROUPS) for uid in range(1, 5)}
    leases = tuple(
        lease(f"l{at}", uuid, owner=(uid := at % 4 + 1), groups=tuple(each.name for each in groups[uid]))
        for at, uuid in enumerate(held)
    )
    most = {uid: draw(st.integers(1, 4)) for uid in range(1, 5)}
    asked = []
    for _ in range(draw(st.integers(2, 4))):
        uid = draw(st.integers(1, 4))
        what: dict[str, object] = draw(
            st.one_of(
                st.builds(dict, count=st.integers(1, 3)),
                st.builds(dict, count=st.integers(1, 2), profile=st.sampled_from(["1g.5gb", "full", "any"])),
                st.builds(dict, count=st.just(1), memory_mib=st.sampled_from([5000, 15000])),
                st.builds(dict, count=st.integers(1, 2), classes=st.just(("1g.5gb", "2g.10gb"))),
                st.builds(dict, count=st.integers(1, 2), equivalents=st.sampled_from(WORTHS)),
                st.builds(
                    dict, count=st.just(1), classes=st.sampled_from([("mig",), ("gpu",), ("mig", "gpu")])
                ),
                st.builds(
                    dict, count=st.none(), device_ids=st.tuples(st.sampled_from(sorted(machine.devices)))
                ),
            )
        )
        limits = {"owner_uid": Uid(uid), "groups": groups[uid], "limit": most[uid]}
        asked.append(want(**{**limits, **what}))
    return machine, leases, asked


def granted(at: int, asked: GpuRequest, placement: Placement) -> Lease:
    base = lease(f"new{at}", *placement.devices, owner=asked.owner_uid)
    groups = tuple(group.name for group in asked.groups)
    return replace(base, groups=groups, equivalents=placement.equivalents)


def serve(
    machine: Snapshot, leases: tuple[Lease, ...], line: Sequence[GpuRequest]
) -> dict[int, Placement | Refusal]:
    """One pass over a line, as the service makes it."""
    answers: dict[int, Placement | Refusal] = {}
    ahead: list[Claims] = []
    live = leases
    for at, asked in enumerate(line):
        board = Board(machine, live)
        found = answer(board, asked, (), Claims.of(ahead))
        quick = still_waits(board, asked, (), Claims.of(ahead))
        if isinstance(found.outcome, Placement) or not curable(machine, asked):
            assert quick is None
        assert quick in {None, found.claims}
        answers[at] = found.outcome
        if isinstance(found.outcome, Placement):
            live = (*live, granted(at, asked, found.outcome))
        else:
            ahead.append(found.claims)
    return answers


def curable(machine: Snapshot, asked: GpuRequest) -> bool:
    """Whether there are devices that would do if nobody had any; tries everything."""
    plain = asked.profile is None and asked.memory_mib is None
    classes = asked.classes if plain else ("gpu", "mig")
    if asked.device_ids:
        sets = [tuple(machine.devices[DeviceUuid(uuid)] for uuid in asked.device_ids)]
    else:
        sets = [
            some
            for some in combinations(machine.devices.values(), asked.count or 0)
            if any(all(name in (one.kind, one.profile) for one in some) for name in classes)
        ]
    return any(
        all(one.state is DeviceState.OK and suits(one, asked) for one in some) and within_limits(some, asked)
        for some in sets
    )


def within_limits(some: Sequence[Device], asked: GpuRequest) -> bool:
    worth = sum((equivalents(one) for one in some), Fraction(0))
    limits = [
        (asked.limit, asked.equivalents),
        *((group.devices, group.equivalents) for group in asked.groups),
    ]
    return all(
        (most is None or len(some) <= most) and (worth_most is None or worth <= worth_most)
        for most, worth_most in limits
    )


@settings(max_examples=200, deadline=None)
@given(lines())
def test_nobody_waits_for_who_can_never_be_served(
    case: tuple[Snapshot, tuple[Lease, ...], list[GpuRequest]],
) -> None:
    """Who could not be served whatever comes back gets a refusal that says so, and the others what they would get without."""
    machine, leases, line = case
    answers = serve(machine, leases, line)
    for at, asked in enumerate(line):
        refusal = answers[at]
        if not curable(machine, asked):
            assert isinstance(refusal, Refusal)
            assert not refusal.waiting_helps
        elif isinstance(refusal, Refusal):
            assert refusal.kind in WAITING | LIMITS
    able = [at for at, asked in enumerate(line) if curable(machine, asked)]
    alone = serve(machine, leases, [line[at] for at in able])
    assert [answers[at] for at in able] == list(alone.values())


@settings(max_examples=400, deadline=None)
@given(lines())
def test_nobody_ahead_waits_longer(case: tuple[Snapshot, tuple[Lease, ...], list[GpuRequest]]) -> None:
    """What a request that waits for devices could have after any leases have ended, it can have beside those behind it."""
    machine, leases, line = case
    answers = serve(machine, leases, line)
    served = {at: found for at, found in answers.items() if isinstance(found, Placement)}
    for at, asked in enumerate(line):
        refusal = answers[at]
        if isinstance(refusal, Placement) or refusal.kind in LIMITS:
            continue
        before = [granted(one, line[one], placed) for one, placed in served.items() if one < at]
        behind = [granted(one, line[one], placed) for one, placed in served.items() if one > at]
        for number in range(len(leases) + 1):
            for left in combinations(leases, number):
                alone = place(Board(machine, (*left, *before)), asked)
                with_all = place(Board(machine, (*left, *before, *behind)), asked)
                assert isinstance(with_all, Placement) or not isinstance(alone, Placement)


@settings(max_examples=200, deadline=None)
@given(lines())
def test_the_first_in_line_is_served_if_anything_is_free_for_it(
    case: tuple[Snapshot, tuple[Lease, ...], list[GpuRequest]],
) -> None:
    """Nobody ahead means nobody to wait for, and no device is given twice."""
    machine, leases, line = case
    answers = serve(machine, leases, line)
    served = {at: found for at, found in answers.items() if isinstance(found, Placement)}
    assert (0 in served) == isinstance(place(Board(machine, leases), line[0]), Placement)
    held = [uuid for placed in served.values() for uuid in placed.devices]
    assert len(held) == len(set(held))


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 1), st.integers(1, 3)), min_size=2, max_size=8),
    st.dictionaries(st.integers(0, 3).map(Uid), st.floats(0, 1e6)),
)
def test_the_order_is_by_priority_then_share_then_arrival(
    asked: list[tuple[int, int, int]], shares: dict[Uid, float]
) -> None:
    """Of two neighbours the first has the higher priority, or the smaller share for its weight, or came first."""
    entries = [
        Entry(want=want(owner_uid=Uid(uid), priority=priority, weight=weight), asked_ms=at // 2, number=at)
        for at, (uid, priority, weight) in enumerate(asked)
    ]

    def key(entry: Entry) -> tuple[float, ...]:
        share = shares.get(entry.want.owner_uid, 0.0) / entry.want.weight
        return (-entry.want.priority, share, entry.asked_ms, entry.number)

    line = ordered(entries, shares)
    assert all(key(one) < key(other) for one, other in pairwise(line))


@given(st.floats(1, 1e6), st.floats(1, 1e6), st.floats(0, 1e6))
def test_usage_does_not_depend_on_when_it_is_looked_at(first: float, second: float, later: float) -> None:
    """A lease that is cut in two by a release and comes back has used as much as one that was never cut."""

    def at(seconds: float) -> Moment:
        clock = Clock()
        clock.seconds = 1000 + round(seconds, 3)
        return clock()

    whole = replace(lease("a", "GPU-1"), since=at(0))
    rest = replace(whole, id=LeaseId("b"), devices=(DeviceUuid("GPU-1"),), since=at(first))
    cut = with_lease(with_lease(None, whole, at(first)), rest, at(first + second))
    uncut = with_lease(None, whole, at(first + second))
    now = at(first + second + later)
    assert abs(used(cut, now) - used(uncut, now)) <= 1e-3 + 1e-6 * used(uncut, now)
    assert of_lease(whole, at(first)) <= first + 0.001
    assert used(uncut, at(first + second + HALF_LIFE_SECONDS)) <= 0.5001 * uncut.amount + 1e-9
