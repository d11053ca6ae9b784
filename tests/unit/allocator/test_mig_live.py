"""Changes of MIG on a simulated machine, through the real NVML processes: over reboots, and while somebody waits for a device."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from allocator.mig import Layout
from allocator.mig_driver import MigRefused
from allocator.model import DeviceState, InventoryUnavailable, Lease, LeaseState
from lab import simulate
from lab.scenarios import reboot
from policy.model import ContainerId
from tests.fakes.leasing import evidence, queued, want
from tests.fakes.simulated_gpus import SimulatedMachine, driver_library
from tests.fakes.watched_machine import WatchedMachine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    Start = Callable[[str], AbstractAsyncContextManager[tuple[SimulatedMachine, WatchedMachine]]]

CONTAINER = ContainerId("a" * 64)
NO_DRIVER, LOST = 9, 15


@pytest.fixture
def machine_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Gives `machine_of(spec)`: the GPUs, and an allocator that has looked once and was told of no container."""

    @asynccontextmanager
    async def start(spec: str) -> AsyncIterator[tuple[SimulatedMachine, WatchedMachine]]:
        gpus = SimulatedMachine(tmp_path / "gpus", library=driver_library("plain"), spec=spec)
        for name, value in gpus.environment.items():
            monkeypatch.setenv(name, value)
        one = WatchedMachine(tmp_path / "ledger")
        try:
            await one.sweep()
            await one.allocator.settle(evidence(one.clock()))
            yield gpus, one
        finally:
            await one.close()

    return start


def booted(gpus: SimulatedMachine) -> None:
    with simulate.changed(gpus.dir) as state:
        reboot(state)


def fault(gpus: SimulatedMachine, **one: object) -> None:
    with simulate.changed(gpus.dir) as state:
        state["faults"].append(one)


async def held(machine: WatchedMachine, index: str) -> Lease:
    """A lease of that device, whose container has been made and started."""
    lease = await machine.take(index)
    await machine.allocator.confirm(lease.id, CONTAINER, who="x")
    await machine.allocator.start(lease.id, CONTAINER, who="x")
    return await machine.now(lease)


async def may_start(machine: WatchedMachine, lease: Lease) -> bool:
    """Whether the container of a lease starts now. Raises: Conflict."""
    try:
        await machine.allocator.start(lease.id, CONTAINER, who="guard")
    except InventoryUnavailable:
        return False
    return True


async def test_a_lease_outlives_a_reboot_that_takes_its_mig_device(machine_of: Start) -> None:
    """It waits while the driver is not there, starts again when the device is there and in the CDI spec, and is the same one."""
    async with machine_of("a100-40:3g.20gb+1g.5gb,a100-40") as (gpus, machine):
        lease = await held(machine, "0:0")
        booted(gpus)
        fault(gpus, symbol="nvmlInit*", ret=NO_DRIVER)
        await machine.start_again(boot="boot-2")
        await machine.sweep()
        with pytest.raises(MigRefused, match="Driver Not Loaded"):
            await machine.repartition().resume()
        simulate.heal(gpus.dir)
        await machine.sweep()
        assert set(machine.devices) == {"0", "1"}
        assert (await machine.now(lease)).state is LeaseState.ACTIVE
        assert not await may_start(machine, lease)
        assert await machine.free() == {"1"}

        async def regenerate() -> None:
            await machine.sweep()
            assert {machine.devices[index].state for index in ("0:0", "0:1")} == {DeviceState.UNUSABLE}
            assert not await may_start(machine, lease)
            assert await machine.free() == {"1"}

        await machine.repartition(regenerate).resume()
        assert (machine.uuid("0:0"), machine.devices["0:0"].generation) == (lease.devices[0], 1)
        assert (await machine.now(lease)).state is LeaseState.ACTIVE
        assert await may_start(machine, lease)
        assert await machine.free() == {"0:1", "1"}
        await machine.start_again(boot="boot-2")
        await machine.sweep()
        assert await may_start(machine, lease)


async def test_hopper_gets_its_mode_again_too(machine_of: Start) -> None:
    """It loses mode and instances; our own session is closed for the change, and another looks afterwards."""
    async with machine_of("h100-80:2x3g.40gb") as (gpus, machine):
        lease = await held(machine, "0:1")
        booted(gpus)
        await machine.start_again(boot="boot-2")
        await machine.sweep()
        assert (set(machine.devices), await machine.free()) == ({"0"}, set())
        child = machine.child
        await machine.repartition().resume()
        assert machine.child != child
        assert await may_start(machine, lease)
        assert await machine.free() == {"0:0"}


async def test_what_a_boot_cannot_make_again_is_lost(machine_of: Start) -> None:
    """Where mode waits for a reset, and where a GPU has fallen off the bus, which keeps no other waiting; holders are told."""
    async with machine_of("a100-40:3g.20gb,a100-40:3g.20gb,a100-40:3g.20gb") as (gpus, machine):
        waits, gone, stays = [await held(machine, f"{number}:0") for number in range(3)]
        booted(gpus)
        with simulate.changed(gpus.dir) as state:
            state["gpus"][0]["mig"] = {"current": 0, "pending": 0, "needs_reset": True}
        fault(gpus, symbol="nvmlDeviceGetHandleByIndex_v2", gpu=gpus.uuid(1), ret=LOST)
        await machine.start_again(boot="boot-2")
        await machine.sweep()
        states = [(await machine.now(lease)).state for lease in (waits, gone, stays)]
        assert states == [LeaseState.ACTIVE] * 3
        await machine.repartition().resume()
        states = [(await machine.now(lease)).state for lease in (waits, gone, stays)]
        assert states == [LeaseState.LOST, LeaseState.LOST, LeaseState.ACTIVE]
        for lease in (waits, gone):
            assert "is gone; it is lost to you" in (machine.allocator.upkeep.note(lease.id) or "")
        assert await may_start(machine, stays)


async def test_what_was_destroyed_by_hand_is_not_made_again(machine_of: Start) -> None:
    """Not within the boot, nor by the next one; made again by hand it is another, and the old lease is lost for good."""
    async with machine_of("a100-40:3g.20gb+3g.20gb") as (gpus, machine):
        lease = await held(machine, "0:0")
        before = simulate.read_state(gpus.dir)["gpus"][0]["gis"]
        with simulate.changed(gpus.dir) as state:
            state["gpus"][0]["gis"] = before[1:]
        await machine.sweep()
        await machine.repartition().resume()
        assert (await machine.now(lease)).state is LeaseState.LOST
        booted(gpus)
        await machine.start_again(boot="boot-2")
        await machine.repartition().resume()
        assert simulate.read_state(gpus.dir)["gpus"][0]["gis"] == [
            before[1] | {"cis": [before[1]["cis"][0] | {"index": 0}]}
        ]
        with simulate.changed(gpus.dir) as state:
            state["gpus"][0]["gis"] = before
        await machine.sweep()
        same = machine.watch.current().devices[lease.devices[0]]
        assert same.generation == lease.generations[0] + 1
        assert (await machine.now(lease)).state is LeaseState.LOST


async def test_who_waits_gets_a_new_device_when_the_cdi_spec_shows_it(machine_of: Start) -> None:
    """Not between two steps, nor while the command runs, nor after it has failed; a look finds the device each time."""
    async with machine_of("a100-40:1g.5gb") as (_gpus, machine):
        await machine.take("0:0")
        waiter = asyncio.get_running_loop().create_task(
            machine.allocator.lease(want(limit=64, wait_seconds=60))
        )
        await queued(machine.allocator, 1)
        layout = {machine.uuid("0"): Layout(profiles={"1g.5gb": 3})}
        problems: list[str | None] = ["spoilt", None]

        async def regenerate() -> str | None:
            for _ in range(2):
                await machine.sweep()
            assert set(machine.devices) == {"0", "0:0", "0:1", "0:2"}
            assert not waiter.done()
            return problems.pop(0)

        changer = machine.repartition(regenerate)
        applied = await changer.apply(layout, who="root")
        assert (applied.outcomes[0].done, applied.cdi_problem) == (2, "spoilt")
        await machine.sweep()
        assert not waiter.done()
        assert await machine.free() == set()
        await changer.resume()
        await machine.sweep()
        lease = await asyncio.wait_for(waiter, 5)
        assert isinstance(lease, Lease)
        assert lease.devices[0] in {machine.uuid("0:1"), machine.uuid("0:2")}
