"""Time limits carried out: who is told what, once, over restarts; and what must hold at the very last moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from lifecycle.ending import Due, Step
from policy.grants import TimeOver
from policy.model import ContainerId, Uid
from tests.fakes.ending import ALICE, BOX, ONE, EndingWorld, container, lease


@pytest.fixture
def world(tmp_path: Path) -> EndingWorld:
    return EndingWorld(tmp_path, lease(left_seconds=1800))


async def look(world: EndingWorld) -> Due:
    return await world.limits.look(world.leases.held[ONE])


async def until_over(world: EndingWorld) -> None:
    """Warned in time, and over now."""
    await look(world)
    world.pass_seconds(1500)
    await look(world)
    world.pass_seconds(301)


async def test_the_owner_is_told_which_container_and_when(world: EndingWorld) -> None:
    """By the owner's own name for it; the log says how many terminals heard it."""
    with capture_logs() as lines:
        await look(world)
    ((uid, text),) = world.terminals.lines
    assert uid == ALICE
    assert text.startswith("ds01: your container train is stopped in 30min")
    assert [(line["event"], line["seconds_left"], line["terminals"]) for line in lines] == [
        ("lease.warned", 1800, 1)
    ]


async def test_each_warning_is_given_once_over_restarts(world: EndingWorld) -> None:
    """Two times, two lines, whatever happens between."""
    for _ in range(3):
        await look(world)
        world.restart()
    world.pass_seconds(1500)
    for _ in range(3):
        await look(world)
        world.restart()
    assert [text.partition(" in ")[2].partition(",")[0] for _, text in world.terminals.lines] == [
        "30min",
        "5min",
    ]


async def test_a_restart_does_not_put_off_the_stop(world: EndingWorld) -> None:
    """What was warned of before counts."""
    await until_over(world)
    world.restart()
    assert (await look(world)).step is Step.STOP


async def test_after_a_reboot_the_warning_comes_again(world: EndingWorld) -> None:
    """And the stop only after its time: the clock by which the lease is over may have been wrong at boot."""
    await until_over(world)
    world.restart(boot="boot-2")
    assert (await look(world)).step is Step.WARN
    assert (await look(world)).step is Step.NOTHING


async def test_the_warning_comes_without_a_name_if_need_be(world: EndingWorld) -> None:
    """While the proxy is away the id has to do."""
    world.containers.down = True
    await look(world)
    ((_, text),) = world.terminals.lines
    assert f"your container {BOX[:12]} is" in text


async def test_nobody_is_warned_of_what_does_not_run(world: EndingWorld) -> None:
    """The allocator learns of a stop half a minute later; if it runs again, the warning comes then."""
    world.containers.held[BOX] = container(running=False)
    await look(world)
    assert world.terminals.lines == []
    world.containers.held[BOX] = container()
    await look(world)
    assert len(world.terminals.lines) == 1


async def test_under_report_it_is_logged_once_and_goes_on(world: EndingWorld) -> None:
    """Over restarts; nobody is told of a stop."""
    world.rules.word = TimeOver.REPORT
    world.pass_seconds(1801)
    with capture_logs() as lines:
        for _ in range(3):
            assert (await look(world)).step in (Step.REPORT, Step.NOTHING)
            world.restart()
    assert [line["event"] for line in lines] == ["lease.overdue"]
    assert world.terminals.lines == []
    assert not await world.limits.still_over(world.leases.held[ONE])


async def test_an_unknown_owner_is_left_alone(world: EndingWorld) -> None:
    """Nobody knows the policy's word on it: a log line, once, and nothing else; known again, it goes on."""
    await until_over(world)
    world.rules.word = None
    with capture_logs() as lines:
        assert (await look(world)).step is Step.NOTHING
        assert (await look(world)).step is Step.NOTHING
    assert [line["event"] for line in lines] == ["owner.unknown"]
    world.rules.word = TimeOver.STOP
    assert (await look(world)).step is Step.STOP


async def test_no_account_is_asked_of_for_a_lease_without_end(world: EndingWorld) -> None:
    """Most leases have none."""
    world.rules.word = None
    with capture_logs() as lines:
        found = await world.limits.look(world.leases.change(seconds=None, left_seconds=None))
    assert (found.step, lines) == (Step.NOTHING, [])


async def test_what_is_over_is_still_over_unless_something_changed(world: EndingWorld) -> None:
    """The very same lease, read anew."""
    await until_over(world)
    assert await world.limits.still_over(world.leases.held[ONE])


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"seconds": 9 * 3600, "left_seconds": 3599}, id="more time"),
        pytest.param({"container": ContainerId("c" * 64)}, id="another container"),
        pytest.param({"container": None}, id="no container"),
        pytest.param({"owner_uid": Uid(1002)}, id="another owner"),
        pytest.param({"state": "held"}, id="stopped"),
        pytest.param({"state": "released"}, id="released"),
        pytest.param({"left_seconds": 0}, id="not over for certain"),
        pytest.param({"seconds": None, "left_seconds": None}, id="no end any more"),
    ],
)
async def test_a_change_at_the_last_moment_counts(world: EndingWorld, changes: dict[str, Any]) -> None:
    """Between the look and the stop."""
    await until_over(world)
    seen = world.leases.held[ONE]
    world.leases.change(**changes)
    assert not await world.limits.still_over(seen)


async def test_a_lease_that_is_gone_is_not_over(world: EndingWorld) -> None:
    """There is nothing to stop for."""
    await until_over(world)
    seen = world.leases.held.pop(ONE)
    assert not await world.limits.still_over(seen)


async def test_a_policy_changed_at_the_last_moment_counts(world: EndingWorld) -> None:
    """An admin who says `report` in time saves the container."""
    await until_over(world)
    world.rules.word = TimeOver.REPORT
    assert not await world.limits.still_over(world.leases.held[ONE])
