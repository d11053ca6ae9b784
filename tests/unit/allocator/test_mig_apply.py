"""Changing partitions: nothing that is held goes, and a crash at any await is finished afterwards."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from allocator.device_records import DeviceRecords
from allocator.ledger import Ledger
from allocator.mig import GpuInstance, Layout, MigProfile, Partition
from allocator.mig_apply import Applied, Repartition
from allocator.mig_driver import IN_USE, MigRefused
from allocator.mig_journal import Entry, MigJournal, StepState
from allocator.model import InventoryUnavailable, Moment
from policy.model import DeviceUuid

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping

    from allocator.mig_journal import Place
    from allocator.mig_record import PastPartition

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
        self.partition = self.partition_of(*instances, now=on, pending=on)
        self.quiet = False
        self.needs_reset = True
        self.held: dict[DeviceUuid, tuple[str, ...]] = {}
        self.withheld: set[DeviceUuid] = set()
        self.life: int | None = None
        self.awaits = 0
        self.cancel_at: int | None = None
        self.caller: asyncio.Task[Applied] | None = None
        self.places: set[Place] = set()
        self.past: list[PastPartition] = []
        self.seen: dict[DeviceUuid, set[DeviceUuid]] = {}  # by GPU that was settled, what was restored
        self.regenerated = self.closed = 0
        self.cdi_problem: str | None = None
        self.refuse: MigRefused | InventoryUnavailable | None = None

    def partition_of(self, *instances: GpuInstance, now: bool, pending: bool) -> Partition:
        return Partition(
            gpu=GPU,
            index="0",
            mig_now=now,
            mig_pending=pending,
            compute_slices=7 if now else 0,
            profiles=(SMALL, HALF) if now else (),
            instances=instances,
        )

    async def lives(self) -> None:
        self.awaits += 1
        if self.awaits == self.cancel_at and self.caller is not None:
            self.caller.cancel()
        await asyncio.sleep(0)
        if self.life is not None:
            self.life -= 1
            if self.life < 0:
                raise Killed

    # Driver

    async def partitions(self) -> tuple[Partition, ...]:
        await self.lives()
        return (self.partition,)

    async def create(self, gpu: DeviceUuid, profile: MigProfile, start: int) -> int:
        assert gpu == GPU
        await self.lives()
        self._refuses()
        made = GpuInstance(
            number=100 * profile.number + start,
            profile=profile.name,
            compute_slices=profile.compute_slices,
            start=start,
            size=profile.size,
        )
        self._put(made)
        await self.lives()  # killed between the GPU instance and its compute instance
        await self.complete(gpu, made.number)
        await self.lives()
        return made.number

    async def complete(self, gpu: DeviceUuid, number: int) -> None:
        assert gpu == GPU
        await self.lives()
        for item in self.partition.instances:
            if item.number == number:
                self._put(replace(item, devices=(device_at(item.profile, item.start),)))

    async def destroy(self, gpu: DeviceUuid, number: int) -> None:
        assert gpu == GPU
        await self.lives()
        self._refuses()
        for item in self.partition.instances:
            if item.number == number:
                assert not [device for device in item.devices if device in self.held], "held, and destroyed"
                assert set(item.devices) <= self.withheld, "anybody could have leased it"
                self._put(replace(item, devices=()))
                await self.lives()  # killed between the compute instance and the GPU instance
                self._drop(number)
        await self.lives()

    async def set_mode(self, gpu: DeviceUuid, *, enabled: bool) -> bool:
        assert gpu == GPU
        await self.lives()
        assert self.quiet, "our own session is in the way"
        now = self.partition.mig_now if self.needs_reset else enabled
        self.partition = self.partition_of(now=now, pending=enabled)
        await self.lives()
        return not self.needs_reset

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
        await self.lives()
        return self.held

    async def withhold(self, devices: Collection[DeviceUuid], place: Place | None = None) -> tuple[str, ...]:
        await self.lives()
        held = tuple(said for device in devices for said in self.held.get(device, ()))
        if not held:
            self.withheld |= set(devices)
            self.places |= set() if place is None else {place}
        return held

    async def give_back(self, devices: Collection[DeviceUuid], places: Collection[Place] = ()) -> None:
        await self.lives()
        self.withheld -= set(devices)
        self.places -= set(places)

    # What a reboot took

    def before_reboot(self) -> tuple[PastPartition, ...]:
        return tuple(self.past)

    async def settle(self, gpu: DeviceUuid, restored: Collection[DeviceUuid]) -> None:
        await self.lives()
        self.past = [one for one in self.past if one.gpu != gpu]
        self.seen[gpu] = set(restored)
        await self.lives()

    # The rest

    @asynccontextmanager
    async def quiesced(self) -> AsyncIterator[None]:
        await self.lives()
        self.closed += 1
        self.quiet = True
        yield
        self.quiet = False

    async def clients(self, gpu: DeviceUuid, instance: int | None) -> str:
        await self.lives()
        return f"process 7 has {gpu}/{instance} open"

    async def regenerate(self) -> str | None:
        await self.lives()
        self.regenerated += 1
        return self.cdi_problem


class Written:
    """The real journal; the allocator may be killed before and after each line."""

    def __init__(self, world: World, ledger: Ledger) -> None:
        self.world = world
        self.journal = MigJournal(ledger)

    async def intend(self, entry: Entry) -> int:
        await self.world.lives()
        number = self.journal.intend(entry, NOW)
        await self.world.lives()
        return number

    async def end(self, number: int, state: StepState, why: str = "") -> None:
        await self.world.lives()
        self.journal.end(number, state, why)
        await self.world.lives()

    async def unfinished(self) -> tuple[Entry, ...]:
        await self.world.lives()
        return self.journal.unfinished()

    async def unwritten(self) -> tuple[Entry, ...]:
        await self.world.lives()
        return self.journal.unwritten()

    async def wrote_spec(self) -> None:
        await self.world.lives()
        self.journal.wrote_spec()
        await self.world.lives()


def repartition(world: World, ledger: Ledger) -> Repartition:
    return Repartition(
        driver=world,
        journal=Written(world, ledger),
        devices=world,
        past=world,
        quiesced=world.quiesced,
        clients=world.clients,
        regenerate=world.regenerate,
    )


def device_at(profile: str, start: int) -> DeviceUuid:
    return DeviceUuid(f"MIG-{profile}-{start}")


def instance(profile: MigProfile, start: int) -> GpuInstance:
    return GpuInstance(
        number=100 * profile.number + start,
        profile=profile.name,
        compute_slices=profile.compute_slices,
        start=start,
        size=profile.size,
        devices=(device_at(profile.name, start),),
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
    (outcome,) = (await changer.apply(WANTED, who="root")).outcomes
    assert outcome.problem is None
    assert _as_wanted(world)
    assert (world.regenerated, world.withheld) == (1, set())
    assert [entry.state for entry in MigJournal(ledger).last(10)] == [StepState.DONE] * outcome.done
    (again,) = (await changer.apply(WANTED, who="root")).outcomes
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
    (outcome,) = (await repartition(world, ledger).apply(WANTED, who="root")).outcomes
    assert outcome.done == 0
    assert outcome.problem is not None
    assert "came in between" in outcome.problem
    assert len(world.partition.instances) == 2


async def test_what_nvml_refuses_is_told_and_undone(ledger: Ledger) -> None:
    """The step is failed, the device can be leased again, and the next apply tries once more."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    world.refuse = MigRefused("NVML: In use by another client", IN_USE)
    changer = repartition(world, ledger)
    (outcome,) = (await changer.apply(WANTED, who="root")).outcomes
    assert outcome.problem == "NVML: In use by another client; process 7 has GPU-1/1904 open"
    assert (world.withheld, MigJournal(ledger).unfinished()) == (set(), ())
    world.refuse = None
    await changer.apply(WANTED, who="root")
    assert _as_wanted(world)


async def test_without_an_answer_the_step_stays_open(ledger: Ledger) -> None:
    """Nobody knows whether it was done: its device is out of reach until that is known."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    world.refuse = InventoryUnavailable("the NVIDIA driver did not answer within 5 seconds")
    changer = repartition(world, ledger)
    (outcome,) = (await changer.apply(WANTED, who="root")).outcomes
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
    (outcome,) = (await repartition(world, ledger).apply(WANTED, who="root")).outcomes
    assert (world.closed, world.partition.mig_pending) == (1, True)
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
        (outcome,) = (await after.apply(WANTED, who="root")).outcomes
        assert outcome.problem is None
        assert _as_wanted(world) if start else world.partition.mig_pending
        ledger.close()
        if not killed:
            assert life > 5
            return
    pytest.fail("it never came to an end")


async def test_a_client_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    """Cancelled at any await of an apply, it is carried out all the same, no step is left open, and the CDI spec is written."""
    for at in range(1, 1000):
        ledger = Ledger(tmp_path / f"{at}")
        world = World(instance(SMALL, 0), instance(SMALL, 4))
        world.cancel_at = at
        changer = repartition(world, ledger)
        world.caller = asyncio.get_running_loop().create_task(changer.apply(WANTED, who="root"))
        with suppress(asyncio.CancelledError):
            await world.caller
        cancelled = world.caller.cancelled()
        await changer._work.wait()
        assert MigJournal(ledger).unfinished() == ()
        assert _as_wanted(world)
        assert (world.regenerated, world.withheld, world.places) == (1, set(), set())
        ledger.close()
        if not cancelled:
            assert at > 20
            return
    pytest.fail("it never came to an end")


async def test_what_was_made_waits_for_the_cdi_spec(ledger: Ledger) -> None:
    """While it cannot be written the change is told with the reason, and nothing of it is given back; the next look at it tries again."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    world.cdi_problem = "nvidia-ctk ended with 1"
    changer = repartition(world, ledger)
    applied = await changer.apply(WANTED, who="root")
    assert (applied.outcomes[0].problem, applied.cdi_problem) == (None, "nvidia-ctk ended with 1")
    assert (world.withheld, world.places) == ({device_at(SMALL.name, 4)}, {(GPU, 4), (GPU, 1)})
    await changer.resume()
    assert (world.regenerated, bool(world.places)) == (2, True)
    assert (await changer.apply(WANTED, who="root")).cdi_problem is not None
    world.cdi_problem = None
    await changer.resume()
    assert (world.withheld, world.places, MigJournal(ledger).unwritten()) == (set(), set(), ())
    assert (await changer.apply(WANTED, who="root")).cdi_problem is None
    assert world.regenerated == 4


async def test_an_allocator_that_stops_ends_after_the_step(ledger: Ledger) -> None:
    """The rest is told as not done; what was done is in the spec after the next start."""
    world = World(instance(SMALL, 0), instance(SMALL, 4))
    changer = repartition(world, ledger)
    create = world.create
    closing: list[asyncio.Task[None]] = []

    async def last(gpu: DeviceUuid, profile: MigProfile, start: int) -> int:
        closing.append(asyncio.get_running_loop().create_task(changer.close()))
        return await create(gpu, profile, start)

    world.create = last  # type: ignore[method-assign]  # the same, while the daemon is asked to end
    (outcome,) = (await changer.apply(WANTED, who="root")).outcomes
    await closing[0]
    assert outcome.done < len(outcome.plan.steps)
    assert "is being stopped" in (outcome.problem or "")
    assert (MigJournal(ledger).unfinished(), world.regenerated) == ((), 0)
    with pytest.raises(InventoryUnavailable, match="is being stopped"):
        await changer.apply(WANTED, who="root")
    world.create = create  # type: ignore[method-assign]  # as it was
    await repartition(world, ledger).resume()
    assert (world.regenerated, MigJournal(ledger).unwritten()) == (1, ())


async def test_a_destroyed_device_that_comes_back_is_a_new_generation(ledger: Ledger) -> None:
    """Even if nobody looked while it was gone: its UUID is the same."""
    device = DeviceUuid("MIG-1g.5gb-0")
    assert DeviceRecords(ledger).observe({device: ""})[device] == 1
    world = World(instance(SMALL, 0))
    await repartition(world, ledger).apply({GPU: Layout(profiles={})}, who="root")
    assert DeviceRecords(ledger).observe({device: ""})[device] == 2
