"""Making again what a reboot took: at the same places or not at all, and finished after a crash at any await."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator.ledger import Ledger
from allocator.mig import Layout
from allocator.mig_driver import IN_USE, MigRefused
from allocator.mig_journal import MigJournal, StepKind, StepState
from allocator.mig_record import PastInstance, PastPartition
from allocator.model import InventoryUnavailable
from policy.model import DeviceUuid
from tests.unit.allocator.test_mig_apply import (
    GPU,
    HALF,
    SMALL,
    Killed,
    World,
    device_at,
    instance,
    repartition,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allocator.mig import MigProfile

CLASH, NO_PERMISSION = 23, 4


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = Ledger(tmp_path / "ledger")
    yield one
    one.close()


def past(profile: MigProfile, start: int, **changes: object) -> PastInstance:
    base = PastInstance(
        start=start,
        size=profile.size,
        profile=profile.name,
        number=profile.number,
        devices=(device_at(profile.name, start),),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


BEFORE = (past(SMALL, 0), past(SMALL, 3), past(HALF, 4))
DEVICES = {device for item in BEFORE for device in item.devices}


def rebooted(world: World, *instances: PastInstance, enabled: bool = True) -> World:
    """That machine, which had these instances before it booted."""
    world.past = [PastPartition(gpu=GPU, enabled=enabled, instances=instances or BEFORE)]
    return world


def is_whole(world: World) -> bool:
    """Whether all is there and is somebody's again, and a spec shows it."""
    there = {device for item in world.partition.instances for device in item.devices}
    return (there, world.seen, world.places) == (DEVICES, {GPU: DEVICES}, set()) and world.regenerated > 0


async def test_what_a_reboot_took_is_made_again(ledger: Ledger) -> None:
    """At its places, under the journal, with a new CDI spec; what is there already is left, and all of it happens once."""
    world = rebooted(World(instance(SMALL, 3)))
    changer = repartition(world, ledger)
    with structlog.testing.capture_logs() as logs:
        assert await changer.resume() == ()
    assert is_whole(world)
    steps = [(entry.kind, entry.start, entry.state) for entry in MigJournal(ledger).last(9)]
    assert steps == [(StepKind.CREATE, start, StepState.DONE) for start in (0, 4)]
    told = [(line["event"], line["start"]) for line in logs]
    assert told == [("mig_instance.restored", start) for start in (0, 3, 4)]
    await changer.resume()
    assert (world.regenerated, len(MigJournal(ledger).last(9))) == (1, 2)


async def test_mode_that_does_not_outlive_a_reboot_is_switched_on(ledger: Ledger) -> None:
    """As on Hopper, where that takes no reset; without a session of our own in the way."""
    world = rebooted(World(on=False))
    world.needs_reset = False
    await repartition(world, ledger).resume()
    assert is_whole(world)
    assert world.closed == 1


def taken(world: World) -> None:
    world.partition = replace(world.partition, instances=(instance(HALF, 0), *world.partition.instances))


def refused(world: World) -> None:
    world.refuse = MigRefused("NVML: Insufficient Resources", CLASH)


def named_otherwise(world: World) -> None:
    world.partition = replace(world.partition, profiles=(replace(SMALL, name="1g.6gb"), HALF))


def placed_otherwise(world: World) -> None:
    world.partition = replace(world.partition, profiles=(replace(SMALL, starts=(1, 2)), HALF))


def with_other_devices(world: World) -> None:
    other = replace(instance(SMALL, 0), devices=(DeviceUuid("MIG-other"),))
    world.partition = replace(world.partition, instances=(other,))


@pytest.mark.parametrize(
    ("change", "item", "problem"),
    [
        pytest.param(taken, BEFORE[0], "3g.20gb at 0 is in its place", id="taken"),
        pytest.param(refused, BEFORE[0], "NVML: Insufficient Resources", id="refused"),
        pytest.param(named_otherwise, BEFORE[0], "offers no GPU instance 1g.5gb at 0", id="profiles"),
        pytest.param(placed_otherwise, BEFORE[0], "offers no GPU instance 1g.5gb at 0", id="places"),
        pytest.param(with_other_devices, BEFORE[0], "came back with other devices: MIG-other", id="uuid"),
        pytest.param(
            lambda _world: None,
            past(HALF, 0, devices=(DeviceUuid("MIG-1"), DeviceUuid("MIG-2"))),
            "several compute instances",
            id="divided",
        ),
    ],
)
async def test_what_cannot_be_made_again_is_lost_with_a_reason(
    ledger: Ledger, change: object, item: PastInstance, problem: str
) -> None:
    """Alone: what stood beside it is made again, unless NVML refuses that too."""
    world = rebooted(World(), item, past(HALF, 4))
    change(world)  # type: ignore[operator]  # one of the above
    with structlog.testing.capture_logs() as logs:
        await repartition(world, ledger).resume()
    told = {line["start"]: line.get("problem") for line in logs if line["event"].startswith("mig_instance")}
    assert problem in (told[item.start] or "restored")
    beside = set() if change is refused else {device_at(HALF.name, 4)}
    assert world.seen == {GPU: beside}
    assert world.past == []


@pytest.mark.parametrize(
    ("world", "enabled", "problem"),
    [
        pytest.param(World(on=False), True, "only after a reset of the GPU", id="waits-for-a-reset"),
        pytest.param(World(on=False), False, "was to be off after a reset", id="switched-off"),
        pytest.param(None, True, "the GPU is not there", id="gpu-gone"),
    ],
)
async def test_a_gpu_that_cannot_be_split_loses_all(
    ledger: Ledger, world: World | None, *, enabled: bool, problem: str
) -> None:
    """Gone, or without MIG mode; mode that an admin had switched off before the reboot is not switched on again."""
    there = world or World()
    if world is None:
        there.partition = replace(there.partition, gpu=DeviceUuid("GPU-other"))
    with structlog.testing.capture_logs() as logs:
        await repartition(rebooted(there, enabled=enabled), ledger).resume()
    told = [line["problem"] for line in logs if line["event"] == "mig_instance.lost"]
    assert len(told) == len(BEFORE)
    assert all(problem in text for text in told)
    assert there.seen == {GPU: set()}
    assert there.partition.mig_pending is (enabled or world is None)


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(InventoryUnavailable("the driver did not answer"), id="no-answer"),
        pytest.param(MigRefused("NVML: Insufficient Permissions", NO_PERMISSION), id="permission"),
        pytest.param(MigRefused("NVML: In use by another client", IN_USE), id="in-use"),
    ],
)
async def test_while_it_cannot_be_told_nothing_is_lost(
    ledger: Ledger, problem: MigRefused | InventoryUnavailable
) -> None:
    """It is tried again, by the next `resume`, and by an apply before anything else."""
    world = rebooted(World())
    world.refuse = problem
    changer = repartition(world, ledger)
    for _ in range(2):
        with pytest.raises(type(problem)):
            await changer.resume()
        assert (world.seen, len(world.past)) == ({}, 1)
    with pytest.raises(type(problem)):
        await changer.apply({GPU: Layout(profiles={})}, who="root")
    world.refuse = None
    await changer.resume()
    assert is_whole(world)


async def test_one_gpu_that_cannot_be_told_keeps_no_other_waiting(ledger: Ledger) -> None:
    """The other's spec is written too."""
    world = rebooted(World())
    bad = PastPartition(gpu=DeviceUuid("GPU-silent"), enabled=True, instances=(past(SMALL, 0),))
    world.past.insert(0, bad)
    settle = world.settle

    async def silent(gpu: DeviceUuid, restored: object) -> None:
        if gpu == bad.gpu:
            raise InventoryUnavailable("it is not seen yet")
        await settle(gpu, restored)  # type: ignore[arg-type]  # passed on

    world.settle = silent  # type: ignore[method-assign]  # the same for the other
    with pytest.raises(InventoryUnavailable, match="not seen yet"):
        await repartition(world, ledger).resume()
    assert is_whole(world)
    assert world.past == [bad]


@pytest.mark.parametrize("on", [pytest.param(True, id="instances"), pytest.param(False, id="and-mode")])
async def test_a_kill_at_any_await_is_gone_on_with(tmp_path: Path, *, on: bool) -> None:
    """By the next start: every instance is at its place with its device, once, and in the spec; nothing was lost."""
    for life in range(1000):
        ledger = Ledger(tmp_path / f"{on}-{life}")
        world = rebooted(World(on=on))
        world.needs_reset = False
        world.life = life
        try:
            await repartition(world, ledger).resume()
        except Killed:
            killed = True
        else:
            killed = False
        world.life, world.quiet = None, False
        # A new allocator knows from its ledger what is not in the spec.
        world.places = {entry.place for entry in MigJournal(ledger).unwritten() if entry.place is not None}
        await repartition(world, ledger).resume()
        assert MigJournal(ledger).unfinished() == ()
        assert is_whole(world)
        assert len(world.partition.instances) == len(BEFORE)
        ledger.close()
        if not killed:
            assert life > 20
            return
    pytest.fail("it never came to an end")
