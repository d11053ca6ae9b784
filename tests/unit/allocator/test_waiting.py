"""The line: who stands in it, in what order, and what they claim."""

from __future__ import annotations

from contextlib import suppress

from allocator.model import Lease, Refusal, RefusalKind
from allocator.queue import Claims
from allocator.waiting import Line
from policy.model import DeviceUuid, Uid
from tests.fakes.leasing import Clock, lease, want

BUSY = Refusal(kind=RefusalKind.IN_USE, message="busy")
CLAIMS = Claims(devices=frozenset({DeviceUuid("GPU-1")}))


async def test_who_leaves_claims_nothing() -> None:
    """Whether served, refused or gone."""
    line = Line()
    first, second = line.enter(want(), Clock()()), line.enter(want(), Clock()())
    with suppress(KeyError), line.joined(first, BUSY, CLAIMS):
        assert line.claimed_ahead_of(second, {}).devices == CLAIMS.devices
        assert line.claimed_ahead_of(first, {}).devices == frozenset()
        raise KeyError
    assert len(line) == 0
    assert line.claimed_ahead_of(second, {}).devices == frozenset()


async def test_who_is_served_claims_nothing_while_it_leaves() -> None:
    """Its lease holds the device already."""
    line = Line()
    first, second = line.enter(want(), Clock()()), line.enter(want(), Clock()())
    with line.joined(first, BUSY, CLAIMS) as waiter:
        granted: Lease = lease("a", "GPU-1")
        waiter.outcome.set_result(granted)
        assert line.ordered({}) == []
        assert line.claimed_ahead_of(second, {}).devices == frozenset()


async def test_who_asks_again_keeps_its_place() -> None:
    """By the moment of its first asking, which cannot lie in the future."""
    line, clock = Line(), Clock()
    young = line.enter(want(owner_uid=Uid(1)), clock())
    old = line.enter(want(owner_uid=Uid(2), asked_ms=5), clock())
    ahead_of_time = line.enter(want(owner_uid=Uid(3), asked_ms=1 << 50), clock())
    assert ahead_of_time.asked_ms == clock().boottime_ms
    with line.joined(young, BUSY, CLAIMS), line.joined(old, BUSY, CLAIMS):
        assert [waiter.entry.want.owner_uid for waiter in line.ordered({})] == [2, 1]
