"""Changing partitions: nothing that is held goes, and a crash at any await is finished afterwards."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from allocator.device_records import DeviceRecords
from allocator.ledger import Ledger
from allocator.mig import GpuInstance, Layout, MigProfile, Partition
from allocator.mig_apply import Repartition
from allocator.mig_driver import IN_USE, MigRefused
from allocator.mig_journal import Entry, MigJournal, StepState
from allocator.model import InventoryUnavailable, Moment
from policy.model import DeviceUuid

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

GPU = DeviceUuid("GPU-1")
NOW = Moment(utc="2026-01-01T00:00:00Z", boottime_ms=0, boot_id="b")
SMALL = MigProfile(name="1g.5gb", number=19, compute_slices=1, size=1, starts=tuple(range(7)), most=7)
HALF = MigProfile(name="3g.20gb", number=9, compute_slices=3, size=4, starts=(0, 4), most=2)
WANTED = {GPU: Layout(profiles={"3g.20gb": 1, "1g.5gb": 2})}


class Killed(BaseException):
    """The allocator was killed: nothing of it runs any more."""


class World:
    """A GPU that outlives the allocator, and the moment at which that is killed: at the `life`-th await."""

    def __init__(self, *instances: GpuInstance, on: bool = True) -> None:
        self.partition = Partition(
            gpu=GPU,
            index="0",
            mig_now=on,
            mig_pending=on,
            compute_slices=7 if on else 0,
            profiles=(SMALL, HALF) if on else (),
            instances=instances,
        )
        self.held: dict[DeviceUuid, tuple[str, ...]] = {}
        self.withheld: set[DeviceUuid] = set()
        self.life: int | None = None
        self.regenerated = self.quiesced = 0
        self.refuse: MigRefused | InventoryUnavailable | None = None

    def lives(self) -> None:
        if self.life is not None:
            self.life -= 1
            if self.life < 0:
                raise Killed

    # Driver

    async def partitions(self) -> tuple[Partition, ...]:
        self.lives()
        return (self.partition,)

    async def create(self, gpu: DeviceUuid, profile: MigProfile, start: int) -> int:
        assert gpu == GPU
        self.lives()
        self._refuses()
        made = GpuInstance(
            number=100 * profile.number + start,
            profile=profile.name,
            compute_slices=profile.compute_slices,
            start=start,
            size=profile.size,
        )
        self._put(made)
        self.lives()  # killed between the GPU instance and its compute instance
        await self.complete(gpu, made.number)
        self.lives()
        return made.number

    async def complete(self, gpu: DeviceUuid, number: int) -> None:
        assert gpu == GPU
        self.lives()
        for item in self.partition.instances:
            if item.number == number:
                self._put(replace(item, devices=(DeviceUuid(f"MIG-{item.profile}-{item.start}"),)))

    async def destroy(self, gpu: DeviceUuid, number: int) -> None:
        assert gpu == GPU
        self.lives()
        self._refuses()
        for item in self.partition.instances:
            if item.number == number:
                assert not [device for device in item.devices if device in self.held], "held, and destroyed"
                assert set(item.devices) <= self.withheld, "anybody could have leased it"
                self._put(replace(item, devices=()))
                self.lives()  # killed between the compute instance and the GPU instance
                self._drop(number)
        self.lives()

    async def set_mode(self, gpu: DeviceUuid, *, enabled: bool) -> bool:
        assert gpu == GPU
        self.lives()
        self.partition = replace(self.partition, mig_pending=enabled)
        self.lives()
        return False

    def _refuses(self) -> None:
        if self.refuse is not None:
            raise self.refuse

    def _put(self, item: GpuInstance) -> None:
        self._drop(item.number)
        self.partition = replace(self.partition, instances=(*self.partition.instances, item))

    def _drop(self, number: int) -> None:
        rest = tuple(item for item in self.partition.instances if item.number != number)
        self.partition = replace(self.partition, instances=rest)

    # Devices

    async def holders(self) -> Mapping[DeviceUuid, tuple[str, ...]]:
        self.lives()
        return self.held

    async def withhold(self, devices: Collection[DeviceUuid]) -> tuple[str, ...]:
        self.lives()
        held = tuple(said for device in devices for said in self.held.get(device, ()))
        if not held:
            self.withheld |= set(devices)
        return held

    async def give_back(self, devices: Collection[DeviceUuid]) -> None:
        self.lives()
        self.withheld -= set(devices)

    # The rest

    async def quiesce(self) -> None:
        self.lives()
        self.quiesced += 1

    async def regenerate(self) -> None:
        self.lives()
        self.regenerated += 1


class Written:
    """The real journal; the allocator may be killed before and after each line."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self.world = world
        self.journal = MigJournal(ledger)

    async def intend(self, entry: Entry) -> int:
        self.world.lives()
        number = self.journal.intend(entry, NOW)
        self.world.lives()
        return number

    async def end(self, number: int, state: StepState, why: str = "") -> None:
        self.world.lives()
        self.journal.end(number, state, why)
        self.world.lives()

    async def unfinished(self) -> tuple[Entry, ...]:
        self.world.lives()
        return self.journal.unfinished()


def repartition(world: World, ledger: Ledger) -> Repartition:
    return Repartition(
        driver=world,
        journal=Written(world, ledger),
        devices=world,
        quiesce=world.quiesce,
        regenerate=world.regenerate,
    )


def instance(profile: MigProfile, start: int) -> GpuInstance:
    return GpuInstance(
        number=100 * profile.number + start,
        profile=profile.name,
        compute_slices=profile.compute_slices,
        start=start,
        size=profile.size,
        devices=(DeviceUuid(f"MIG-{profile.name}-{start}"),),
    )


def _as_wanted(world: World) -> bool:
    names = sorted(item.profile for item in world.partition.instances if item.devices)
    return names == ["1g.5gb", "1g.5gb", "3g.20gb"] and len(world.partition.instances) == 3


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    one = Ledger(tmp_path / "ledger")
    yield one
    one.close()


async def test_a_layout_is_carried_out(ledger: Ledger) -> None:
    """Step by step, with a new CDI spec at the end, and not again when it is there."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    changer = repartition(world, ledger)
    (outcome,) = await changer.apply(WANTED, who="root")
    assert outcome.problem is None
    assert _as_wanted(world)
    assert (world.regenerated, world.withheld) == (1, set())
    assert [entry.state for entry in MigJournal(ledger).last(10)] == [StepState.DONE] * outcome.done
    (again,) = await changer.apply(WANTED, who="root")
    assert again.done == 0
    assert world.regenerated == 1


async def test_whoever_comes_in_between_keeps_the_device(ledger: Ledger) -> None:
    """The plan saw nobody; the lease that was made meanwhile wins, and the rest of the plan waits."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    plan_once = world.holders

    async def late() -> Mapping[DeviceUuid, tuple[str, ...]]:
        seen = dict(await plan_once())
        world.held = {
            DeviceUuid("MIG-1g.5gb-0"): ("a lease of bob",),
            DeviceUuid("MIG-1g.5gb-4"): ("a lease of eve",),
        }
        return seen

    world.holders = late  # type: ignore[method-assign]  # the same question, answered a moment too early
    (outcome,) = await repartition(world, ledger).apply(WANTED, who="root")
    assert outcome.done == 0
    assert outcome.problem is not None
    assert "came in between" in outcome.problem
    assert len(world.partition.instances) == 2


async def test_what_nvml_refuses_is_told_and_undone(ledger: Ledger) -> None:
    """The step is failed, the device can be leased again, and the next apply tries once more."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    world.refuse = MigRefused("NVML: In use by another client", IN_USE)
    changer = repartition(world, ledger)
    (outcome,) = await changer.apply(WANTED, who="root")
    assert outcome.problem == "NVML: In use by another client"
    assert (world.withheld, MigJournal(ledger).unfinished()) == (set(), ())
    world.refuse = None
    await changer.apply(WANTED, who="root")
    assert _as_wanted(world)


async def test_without_an_answer_the_step_stays_open(ledger: Ledger) -> None:
    """Nobody knows whether it was done: its device is out of reach until that is known."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    world.refuse = InventoryUnavailable("the NVIDIA driver did not answer within 5 seconds")
    changer = repartition(world, ledger)
    (outcome,) = await changer.apply(WANTED, who="root")
    assert outcome.problem is not None
    assert world.withheld
    assert len(MigJournal(ledger).unfinished()) == 1
    world.refuse = None
    await changer.apply(WANTED, who="root")
    assert _as_wanted(world)
    assert world.withheld == set()


async def test_a_change_of_mode_waits_for_a_reset(ledger: Ledger) -> None:
    """Our own session is ended first, and the outcome says that the GPU must be reset."""
    world = World(on=False)
    (outcome,) = await repartition(world, ledger).apply(WANTED, who="root")
    assert (world.quiesced, world.partition.mig_pending) == (1, True)
    assert outcome.waits_for_reset


@pytest.mark.parametrize("start", [pytest.param(True, id="from-mig"), pytest.param(False, id="from-whole")])
async def test_a_kill_at_any_await_is_finished_afterwards(tmp_path: Path, start: bool) -> None:
    """For every await of apply: after a restart nothing is half done, nothing held is gone, and the layout can be had."""
    for life in range(1000):
        ledger = Ledger(tmp_path / f"{start}-{life}")
        world = (
            World(instance(SMALL, 0), instance(SMALL, 4), instance(SMALL, 6)) if start else World(on=False)
        )
        if start:
            world.held = {DeviceUuid("MIG-1g.5gb-6"): ("container web of alice, stopped",)}
        world.life = life
        try:
            await repartition(world, ledger).apply(WANTED, who="root")
        except Killed:
            killed = True
        else:
            killed = False
        world.life = None
        # A new allocator withholds what is unfinished before it leases anything.
        world.withheld = {device for entry in MigJournal(ledger).unfinished() for device in entry.devices}
        after = repartition(world, ledger)
        await after.resume()
        assert MigJournal(ledger).unfinished() == ()
        assert world.withheld == set()
        (outcome,) = await after.apply(WANTED, who="root")
        assert outcome.problem is None
        assert _as_wanted(world) if start else world.partition.mig_pending
        ledger.close()
        if not killed:
            assert life > 5
            return
    pytest.fail("it never came to an end")


async def test_a_destroyed_device_that_comes_back_is_a_new_generation(ledger: Ledger) -> None:
    """Even if nobody looked while it was gone: its UUID is the same."""
    device = DeviceUuid("MIG-1g.5gb-0")
    assert DeviceRecords(ledger).observe({device: ""})[device] == 1
    world = World(instance(SMALL, 0))
    await repartition(world, ledger).apply({GPU: Layout(profiles={})}, who="root")
    assert DeviceRecords(ledger).observe({device: ""})[device] == 2
