"""Deciding for one, and for all in line."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.model import DeviceState, Refusal, RefusalKind
from allocator.reservations import Reservation
from policy.model import Uid
from policy.when import parse_when
from tests.fakes.fake_nvml import FakeNvml, gpu, split
from tests.fakes.leasing import Clock, held, queued, service, want

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.service import Allocator


@pytest.fixture
async def one(tmp_path: Path, clock: Clock) -> AsyncIterator[Allocator]:
    allocator = service(
        tmp_path / "ledger", FakeNvml(gpu(0, generation=0), gpu(1), *split(2, "1g.5gb", "2g.10gb")), clock
    )
    yield allocator
    await allocator.close()


async def test_a_lease_says_all_that_was_agreed(one: Allocator) -> None:
    """Generation, worth, end and hold are those of the moment of the grant."""
    lease = await held(one, profile="2g.10gb", seconds=60, hold_seconds=5)
    assert (lease.generations, str(lease.equivalents), lease.seconds, lease.hold_seconds) == (
        (1,),
        "2/7",
        60,
        5,
    )


async def test_asking_again_gives_the_same_lease(one: Allocator) -> None:
    """A create whose answer was lost gets what it was granted, once it says that it asks again."""
    first = await held(one, limit=1)
    assert await one.lease(want(limit=1, asked_ms=5)) == first
    outcome = await one.lease(want(limit=1, asked_ms=5, request_id="another"))
    assert isinstance(outcome, Refusal)
    assert outcome.kind is RefusalKind.LIMIT


async def test_the_line_is_fair_and_fills_gaps(one: Allocator) -> None:
    """A GPU that comes back goes to who has had less, and a MIG device to who alone can use it meanwhile."""
    first, second = await held(one, profile="full"), await held(one, owner_uid=Uid(2), profile="full")
    async with asyncio.TaskGroup() as tasks:
        greedy = tasks.create_task(held(one, profile="full", wait_seconds=5))
        while len(one._line) < 1:  # noqa: ASYNC110  the line tells nobody
            await asyncio.sleep(0.001)
        modest = tasks.create_task(held(one, owner_uid=Uid(3), profile="full", wait_seconds=5))
        while len(one._line) < 2:  # noqa: ASYNC110  as above
            await asyncio.sleep(0.001)
        assert (await held(one, owner_uid=Uid(4))).devices[0].startswith("MIG-")
        await one.release(second.id, who="x", why="removed")
        assert (await modest).owner_uid == 3
        assert not greedy.done()
        await one.release(first.id, who="x", why="removed")
        await greedy


async def test_who_waits_in_vain_learns_its_place(one: Allocator) -> None:
    """The refusal ends with how long it waited and where in line it was."""
    for uid in (2, 3):
        await held(one, owner_uid=Uid(uid), profile="full")
    outcome = await one.lease(want(profile="full", wait_seconds=1))
    assert isinstance(outcome, Refusal)
    assert outcome.message.endswith("; you waited 1s, at position 1 of 1")


async def test_reservations_are_honoured_and_kept(one: Allocator, clock: Clock) -> None:
    """What policy or an admin reserves binds the next decision, and what is taken back does not any more."""
    when = "Thu 00:20-12:00"  # the clock stands at Thursday 00:16:40
    item = Reservation(id="r", group="course", name="course", count=2, when=parse_when(when), when_text=when)
    await one.reserving.add(replace(item, source="uid 0"))
    outcome = await one.lease(want(profile="full"))
    assert isinstance(outcome, Refusal)
    assert outcome.kind is RefusalKind.RESERVED
    (window, *_) = await one.reserving.windows()
    assert window.begin == 200
    await one.reserving.declare([replace(item, id="policy-0", source="policy", count=1)])
    assert await one.reserving.remove("r", by="root")
    assert not await one.reserving.remove("r", by="root")
    await held(one, profile="full")
    await one.reserving.declare([])
    assert await one.reserving.all() == ()


async def test_a_date_far_ahead_is_heeded_by_who_would_run_into_it(one: Allocator) -> None:
    """Months before, and only by a container that would still have its GPU then."""
    when = "2026-06-01 10:00-12:00"
    item = Reservation(id="r", group="course", name="course", count=2, when=parse_when(when), when_text=when)
    await one.reserving.add(item)
    outcome = await one.lease(want(profile="full", seconds=200 * 86400))
    assert isinstance(outcome, Refusal)
    assert outcome.kind is RefusalKind.RESERVED
    await held(one, profile="full", seconds=100 * 86400)


async def test_a_clock_that_was_ahead_hides_no_reservation(one: Allocator, clock: Clock) -> None:
    """Once it is put right, times are read again, and what is reserved soon is kept."""
    when = "daily 00:20-12:00"
    item = Reservation(id="r", group="course", name="course", count=2, when=parse_when(when), when_text=when)
    right = clock.seconds
    clock.seconds += 400 * 86400
    await one.reserving.add(replace(item, source="uid 0"))
    await one.reserving.windows()
    clock.seconds = right
    (window, *_) = await one.reserving.windows()
    assert window.begin == 200
    outcome = await one.lease(want(profile="full"))
    assert isinstance(outcome, Refusal)
    assert outcome.kind is RefusalKind.RESERVED


@pytest.fixture
def three() -> FakeNvml:
    return FakeNvml(gpu(0), gpu(1), gpu(2))


@pytest.fixture
async def whole(tmp_path: Path, clock: Clock, three: FakeNvml) -> AsyncIterator[Allocator]:
    allocator = service(tmp_path / "ledger", three, clock)
    yield allocator
    await allocator.close()


async def test_who_can_get_nothing_any_more_is_told_at_once(whole: Allocator) -> None:
    """Three GPUs that became two are not waited for: one behind gets the free one."""
    await held(whole, owner_uid=Uid(2))
    async with asyncio.TaskGroup() as tasks:
        three = tasks.create_task(whole.lease(want(count=3, wait_seconds=60)))
        await queued(whole, 1)
        assert isinstance(await whole.lease(want(owner_uid=Uid(3))), Refusal)
        await whole.upkeep.quarantine(gpu(2).uuid, who="root", why="noise")
        async with asyncio.timeout(3):
            outcome = await three
        assert isinstance(outcome, Refusal)
        assert outcome.kind is RefusalKind.TOO_FEW
        assert "1 device is out of service" in outcome.message
        await held(whole, owner_uid=Uid(3))


async def test_a_place_in_line_outlasts_a_moment_of_silence(
    whole: Allocator, three: FakeNvml, clock: Clock
) -> None:
    """While one GPU of three does not answer nobody is held up; once it does, who waits for all is ahead again."""
    first = await held(whole, owner_uid=Uid(2))
    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(held(whole, count=3, wait_seconds=60))
        await queued(whole, 1)
        three.put(gpu(2, state=DeviceState.UNRESPONSIVE, silent_seconds=1.0, pids=None))
        await whole.sweep()
        second = await held(whole, owner_uid=Uid(3))
        await whole.release(second.id, who="x", why="removed")
        three.put(gpu(2))
        clock.seconds += 9  # the next request looks for itself
        assert isinstance(await whole.lease(want(owner_uid=Uid(3))), Refusal)
        await whole.release(first.id, who="x", why="removed")
        assert len((await waiter).devices) == 3
