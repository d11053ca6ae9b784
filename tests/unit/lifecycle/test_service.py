"""The loop over all leases: warnings, then the stop, each for its own; and nothing at all while nobody can say."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from lifecycle.service import Lifecycle
from policy.model import ContainerId, LeaseId
from tests.fakes.ending import BOX, ONE, EndingWorld, container, lease

OTHER_BOX, OTHER = ContainerId("b" * 64), LeaseId("lease2")


class Looking:
    """A world with two of alice's leases, one of which has an end, and looks at it."""

    def __init__(self, directory: Path) -> None:
        endless = lease(id=OTHER, container=OTHER_BOX, seconds=None, left_seconds=None)
        self.world = EndingWorld(directory, lease(left_seconds=1800), endless)
        self.world.containers.held[OTHER_BOX] = container(id=OTHER_BOX, name="u1001.free", lease=OTHER)
        self.beats: list[str | None] = []
        self.restart()

    def restart(self) -> None:
        self.world.restart()
        self.lifecycle = Lifecycle(
            leases=self.world.leases,
            limits=self.world.limits,
            stopping=self.world.stopping,
            look_seconds=30,
            beat=self.beats.append,
        )

    async def look(self) -> float:
        """One look, and what came of it done."""
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            return await self.lifecycle.look(tasks)

    async def live(self, seconds: int, *, each: Callable[[], None] = lambda: None) -> None:
        """Look as often as it asks to, for so long."""
        until_ms = self.world.now_ms + seconds * 1000
        while self.world.now_ms < until_ms:
            self.world.pass_seconds(max(1, int(await self.look())))
            each()


@pytest.fixture
def looking(tmp_path: Path) -> Looking:
    return Looking(tmp_path)


async def test_a_whole_life(looking: Looking) -> None:
    """Half an hour before, five minutes before, and stopped within seconds of its end; what has no end goes on."""
    await looking.live(1799)
    assert len(looking.world.terminals.lines) == 2
    assert looking.world.containers.stops == []
    await looking.live(5)
    assert looking.world.containers.stops == [BOX]
    await looking.live(3600)
    assert looking.world.containers.stops == [BOX]
    assert looking.world.containers.held[OTHER_BOX].running
    assert len(looking.world.terminals.lines) == 2


async def test_killed_at_every_look_it_does_the_same(looking: Looking) -> None:
    """Nothing it needs is in memory alone."""
    await looking.live(1810, each=looking.restart)
    assert len(looking.world.terminals.lines) == 2
    assert looking.world.containers.stops == [BOX]


async def test_while_the_allocator_is_silent_nothing_is_stopped(looking: Looking) -> None:
    """However long; the loss is logged once, and once that it is back, when all goes on."""
    await looking.live(1790)
    looking.world.leases.down = True
    with capture_logs() as lines:
        await looking.live(3600)
        assert looking.world.containers.stops == []
        assert looking.beats[-1] == "the allocator does not answer"
        looking.world.leases.down = False
        await looking.live(1)
    assert [line["event"] for line in lines] == ["upstream.lost", "upstream.recovered", "container.stopped"]
    assert looking.beats[-1] is None


async def test_while_the_proxy_is_silent_it_tries_again_and_never_hot(looking: Looking) -> None:
    """An hour without it costs a few attempts; then the container is stopped."""
    await looking.live(1799)
    looking.world.containers.down = True
    with capture_logs() as lines:
        await looking.live(3600)
    failed = [line for line in lines if line["event"] == "container.unstopped"]
    assert 5 <= len(failed) <= 12
    looking.world.containers.down = False
    await looking.live(601)
    assert looking.world.containers.stops == [BOX]


async def test_it_looks_at_least_every_half_minute_and_at_most_once_a_second(looking: Looking) -> None:
    """And in between when a warning or an end is due."""
    looking.world.leases.change(left_seconds=7200)
    assert await looking.look() == 30
    looking.world.leases.change(left_seconds=1810)
    assert await looking.look() == 10
    looking.world.leases.change(left_seconds=1801)
    assert await looking.look() == 1
    looking.world.leases.held.clear()
    assert await looking.look() == 30


async def test_a_slow_stop_holds_up_no_look(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may take five minutes; meanwhile it is not asked to stop a second time."""
    release = asyncio.Event()
    stop = looking.world.containers.stop

    async def slow(one: Any) -> None:
        await release.wait()
        await stop(one)

    await looking.live(1799)
    looking.world.pass_seconds(3)
    monkeypatch.setattr(looking.world.containers, "stop", slow)
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        for _ in range(3):
            await looking.lifecycle.look(tasks)
            await asyncio.sleep(0.01)
        assert looking.world.containers.stops == []
        release.set()
    assert looking.world.containers.stops == [BOX]
    assert len(looking.world.audit) == 1


async def test_it_looks_again_by_itself(looking: Looking) -> None:
    """Until it is told to end."""
    looking.world.leases.change(left_seconds=-1)
    running = asyncio.timeout(1.5)
    with pytest.raises(TimeoutError):
        async with running:
            await looking.lifecycle.run()
    assert len(looking.beats) >= 1
    assert len(looking.world.terminals.lines) == 1


async def test_what_was_said_of_a_lease_that_is_gone_is_forgotten(looking: Looking) -> None:
    """The file does not grow."""
    await looking.look()
    assert looking.world.records.get(ONE) is not None
    del looking.world.leases.held[ONE]
    await looking.look()
    assert looking.world.records.get(ONE) is None
