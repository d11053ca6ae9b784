"""Grants carried out and taken back, with systemctl replaced by a record of what it was told."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from allocator import host_access
from allocator.attribution import Kind
from allocator.attributor import OpenElsewhere
from allocator.device_policy import Node, free_property, gpu_nodes
from allocator.host_access import AccessFailed, systemctl
from allocator.model import DeviceState, InventoryUnavailable, Refusal
from allocator.readings import MigMode
from observability import events
from observability.events import Event
from policy.model import Uid
from tests.fakes.fake_nvml import gpu, mig
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
    await world.grant(devices=[])
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


MIG = mig(2, 0, "3g.20gb", minor=2, generation=1)
OF_MIG = gpu_nodes([2], [336, 337])


async def test_a_mig_device_is_granted_by_its_own_files_and_taken_back(world: World) -> None:
    """The GPU's file, and the capabilities of this one device; when it ends, none of them is left."""
    assert await world.grant(devices=["2:0"]) is None
    assert world.told() == [opened(*OF_MIG)]
    await world.access.revoke(ALICE, by="root", why="done")
    assert world.told() == [CLOSED_AGAIN]
    await world.grant(devices=[MIG.uuid])
    world.pass_time(HOUR)
    await world.access.sweep()
    assert world.told() == [opened(*OF_MIG), CLOSED_AGAIN]
    assert world.grants.past()[0].ended_why == "expired"


@pytest.mark.parametrize("change", ["gone", "another", "mode off"])
async def test_a_grant_ends_with_its_mig_device(world: World, change: str) -> None:
    """Else the next tenant's instance, or the whole GPU, would open by the same files. Who has one open is ended."""
    await world.grant(devices=["2:0", "1"])
    world.told()
    await world.access.sweep()
    assert world.told() == []
    if change == "gone":
        world.devices.take(MIG)
    elif change == "another":
        world.devices.put(replace(MIG, generation=2))
    else:
        off = MigMode(current=True, pending=False)
        world.devices.put(gpu(2, minor=2, generation=1, state=DeviceState.UNUSABLE, mig_mode=off))
    with running() as child:
        world.holds(child.pid)
        await world.access.sweep()
        assert child.wait(5) == -signal.SIGTERM
    assert world.told() == [CLOSED_AGAIN]
    assert await world.access.live() == ()
    (past,) = world.grants.past()
    assert past.ended_by == "ds01"
    assert MIG.uuid in (past.ended_why or "")


async def test_without_a_look_at_the_devices_a_grant_neither_begins_nor_ends(world: World) -> None:
    """After a boot it waits for one; a grant of everything, which names none, does not."""
    await world.grant(devices=["2:0"])
    await world.grant(BOB, devices=[], name="bob")
    world.told()
    world.reboot(off_seconds=1)
    world.devices.problem = "the driver is not loaded"
    await world.access.start()
    assert [unit for unit, _ in world.told()] == ["user-1001.slice"]
    with pytest.raises(InventoryUnavailable):
        await world.grant(devices=["1"])
    assert len(await world.access.live()) == 2
    world.devices.problem = None
    await world.access.sweep()
    assert world.told() == [opened(*OF_MIG)]


async def test_after_a_boot_the_files_are_those_of_the_devices(world: World) -> None:
    """Numbers may be dealt out anew; a grant is of a GPU, not of a number. One whose MIG device is not there is over."""
    await world.grant(devices=["1"])
    await world.grant(BOB, devices=["2:0"], name="bob")
    world.reboot(off_seconds=1)
    world.told()
    world.devices.put(gpu(1, minor=0, generation=1))
    world.devices.take(MIG)
    await world.access.start()
    assert world.told() == [opened(*gpu_nodes([0])), ("user-1001.slice", CLOSED)]
    assert [grant.uid for grant in await world.access.live()] == [ALICE]


async def test_files_that_cannot_be_told_leave_an_earlier_grant(world: World) -> None:
    """It is refused before anything is written; a grant that lives is told once what is missing, and tried again."""
    await world.grant(devices=["1"])
    world.told()
    world.table.missing = {7}
    with pytest.raises(AccessFailed, match="no capability of instance 7"):
        await world.grant(devices=["2:0"])
    assert world.told() == []
    assert isinstance(await world.grant(devices=["2"]), Refusal)
    (left,) = await world.access.live()
    assert [device.uuid for device in left.devices] == [gpu(1).uuid]


async def test_what_is_missing_after_a_boot_is_logged_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at every sweep, and it is given as soon as it can be."""
    told: list[Event] = []
    monkeypatch.setattr(host_access, "log", lambda event, **_: told.append(event))
    await world.grant(devices=["2:0"])
    world.reboot(off_seconds=1)
    world.told()
    world.table.missing = {7}
    await world.access.start()
    await world.access.sweep()
    assert told.count(events.HOST_ACCESS_FAILED) == 1
    world.table.missing = set()
    await world.access.sweep()
    assert world.told() == [opened(*OF_MIG)]


async def test_a_driver_that_hangs_holds_up_no_end_of_a_grant(world: World) -> None:
    """Who asks for a device waits for a look at it; a revoke and an expiry meanwhile do not."""
    await world.grant(BOB, name="bob")
    await world.grant(seconds=60)
    world.told()
    world.devices.refreshing.clear()
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(world.grant(Uid(1002), devices=["0"], name="carol"))
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            await world.access.revoke(BOB, by="root", why="done")
            world.pass_time(60)
            await world.access.sweep()
        assert await world.access.live() == ()
        assert not asking.done()
        world.devices.refreshing.set()
    assert [grant.uid for grant in await world.access.live()] == [1002]
