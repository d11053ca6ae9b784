"""Each scenario of a GPU machine under the allocator: what is free, what a request gets, what is told, and what comes back."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator.attribution import Kind
from allocator.attributor import Running
from allocator.ledger import Conflict
from allocator.mig import Destroy, Layout
from allocator.model import (
    DeviceState,
    InventoryUnavailable,
    Lease,
    LeaseState,
    Problem,
    Refusal,
    RefusalKind,
)
from allocator.readings import MigMode, RecoveryAction
from allocator.reconcile import Carrier, Evidence
from allocator.tracking import Named
from lab import simulate
from lab.scenarios import NOBODY, SCENARIOS, Part
from policy.model import ContainerId, Uid
from tests.fakes.containers import container_cgroup, started_in
from tests.fakes.leasing import evidence
from tests.fakes.simulated_gpus import driver_library
from tests.fakes.waiting import forked_as, running
from tests.fakes.watched_machine import WatchedMachine

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from tests.fakes.simulated_gpus import Played

    Watch = Callable[..., AbstractAsyncContextManager[WatchedMachine]]

ONES = {f"3:{place}" for place in range(7)}  # of the machine that most scenarios begin with
ALL = {"0", "1", "2:0", "2:1"} | ONES
ME = os.getpid()
SLOW_GPU_SECONDS = 2  # for a GPU that hangs; the others answer far sooner


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Gives `watched(machine)`: an allocator that has looked once, ended with the test."""

    @asynccontextmanager
    async def start(machine: Played, **seconds: float) -> AsyncIterator[WatchedMachine]:
        for name, value in machine.environment.items():
            monkeypatch.setenv(name, value)
        one = WatchedMachine(tmp_path / "ledger", **seconds)
        try:
            await one.sweep()
            await one.allocator.settle(evidence(one.clock()))
            yield one
        finally:
            await one.close()

    return start


def kind(outcome: Lease | Refusal) -> RefusalKind:
    assert isinstance(outcome, Refusal), outcome
    return outcome.kind


def test_every_scenario_is_here() -> None:
    """One test for each, named after it; none for what is no scenario."""
    here = {name.removeprefix("test_in_") for name in globals() if name.startswith("test_in_")}
    assert here == set(SCENARIOS)


# --- MIG ----------------------------------------------------------------------------------------------------


async def test_in_mig_mode_pending(mig_mode_pending: Played, watched: Watch) -> None:
    """A GPU on its way into MIG mode is leased to nobody new; who holds it goes on."""
    mig_mode_pending.rewind()
    async with watched(mig_mode_pending) as machine:
        lease = await machine.take("0")
        mig_mode_pending.play(Part())
        await machine.sweep()
        gpu = machine.devices["0"]
        assert (gpu.state, gpu.mig_mode) == (DeviceState.UNUSABLE, MigMode(current=False, pending=True))
        assert (await machine.now(lease)).state is LeaseState.PENDING
        await machine.allocator.release(lease.id, who="x", why="removed")
        assert kind(await machine.name("0")) is RefusalKind.NOT_USABLE
        assert await machine.free() == ALL - {"0"}
        found = await machine.ask()
        assert isinstance(found, Lease)
        assert found.devices == (machine.uuid("1"),)


async def test_in_mig_in_use(mig_in_use: Played, watched: Watch) -> None:
    """A MIG device with a process is not free, is not destroyed, and is told once, on itself; its neighbour is leased."""
    async with watched(mig_in_use) as machine:
        assert machine.devices["2:0"].pids == (ME,)
        assert await machine.free() == ALL - {"2:0"}
        assert kind(await machine.name("2:0")) is RefusalKind.IN_USE
        await machine.take("2:1")
        assert await machine.allocator.withheld.withhold([machine.uuid("2:0")]) == (f"process {ME}",)
        (told,) = machine.round.processes
        assert (told.seen.pid, told.seen.device) == (ME, machine.uuid("2:0"))
        assert machine.devices["2:0"].state is DeviceState.OK


async def test_in_fragmented(fragmented: Played, watched: Watch) -> None:
    """No 2g is leased where none is; one that fits nowhere is told as missing by the plan, which moves no lease."""
    async with watched(fragmented) as machine:
        small = {"2:0", "2:1", "2:2"}
        assert await machine.free() == {"0", "1"} | small | ONES
        assert kind(await machine.ask(profile="2g.10gb")) is RefusalKind.TOO_FEW
        for index in small:
            await machine.take(index)
        layout = Layout(profiles={"2g.10gb": 1, "1g.5gb": 3})
        (plan,) = await machine.repartition().plans({machine.uuid("2"): layout})
        assert (plan.steps, dict(plan.missing)) == ((), {"2g.10gb": 1})


async def test_in_same_uuid_after_recreation(same_uuid_after_recreation: Played, watched: Watch) -> None:
    """A MIG device that comes back under its UUID is another one: its generation grows, and the old lease is lost for good."""
    same_uuid_after_recreation.rewind()
    async with watched(same_uuid_after_recreation) as machine:
        lease = await machine.take("2:0")
        container = ContainerId("a" * 64)
        await machine.allocator.confirm(lease.id, container, who="x")
        same_uuid_after_recreation.play(Part())
        await machine.sweep()
        assert "2:0" not in machine.devices
        assert (await machine.now(lease)).state is LeaseState.LOST
        same_uuid_after_recreation.play(Part())
        await machine.sweep()
        assert (machine.uuid("2:0"),) == lease.devices
        assert machine.devices["2:0"].generation == lease.generations[0] + 1
        assert (await machine.now(lease)).state is LeaseState.LOST
        with pytest.raises(Conflict):
            await machine.allocator.start(lease.id, container, who="x")
        assert "2:0" not in await machine.free()
        await machine.allocator.release(lease.id, who="x", why="removed")
        assert (await machine.take("2:0")).generations == (lease.generations[0] + 1,)


async def test_in_another_profile_at_the_same_place(
    another_profile_at_the_same_place: Played, watched: Watch
) -> None:
    """A start that comes before the next sweep looks first, if the last look is old; the other device is not its own."""
    another_profile_at_the_same_place.rewind()
    async with watched(another_profile_at_the_same_place) as machine:
        lease = await machine.take("2:0")
        container = ContainerId("a" * 64)
        await machine.allocator.confirm(lease.id, container, who="x")
        another_profile_at_the_same_place.play(Part())
        machine.clock.seconds += 8
        with pytest.raises(Conflict, match="has lost a device"):
            await machine.allocator.start(lease.id, container, who="x")
        assert machine.devices["2:0"].profile == "4g.20gb"
        assert (machine.uuid("2:0"),) == lease.devices
        assert (await machine.now(lease)).state is LeaseState.LOST


def told(machine: WatchedMachine, lease: Lease, container: ContainerId, state: str) -> Evidence:
    """What the proxy says of the one container there is."""
    carrier = Carrier(container=container, lease=lease.id, owner_uid=lease.owner_uid, state=state)
    return evidence(machine.clock(), carrier)


async def test_in_mig_switched_off(mig_switched_off: Played, watched: Watch) -> None:
    """The whole GPU is not leased, nor split again, while a container has its file with a MIG device that is gone."""
    mig_switched_off.rewind()
    async with watched(mig_switched_off) as machine:
        lease = await machine.take("2:0")
        container = ContainerId("a" * 64)
        await machine.allocator.confirm(lease.id, container, who="x")
        await machine.allocator.start(lease.id, container, who="x")
        mig_switched_off.play(Part())
        await machine.sweep()
        assert (machine.devices["2"].state, "2:0" in machine.devices) == (DeviceState.OK, False)
        assert (await machine.now(lease)).state is LeaseState.LOST
        assert await machine.free() == {"0", "1"} | ONES
        refusal = await machine.name("2")
        assert isinstance(refusal, Refusal)
        assert "GPU 2 is held by alice" in refusal.message
        wanted = {machine.uuid("2"): Layout(profiles={"3g.20gb": 2})}
        (plan,) = await machine.repartition().plans(wanted)
        said = f"container {container[:12]} of alice, whose MIG device is gone"
        assert (plan.steps, plan.kept) == ((), (said,))
        await machine.start_again()
        await machine.sweep()
        machine.clock.seconds += 60
        await machine.allocator.settle(told(machine, lease, container, "running"))
        assert kind(await machine.name("2")) is RefusalKind.IN_USE
        await machine.allocator.settle(told(machine, lease, container, "exited"))
        assert (await machine.now(lease)).state is LeaseState.RELEASED
        (plan,) = await machine.repartition().plans(wanted)
        assert plan.steps
        assert (await machine.take("2")).devices == (machine.uuid("2"),)


async def test_in_mig_switched_on(mig_switched_on: Played, watched: Watch) -> None:
    """Parts of a GPU that somebody holds whole are leased to nobody, and not destroyed; then they are as any."""
    mig_switched_on.rewind()
    async with watched(mig_switched_on) as machine:
        lease = await machine.take("0")
        mig_switched_on.play(Part())
        await machine.sweep()
        assert {"0:0", "0:1"} <= machine.devices.keys()
        assert await machine.free() == ALL - {"0"}
        assert kind(await machine.name("0:0")) is RefusalKind.IN_USE
        (plan,) = await machine.repartition().plans({machine.uuid("0"): Layout(profiles=None)})
        assert plan.steps == ()
        await machine.allocator.release(lease.id, who="x", why="removed")
        assert await machine.free() == (ALL - {"0"}) | {"0:0", "0:1"}


async def test_in_eight_by_seven(eight_by_seven: Played, watched: Watch) -> None:
    """Each of 56 MIG devices is leased once, and no GPU whole; then it is said who holds them."""
    async with watched(eight_by_seven) as machine:
        found = [await machine.ask() for _ in range(56)]
        leased = [device for lease in found if isinstance(lease, Lease) for device in lease.devices]
        assert len(set(leased)) == len(leased) == 56
        assert set(leased) == {one.uuid for one in machine.devices.values() if one.parent is not None}
        refusal = await machine.ask()
        assert kind(refusal) is RefusalKind.IN_USE
        assert isinstance(refusal, Refusal)
        assert "held by alice (56 1g.5gb)" in refusal.message


async def test_mig_leaves_what_a_stopped_container_names(
    same_uuid_after_recreation: Played, watched: Watch
) -> None:
    """Its lease is over by time, and not what it was made with; after a restart nothing goes before the proxy has spoken."""
    same_uuid_after_recreation.rewind()
    async with watched(same_uuid_after_recreation) as machine:
        outcome = await machine.ask(count=None, device_ids=("2:0",), hold_seconds=0)
        assert isinstance(outcome, Lease)
        container = ContainerId("a" * 64)
        await machine.allocator.confirm(outcome.id, container, who="x")
        for _ in range(2):
            machine.clock.seconds += 60
            await machine.allocator.settle(told(machine, outcome, container, "exited"))
        assert (await machine.now(outcome)).state is LeaseState.RELEASED
        wanted = {machine.uuid("2"): Layout(profiles={"1g.5gb": 7})}

        async def destroyed() -> tuple[int, tuple[str, ...]]:
            (plan,) = await machine.repartition().plans(wanted)
            return sum(isinstance(step, Destroy) for step in plan.steps), plan.kept

        gone, (kept,) = await destroyed()
        assert (gone, f"stopped container {container[:12]} of alice" in kept) == (1, True)
        await machine.start_again()
        await machine.sweep()
        gone, kept_all = await destroyed()
        assert (gone, {"waits for the proxy" in said for said in kept_all}) == (0, {True})
        await machine.allocator.settle(evidence(machine.clock(), session="two"))
        assert await destroyed() == (2, ())


# --- Processes and memory -----------------------------------------------------------------------------------


async def test_in_process_exits_between_list_and_proc_read(
    process_exits_between_list_and_proc_read: Played, watched: Watch
) -> None:
    """As long as NVML lists it the GPU is not free, and it is nobody's; then the GPU is."""
    machine_of = process_exits_between_list_and_proc_read
    async with watched(machine_of) as machine:
        assert await machine.free() == ALL - {"0"}
        assert kind(await machine.name("0")) is RefusalKind.IN_USE
        (told,) = machine.round.processes
        assert (told.seen.pid, told.attribution.kind, told.attribution.owner) == (NOBODY, Kind.UNKNOWN, None)
        assert "ended before" in told.attribution.why
        simulate.remove_process(machine_of.dir, NOBODY)
        await machine.sweep()
        assert (machine.round.processes, await machine.free()) == ((), ALL)


@pytest.mark.skipif(os.geteuid() != 0, reason="to choose a pid needs root")
async def test_in_pid_reused(pid_reused: Played, watched: Watch) -> None:
    """Who had the pid on the first GPU has ended, by its own identity; who has it on the second is another process."""
    pid_reused.rewind()
    async with watched(pid_reused) as machine:
        with running() as first:
            pid_reused.play(Part(pid=first.pid))
            await machine.sweep()
            (before,) = machine.round.processes
            assert (before.name, before.ended) == ("sleep", None)
        with forked_as(first.pid) as second:
            pid_reused.play(Part(pid=second))
            await machine.sweep()
            now = {one.seen.device: one for one in machine.round.processes}
            assert now[machine.uuid("0")].identity == before.identity
            assert (now[machine.uuid("0")].ended, now[machine.uuid("1")].ended) == (machine.clock(), None)
            other = now[machine.uuid("1")].identity
            assert other is not None
            assert before.identity is not None
            assert (other.pid, other.start_ticks > before.identity.start_ticks) == (first.pid, True)
            assert await machine.free() == ALL - {"1"}


def leased(machine: WatchedMachine) -> bool | None:
    """What the last round said of the one process that runs."""
    (told,) = (one for one in machine.round.processes if one.ended is None)
    assert told.identity is not None
    return machine.round.leased.get((told.identity, told.seen.device))


async def test_in_process_without_lease(process_without_lease: Played, watched: Watch) -> None:
    """A container on another's device is told as such there, on a MIG device too; the holder gets a note that names nobody."""
    process_without_lease.rewind()
    web = ContainerId("a" * 64)
    async with watched(process_without_lease) as machine:
        with container_cgroup(web) as cgroup, started_in(cgroup) as child:
            machine.told.tell([Named(running=Running(id=web, pid=child.pid, owner=Uid(54321)), name="web")])
            for index, named in (("0", "GPU 0"), ("2:0", "MIG device 2:0")):
                lease = await machine.take(index)
                process_without_lease.play(Part(pid=child.pid))
                with structlog.testing.capture_logs() as logs:
                    await machine.sweep()
                    assert (leased(machine), machine.allocator.upkeep.note(lease.id)) == (None, None)
                    for _ in range(3):
                        await machine.sweep()
                assert leased(machine) is False
                (line,) = (one for one in logs if one["event"] == "unleased_process.reported")
                assert (line["device"], line["container"], line["uid"]) == (machine.uuid(index), web, 54321)
                assert (line["lease"], line["holder_uid"]) == (lease.id, lease.owner_uid)
                note = machine.allocator.upkeep.note(lease.id) or ""
                assert f"not yours was seen on {named}," in note
                assert "54321" not in note
            await machine.allocator.release(lease.id, who="x", why="removed")
            await machine.sweep()
            assert await machine.free() == ALL - {"0", "2:0"}  # 2:0 by the process alone


async def _memory_of_nobody(machine: WatchedMachine, used_mib: int) -> None:
    """No process has it; after two looks, not one, it is told as nobody's, and the GPU is leased to nobody."""
    gpu = machine.uuid("0")
    assert machine.devices["0"].measures.memory_used_mib == used_mib
    assert (machine.round.processes, machine.round.ghosts) == ((), None)
    await machine.sweep()
    (ghost,) = machine.round.ghosts or ()
    assert (ghost.device, ghost.used_mib, ghost.sweeps) == (gpu, used_mib, 2)
    assert machine.round.processes == ()
    assert await machine.free() == ALL - {"0"}
    assert kind(await machine.name("0")) is RefusalKind.IN_USE
    beside = await machine.ask(classes=("gpu",))
    assert isinstance(beside, Lease)
    assert beside.devices == (machine.uuid("1"),)
    await machine.allocator.release(beside.id, who="x", why="removed")


async def test_in_foreign_pid_namespace(foreign_pid_namespace: Played, watched: Watch) -> None:
    """What a process that cannot be seen uses is unattributed memory, and nobody's name is put to it."""
    async with watched(foreign_pid_namespace) as machine:
        await _memory_of_nobody(machine, 2048)


async def test_in_ghost_memory(ghost_memory: Played, watched: Watch) -> None:
    """It is told for as long as it lasts."""
    async with watched(ghost_memory) as machine:
        await _memory_of_nobody(machine, 3000)
        with simulate.changed(ghost_memory.dir) as state:
            state["gpus"][0]["ghost_mib"] = 0
        await machine.sweep()
        assert machine.round.ghosts == ()
        assert (await machine.take("0")).devices == (machine.uuid("0"),)


async def test_in_memory_unknown(memory_unknown: Played, watched: Watch) -> None:
    """A process whose memory is not known uses its GPU all the same, and its memory is None, not 0."""
    async with watched(memory_unknown) as machine:
        await machine.sweep()
        (told,) = machine.round.processes
        assert (told.seen.pid, told.seen.device, told.seen.memory_mib) == (ME, machine.uuid("0"), None)
        assert machine.round.ghosts == ()
        assert await machine.free() == ALL - {"0"}
        assert kind(await machine.name("0")) is RefusalKind.IN_USE


async def test_in_memory_size_unknown(memory_size_unknown: Played, watched: Watch) -> None:
    """A GPU of unknown size is leased to who asks for no size, and to nobody who asks for one."""
    async with watched(memory_size_unknown) as machine:
        gpu = machine.devices["0"]
        assert (gpu.memory_mib, gpu.measures.memory_used_mib, gpu.state) == (None, None, DeviceState.OK)
        found = await machine.ask(memory_mib=1, classes=("gpu",))
        assert isinstance(found, Lease)
        assert found.devices == (machine.uuid("1"),)
        assert kind(await machine.ask(memory_mib=1, classes=("gpu",))) is RefusalKind.IN_USE
        assert (await machine.take("0")).devices == (gpu.uuid,)


async def test_in_utilisation_unknown(utilisation_unknown: Played, watched: Watch) -> None:
    """It is None, never 0, on every device, and everything is leased as ever."""
    async with watched(utilisation_unknown) as machine:
        measured = machine.watch.measures().values()
        assert len(measured) == len(machine.devices)
        assert {one.utilisation_percent for one in measured} == {None}
        assert await machine.free() == ALL


# --- Errors -------------------------------------------------------------------------------------------------


async def test_in_xid_on_gi(xid_on_gi: Played, watched: Watch) -> None:
    """An error of a program on a MIG device is told to who holds that device, and takes nothing from anybody."""
    xid_on_gi.rewind()
    async with watched(xid_on_gi) as machine:
        struck, beside = await machine.take("2:0"), await machine.take("2:1")
        xid_on_gi.play(Part())
        await machine.until(lambda: machine.allocator.upkeep.note(struck.id) is not None)
        assert "XID 31 (page fault) on MIG device 2:0" in (machine.allocator.upkeep.note(struck.id) or "")
        assert machine.allocator.upkeep.note(beside.id) is None
        assert {(await machine.now(one)).state for one in (struck, beside)} == {LeaseState.PENDING}
        assert await machine.free() == ALL - {"2:0", "2:1"}


async def test_in_xid_on_device(xid_on_device: Played, watched: Watch) -> None:
    """A GPU that fell off the bus is lost to its holder and leased to nobody until a person says so; others are leased."""
    xid_on_device.rewind()
    async with watched(xid_on_device) as machine:
        lease = await machine.take("0")
        xid_on_device.play(Part())
        await machine.until(lambda: machine.devices["0"].state is DeviceState.QUARANTINED)
        assert "XID 79" in (machine.devices["0"].remark or "")
        assert (await machine.now(lease)).state is LeaseState.LOST
        assert "lost to you" in (machine.allocator.upkeep.note(lease.id) or "")
        await machine.allocator.release(lease.id, who="x", why="removed")
        assert kind(await machine.name("0")) is RefusalKind.NOT_USABLE
        assert await machine.free() == ALL - {"0"}
        await machine.start_again()
        await machine.sweep()
        assert machine.devices["0"].state is DeviceState.QUARANTINED
        assert await machine.allocator.upkeep.release(machine.uuid("0"), who="root", why="replaced")
        assert (await machine.take("0")).devices == lease.devices


def errors(machine: WatchedMachine) -> list[tuple[str, int]]:
    """Device and code of every error that the ledger has."""
    found = machine.allocator._ledger.read("SELECT device, xid FROM device_errors ORDER BY number")
    return [(str(device), int(xid)) for device, xid in found]


async def test_in_xid_while_nvml_hangs(xid_while_nvml_hangs: Played, watched: Watch) -> None:
    """What the kernel log alone tells is carried out while nothing answers, with who told it, and once; it lasts."""
    xid_while_nvml_hangs.rewind()
    async with watched(xid_while_nvml_hangs, deadline_seconds=2) as machine:
        lease, beside = await machine.take("0"), await machine.take("2:0")
        xid_while_nvml_hangs.play(Part(milliseconds=60_000))
        await machine.sweep()
        assert machine.inventory == "unresponsive"
        assert (await machine.now(lease)).state is LeaseState.PENDING
        xid_while_nvml_hangs.play(Part())
        await machine.until(lambda: machine.devices["0"].state is DeviceState.QUARANTINED)
        assert machine.inventory == "unresponsive"
        remark = machine.devices["0"].remark or ""
        assert "XID 79 (fell off the bus; told by the kernel log alone)" in remark
        assert (await machine.now(lease)).state is LeaseState.LOST
        assert "told by the kernel log" in (machine.allocator.upkeep.note(lease.id) or "")
        assert machine.devices["1"].state is DeviceState.UNRESPONSIVE
        assert machine.allocator.upkeep.note(beside.id) is None
        simulate.heal(xid_while_nvml_hangs.dir)
        await machine.until(lambda: machine.watch.problem is None)
        for _ in range(3):
            await machine.sweep()
        assert machine.devices["0"].state is DeviceState.QUARANTINED
        assert errors(machine) == [(machine.uuid("0"), 79)]
        assert await machine.free() == ALL - {"0", "2:0"}
        assert (await machine.now(beside)).state is LeaseState.PENDING


async def test_an_xid_that_both_sources_tell_counts_once(xid_on_gi: Played, watched: Watch) -> None:
    """It is told as NVML's; another one of its kind is another error, and so is one that the log alone has."""
    xid_on_gi.rewind()
    instance = simulate.read_state(xid_on_gi.dir)["gpus"][2]["gis"][0]["id"]
    async with watched(xid_on_gi) as machine:
        lease = await machine.take("2:0")
        once = (machine.uuid("2:0"), 31)
        for tell, expected in (
            (simulate.raise_xid, [once]),
            (simulate.raise_xid, [once] * 2),
            (simulate.log_xid, [once] * 3),
        ):
            assert "kernel log" not in (machine.allocator.upkeep.note(lease.id) or "")
            tell(xid_on_gi.dir, xid_on_gi.uuid(2), 31, gi=instance, ci=0)
            await machine.until(lambda: errors(machine) == expected)  # noqa: B023  awaited before the next
            for _ in range(3):
                await machine.sweep()
            assert errors(machine) == expected
        note = machine.allocator.upkeep.note(lease.id) or ""
        assert "XID 31 (page fault; told by the kernel log alone) on MIG device 2:0" in note


async def test_in_ecc_and_remap_pending(ecc_and_remap_pending: Played, watched: Watch) -> None:
    """A GPU with an uncorrectable error and a row to be remapped is leased to nobody, as the driver advises."""
    async with watched(ecc_and_remap_pending) as machine:
        await machine.until(lambda: machine.devices["0"].state is DeviceState.QUARANTINED)
        gpu = machine.devices["0"]
        assert gpu.measures.ecc is not None
        assert gpu.measures.remapped is not None
        assert (gpu.measures.ecc.uncorrected, gpu.measures.remapped.pending) == (1, True)
        assert gpu.measures.recovery is RecoveryAction.RESET
        assert "reset the GPU" in (gpu.remark or "")
        assert kind(await machine.name("0")) is RefusalKind.NOT_USABLE
        assert await machine.free() == ALL - {"0"}


async def test_in_gpu_lost_mid_sweep(gpu_lost_mid_sweep: Played, watched: Watch) -> None:
    """Nothing that was read before the loss counts: it is lost, its processes unknown, its lease lost; the others are fresh."""
    gpu_lost_mid_sweep.rewind()
    async with watched(gpu_lost_mid_sweep) as machine:
        lease = await machine.take("0")
        gpu_lost_mid_sweep.play(Part())
        await machine.sweep()
        gpu = machine.devices["0"]
        assert (gpu.state, gpu.pids, gpu.measures.memory_used_mib) == (DeviceState.LOST, None, None)
        assert (await machine.now(lease)).state is LeaseState.LOST
        assert (machine.inventory, await machine.free()) == ("ok", ALL - {"0"})
        simulate.heal(gpu_lost_mid_sweep.dir)
        await machine.sweep()
        assert machine.devices["0"].state is DeviceState.QUARANTINED


async def test_in_gpu_lost_at_enumeration(gpu_lost_at_enumeration: Played, watched: Watch) -> None:
    """A GPU that gives no handle after a restart is named by its place, and the lease on it is lost; the others are leased."""
    gpu_lost_at_enumeration.rewind()
    async with watched(gpu_lost_at_enumeration) as machine:
        lease = await machine.take("0")
        gpu_lost_at_enumeration.play(Part())
        await machine.start_again()
        await machine.sweep()
        snapshot = machine.watch.current()
        assert (set(snapshot.unidentified), snapshot.complete) == ({"0"}, True)
        assert (await machine.now(lease)).state is LeaseState.LOST
        assert await machine.free() == ALL - {"0"}
        assert kind(await machine.name("0")) is RefusalKind.UNKNOWN_DEVICE
        await machine.take("1")


# --- After a boot -------------------------------------------------------------------------------------------


async def test_in_gpu_missing_after_reboot(gpu_missing_after_reboot: Played, watched: Watch) -> None:
    """A lease on a GPU that is not there any more is lost, one on what is goes on, and so does one on a MIG device, which is made again."""
    gpu_missing_after_reboot.rewind()
    async with watched(gpu_missing_after_reboot) as machine:
        stays, gone, part = [await machine.take(index) for index in ("0", "1", "2:0")]
        gpu_missing_after_reboot.play(Part())
        await machine.start_again(boot="boot-2")
        await machine.sweep()
        assert {index: one.state for index, one in machine.devices.items()} == {
            "0": DeviceState.OK,
            "1": DeviceState.UNUSABLE,
            "2": DeviceState.UNUSABLE,
        }
        assert await machine.free() == set()
        assert kind(await machine.ask()) is RefusalKind.IN_USE
        await machine.repartition().resume()
        states = [(await machine.now(lease)).state for lease in (stays, gone, part)]
        assert states == [LeaseState.PENDING, LeaseState.LOST, LeaseState.PENDING]
        assert await machine.free() == {"1:1", *(f"2:{place}" for place in range(7))}


async def test_in_index_order_swapped(index_order_swapped: Played, watched: Watch) -> None:
    """A lease is on a UUID, whatever index it has by now: the holder keeps its GPU and nobody else gets it."""
    index_order_swapped.rewind()
    async with watched(index_order_swapped) as machine:
        lease = await machine.take("0")
        index_order_swapped.play(Part())
        await machine.start_again(boot="boot-2")
        await machine.sweep()
        assert (machine.uuid("3"),) == lease.devices
        assert (machine.devices["3"].generation,) == lease.generations
        assert (await machine.now(lease)).state is LeaseState.PENDING
        assert await machine.free() == {"2"}
        assert kind(await machine.name("3")) is RefusalKind.IN_USE
        assert (await machine.take("2")).devices != lease.devices


# --- A driver that does not answer --------------------------------------------------------------------------


async def test_in_hang_in_one_call(hang_in_one_call: Played, watched: Watch) -> None:
    """While no GPU says who runs on it nothing is free and no lease is lost; when the call returns all is as before."""
    hang_in_one_call.rewind()
    async with watched(hang_in_one_call, gpu_seconds=SLOW_GPU_SECONDS) as machine:
        lease, child = await machine.take("0"), machine.child
        hang_in_one_call.play(Part(milliseconds=3000))
        await machine.sweep()
        assert {one.state for one in machine.devices.values()} == {DeviceState.UNRESPONSIVE}
        assert {one.pids for one in machine.devices.values()} == {None}
        assert await machine.free() == set()
        assert kind(await machine.name("1")) is RefusalKind.NOT_USABLE
        refusal = await machine.ask()
        assert isinstance(refusal, Refusal)
        assert "11 devices are out of service" in refusal.message
        assert (await machine.now(lease)).state is LeaseState.PENDING
        simulate.heal(hang_in_one_call.dir)
        await machine.until(lambda: all(one.pids is not None for one in machine.devices.values()))
        assert (await machine.free(), machine.child) == (ALL - {"0"}, child)
        assert (await machine.now(lease)).state is LeaseState.PENDING


async def test_one_gpu_that_hangs_costs_no_other(hang_in_one_call: Played, watched: Watch) -> None:
    """The same call hanging on one GPU only: that one is out, the others are looked at and leased in time."""
    hang_in_one_call.rewind()
    async with watched(hang_in_one_call, gpu_seconds=SLOW_GPU_SECONDS) as machine:
        hang_in_one_call.play(Part(milliseconds=60_000))
        with simulate.changed(hang_in_one_call.dir) as state:
            state["faults"][0]["gpu"] = machine.uuid("0")
        await machine.sweep()
        assert machine.devices["0"].state is DeviceState.UNRESPONSIVE
        assert (machine.inventory, await machine.free()) == ("ok", ALL - {"0"})
        await machine.take("1")
        assert kind(await machine.name("0")) is RefusalKind.NOT_USABLE


async def test_in_hang_at_init(hang_at_init: Played, watched: Watch) -> None:
    """An NVML that does not start is an outage with its name, ended with its process, and over when it is healed."""
    hang_at_init.rewind()
    hang_at_init.play(Part(milliseconds=60_000))
    async with watched(hang_at_init, deadline_seconds=2) as machine:
        child = machine.child
        assert (machine.watch.kind, machine.inventory) == (Problem.UNRESPONSIVE, "unresponsive")
        with pytest.raises(InventoryUnavailable):
            await machine.ask()
        assert machine.devices == {}
        simulate.heal(hang_at_init.dir)
        await machine.until(lambda: machine.watch.problem is None)
        assert (machine.inventory, await machine.free()) == ("ok", ALL)
        assert machine.child != child


async def test_in_sigterm_proof_hang(sigterm_proof_hang: Played, watched: Watch) -> None:
    """A child that cannot be ended gets no second beside it: nothing is free until it is gone, and then all is."""
    sigterm_proof_hang.rewind()
    async with watched(sigterm_proof_hang, gpu_seconds=SLOW_GPU_SECONDS) as machine:
        sigterm_proof_hang.play(Part(milliseconds=6000))
        await machine.sweep()
        child = machine.child
        await machine.worker.close()
        await machine.sweep()
        assert (machine.watch.kind, machine.child) == (Problem.UNRESPONSIVE, child)
        assert {one.state for one in machine.devices.values()} == {DeviceState.UNRESPONSIVE}
        with pytest.raises(InventoryUnavailable):
            await machine.ask()
        simulate.heal(sigterm_proof_hang.dir)
        await machine.until(lambda: machine.watch.problem is None)
        assert (machine.child != child, await machine.free()) == (True, ALL)


# --- A driver that is another, or none ----------------------------------------------------------------------


async def test_in_driver_mismatch(driver_mismatch: Played, watched: Watch) -> None:
    """Nothing new is leased with a library that does not match; who holds a GPU keeps it, and a match ends it."""
    driver_mismatch.rewind()
    async with watched(driver_mismatch) as machine:
        lease = await machine.take("0")
        driver_mismatch.play(Part())
        await machine.worker.close()
        for _ in range(2):
            await machine.sweep()
            assert (machine.watch.kind, machine.inventory) == (Problem.MISMATCH, "driver_mismatch")
        with pytest.raises(InventoryUnavailable, match="upgraded"):
            await machine.ask()
        assert (await machine.now(lease)).state is LeaseState.PENDING
        simulate.heal(driver_mismatch.dir)
        await machine.sweep()
        assert (machine.inventory, await machine.free()) == ("ok", ALL - {"0"})


async def test_in_no_library(no_library: Played, watched: Watch) -> None:
    """A server without the driver says so and leases nothing; a driver that is installed is found without a restart."""
    async with watched(no_library) as machine:
        assert (machine.watch.kind, machine.inventory) == (Problem.NO_LIBRARY, "no_library")
        with pytest.raises(InventoryUnavailable, match=r"libnvidia-ml\.so\.1"):
            await machine.ask()
        simulate.heal(no_library.dir)
        (no_library.dir / simulate.LIBRARY_NAME).symlink_to(driver_library("plain"))
        await machine.sweep()
        assert (machine.inventory, await machine.free()) == ("ok", ALL)


async def test_in_old_driver_symbols(old_driver_symbols: Played, watched: Watch) -> None:
    """A driver whose process lists cannot be read is read for the rest; who runs is unknown, so that nothing is free."""
    async with watched(old_driver_symbols) as machine:
        child = machine.child
        await machine.sweep()
        assert (machine.inventory, machine.child) == ("ok", child)
        assert machine.watch.current().driver == "450.36.06"
        assert set(machine.devices) == ALL | {"2", "3"}
        assert {one.pids for one in machine.devices.values()} == {None}
        assert {machine.devices[index].memory_mib for index in "01"} == {40960}
        assert await machine.free() == set()
        assert kind(await machine.name("0")) is RefusalKind.IN_USE
        refusal = await machine.ask()
        assert kind(refusal) is RefusalKind.IN_USE
        assert isinstance(refusal, Refusal)
        assert "of 11 devices the driver does not say whether they are in use" in refusal.message


async def test_in_no_gpus(no_gpus: Played, watched: Watch) -> None:
    """A driver without a GPU is no outage: the state is ok, and a request is told that there is none."""
    async with watched(no_gpus) as machine:
        assert (machine.watch.problem, machine.inventory) == (None, "no_gpus")
        assert kind(await machine.ask()) is RefusalKind.TOO_FEW
