"""Grants carried out and taken back, with systemctl replaced by a record of what it was told."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from allocator import host_access
from allocator.attribution import Kind
from allocator.attributor import OpenElsewhere
from allocator.device_policy import Node, free_property, gpu_nodes
from allocator.host_access import AccessFailed, systemctl
from policy.model import Uid
from tests.fakes.host_access import ALICE, BOB, HOUR, World
from tests.fakes.waiting import running, started

CLOSED = ("DeviceAllow=", "DeviceAllow=char-mem rw", "DeviceAllow=block-* rw")
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); sys.stdin.read()"


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.access.close()
    made.processes.close()


def opened(*nodes: Node) -> tuple[str, tuple[str, ...]]:
    return ("user-1000.slice", (*CLOSED, *(f"DeviceAllow={node}" for node in nodes)))


CLOSED_AGAIN = ("user-1000.slice", CLOSED)


async def test_a_grant_opens_and_a_revoke_closes(world: World) -> None:
    """The slice is told the whole list each time; a second revoke finds nothing."""
    await world.grant()
    assert world.told() == [opened(*gpu_nodes([1]))]
    assert [grant.uid for grant in await world.access.live()] == [ALICE]
    ended = await world.access.revoke(ALICE, by="root", why="done")
    assert ended is not None
    assert world.told() == [CLOSED_AGAIN]
    assert await world.access.revoke(ALICE, by="root", why="done") is None
    (past,) = world.grants.past()
    assert (past.ended_by, past.ended_why) == ("root", "done")


async def test_where_sessions_are_open_a_grant_ends_open(world: World) -> None:
    """One user is not left closed among all others."""
    await world.grant()
    world.told()
    (world.directory / "closed").unlink()
    await world.access.revoke(ALICE, by="root", why="done")
    assert world.ran == [free_property(ALICE)]


async def test_a_grant_of_all_names_the_drivers_there_are(world: World) -> None:
    """By the names in /proc/devices at that moment."""
    await world.grant(nodes=())
    assert world.told() == [opened(Node(name="char-nvidia"), Node(name="char-nvidia-uvm"))]


async def test_a_grant_expires(world: World) -> None:
    """At its hour, by itself; not before."""
    await world.grant()
    world.pass_time(HOUR - 1)
    await world.access.sweep()
    assert world.told() == [opened(*gpu_nodes([1]))]
    world.pass_time(1)
    await world.access.sweep()
    assert world.told() == [CLOSED_AGAIN]
    assert await world.access.live() == ()


async def test_a_clock_that_is_set_changes_nothing(world: World) -> None:
    """Neither forward nor back."""
    await world.grant()
    world.utc += 100 * HOUR
    await world.access.sweep()
    assert len(await world.access.live()) == 1
    world.seconds += HOUR
    world.utc -= 200 * HOUR
    await world.access.sweep()
    assert await world.access.live() == ()


async def test_a_boot_carries_out_what_lives_and_takes_away_what_is_over(world: World) -> None:
    """A runtime property is gone with the boot; the time that the machine was off counts."""
    await world.grant()
    world.pass_time(600)
    await world.access.sweep()
    world.told()
    world.reboot(off_seconds=600)
    await world.access.start()
    assert world.told() == [opened(*gpu_nodes([1]))]
    world.reboot(off_seconds=HOUR)
    await world.access.start()
    assert world.told() == [CLOSED_AGAIN]
    assert world.grants.past()[0].ended_why == "expired"


async def test_a_failure_gives_nothing(world: World) -> None:
    """The admin is told; what may have been given all the same is taken away by the next sweep that can."""
    world.fails = True
    with pytest.raises(AccessFailed, match="no systemd"):
        await world.grant()
    (left,) = await world.access.live()
    assert left.left_seconds == 0
    await world.access.sweep()
    world.fails = False
    await world.access.sweep()
    assert world.told() == [CLOSED_AGAIN]
    assert await world.access.live() == ()


async def test_a_revoke_that_fails_is_tried_again(world: World) -> None:
    """Also by a daemon that was started meanwhile: it is over in the record."""
    await world.grant()
    world.told()
    world.fails = True
    with pytest.raises(AccessFailed):
        await world.access.revoke(ALICE, by="root", why="done")
    world.fails = False
    world.access = world.daemon()
    await world.access.start()
    assert world.told() == [CLOSED_AGAIN]
    assert await world.access.live() == ()


async def test_a_grant_that_could_not_be_carried_out_after_a_boot_is_tried_again(world: World) -> None:
    """systemd may be late; the grant lives on."""
    await world.grant()
    world.told()
    world.reboot(off_seconds=1)
    world.fails = True
    await world.access.start()
    world.fails = False
    await world.access.sweep()
    assert world.told() == [opened(*gpu_nodes([1]))]
    await world.access.sweep()
    assert world.told() == []


@pytest.mark.parametrize(
    "changes",
    [{"uid": Uid(0)}, {"seconds": 59}, {"seconds": 91 * 24 * HOUR}, {"reason": " "}],
    ids=["root", "too short", "too long", "no reason"],
)
async def test_what_is_no_grant_is_refused(world: World, changes: dict[str, Any]) -> None:
    """Nothing is written and nothing is run."""
    with pytest.raises(ValueError, match="are needed"):
        await world.grant(**changes)
    assert world.told() == []
    assert await world.access.live() == ()


async def test_who_still_has_a_file_open_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the user's slice, or in cron for the user: SIGTERM, then SIGKILL; everybody else is left alone."""
    monkeypatch.setattr(host_access, "_END_SECONDS", 0.3)
    await world.grant()
    with (
        running() as willing,
        started(sys.executable, "-c", STUBBORN) as stubborn,
        running() as cron,
        running() as contained,
        running() as anothers,
        running() as service,
    ):
        world.holds(willing.pid)
        world.holds(stubborn.pid)
        world.holds(cron.pid, slice_uid=Uid(4294967295), unit="cron.service")
        world.holds(contained.pid, kind=Kind.CONTAINER)
        world.holds(anothers.pid, owner=BOB, slice_uid=BOB)
        world.holds(service.pid, slice_uid=Uid(4294967295), unit="jupyterhub.service")
        await world.access.revoke(ALICE, by="root", why="done")
        assert willing.wait(5) == -signal.SIGTERM
        assert cron.wait(5) == -signal.SIGTERM
        assert stubborn.wait(5) == -signal.SIGKILL
        assert [child.poll() for child in (contained, anothers, service)] == [None, None, None]


async def test_holders_that_cannot_be_told_do_not_keep_access(world: World) -> None:
    """The slice is closed all the same."""

    async def fail() -> list[OpenElsewhere]:
        raise OSError("no /proc")

    await world.grant()
    world.told()
    world.access._holders = fail
    await world.access.revoke(ALICE, by="root", why="done")
    assert world.told() == [CLOSED_AGAIN]
    assert await world.access.live() == ()


async def test_a_revoke_whose_caller_left_is_carried_out(world: World) -> None:
    """Once begun it comes to its end."""
    await world.grant()
    async with asyncio.TaskGroup() as tasks:
        revoking = tasks.create_task(world.access.revoke(ALICE, by="root", why="done"))
        await asyncio.sleep(0)
        revoking.cancel()
    await world.access.sweep()
    assert world.told()[1:] == [CLOSED_AGAIN]
    assert await world.access.live() == ()


async def test_systemctls_own_words_are_told() -> None:
    """On one line; a program that is not there, and one that does not answer, too."""
    await systemctl(["true"])
    with pytest.raises(AccessFailed, match=r"^one two$"):
        await systemctl(["sh", "-c", "printf 'one\\ntwo\\n' >&2; exit 1"])
    with pytest.raises(AccessFailed, match="ended with 3"):
        await systemctl(["sh", "-c", "exit 3"])
    with pytest.raises(AccessFailed, match="cannot be run"):
        await systemctl(["/nonexistent/systemctl"])


async def test_a_systemctl_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets its time and no more."""
    monkeypatch.setattr(host_access, "_SYSTEMCTL_SECONDS", 0.1)
    with pytest.raises(AccessFailed, match="did not answer"):
        await systemctl(["sleep", "60"])
