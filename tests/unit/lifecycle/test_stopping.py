"""Stopping a container: only while the reason holds and the lease is its own, on record, and never hot."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from lifecycle.stopping import Stopping
from policy.model import LeaseId
from tests.fakes.ending import BOX, ONE, EndingWorld, container, lease


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


@pytest.fixture
def world(tmp_path: Path) -> EndingWorld:
    return EndingWorld(tmp_path, lease(left_seconds=-1))


async def stop(world: EndingWorld, *, holds: Any = yes, **changes: object) -> list[Any]:
    """One attempt. Returns: what was logged."""
    world.stopping.begin(lease())
    with capture_logs() as lines:
        await world.stopping.stop(lease(**changes), holds=holds, reason="its time is over")
    return list(lines)


async def test_it_is_stopped_and_kept_and_both_are_on_record(world: EndingWorld) -> None:
    """The audit before the stop, the log after it."""
    lines = await stop(world)
    assert world.containers.stops == [BOX]
    assert not world.containers.held[BOX].running
    (record,) = world.audit
    assert (record["container"], record["owner_uid"], record["lease"]) == (BOX, 1001, ONE)
    assert [line["event"] for line in lines] == ["container.stopped"]


async def test_a_reason_that_holds_no_more_stops_nothing(world: EndingWorld) -> None:
    """It is asked last, and its word counts."""
    assert await stop(world, holds=no) == []
    assert (world.containers.stops, world.audit) == ([], [])


@pytest.mark.parametrize("carried", [None, LeaseId("lease2")])
async def test_a_container_of_another_lease_is_not_stopped(
    world: EndingWorld, carried: LeaseId | None
) -> None:
    """The ledger says that it is this one; its own label does not."""
    world.containers.held[BOX] = container(lease=carried)
    (line,) = await stop(world)
    assert line["event"] == "container.unstopped"
    assert "another lease" in line["problem"]
    assert (world.containers.stops, world.audit) == ([], [])


@pytest.mark.parametrize("running", [False, None])
async def test_what_does_not_run_needs_no_stop(world: EndingWorld, running: bool | None) -> None:
    """Stopped meanwhile, or gone: nothing to do, and nothing to tell."""
    world.containers.held = {} if running is None else {BOX: container(running=running)}
    assert await stop(world) == []
    assert (world.containers.stops, world.audit) == ([], [])


async def test_without_an_audit_nothing_is_stopped(world: EndingWorld) -> None:
    """A full disk: no change that is not on record."""
    world.audit_down = True
    (line,) = await stop(world)
    assert "no space left" in line["problem"]
    assert world.containers.stops == []


@pytest.mark.parametrize("stubborn", ["500: cannot stop", ""])
async def test_what_does_not_stop_is_tried_again_ever_more_seldom(world: EndingWorld, stubborn: str) -> None:
    """Whether the engine says so or claims the opposite: an error with the next time, never sooner, at most ten minutes off."""
    world.containers.stubborn = stubborn
    pauses = []
    for number in range(1, 9):
        (line,) = await stop(world)
        assert (line["event"], line["attempt"], line["log_level"]) == ("container.unstopped", number, "error")
        assert world.stopping.in_seconds(ONE) == line["again_seconds"]
        pauses.append(line["again_seconds"])
    assert pauses == [30, 60, 120, 240, 480, 600, 600, 600]
    world.now_ms += 599_000
    assert world.stopping.in_seconds(ONE) == 1
    world.now_ms += 1_000
    assert world.stopping.in_seconds(ONE) == 0


@pytest.mark.parametrize("who", ["proxy", "allocator"])
async def test_who_cannot_be_asked_stops_nothing(world: EndingWorld, who: str) -> None:
    """Nothing is known, so nothing is done, and it is tried again."""
    world.containers.down, world.leases.down = who == "proxy", who == "allocator"

    async def holds() -> bool:
        return bool(await world.leases.live())

    (line,) = await stop(world, holds=holds)
    assert line["problem"] == f"the {who} does not answer"
    assert (world.containers.stops, world.stopping.in_seconds(ONE)) == ([], 30)


async def test_one_attempt_at_a_time(world: EndingWorld) -> None:
    """While one is under way there is no other, and after it a pause; a lease that is gone is forgotten."""
    assert world.stopping.in_seconds(ONE) == 0
    world.stopping.begin(lease())
    assert world.stopping.in_seconds(ONE) is None
    world.stopping.keep([])
    assert world.stopping.in_seconds(ONE) is None
    await world.stopping.stop(lease(), holds=yes, reason="r")
    assert world.stopping.in_seconds(ONE) == 30
    world.stopping.keep([])
    assert world.stopping.in_seconds(ONE) == 0


async def test_slow_ones_hold_up_only_some(world: EndingWorld) -> None:
    """Eight at once."""
    going, release = 0, asyncio.Event()

    async def holds() -> bool:
        nonlocal going
        going += 1
        await release.wait()
        return False

    stopping = Stopping(containers=world.containers, audit=print, clock_ms=world.clock_ms)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for number in range(12):
            one = lease(id=LeaseId(f"l{number}"))
            stopping.begin(one)
            tasks.create_task(stopping.stop(one, holds=holds, reason="r"))
        await asyncio.sleep(0.05)
        assert going == 8
        release.set()
    assert going == 12
