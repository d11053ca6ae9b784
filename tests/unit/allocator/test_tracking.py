"""Rounds over looks at simulated devices, with real processes on them."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator.attribution import Kind
from allocator.attributor import Attributor, Running
from allocator.finishing import Finishing
from allocator.foreign import ForeignContainers
from allocator.ghosts import SWEEPS
from allocator.holders import DeviceFile, Holdings
from allocator.host_control import HostControl, Owner
from allocator.intruders import Intruders
from allocator.model import DeviceState, InventoryUnavailable, LedgerUnavailable, Moment, Snapshot
from allocator.processes import Processes
from allocator.readings import GpuProcess, Measures
from allocator.tracking import Named, Round, Told, Tracking
from allocator.watch import Watch
from host.clock import boot_id
from policy.host_processes import HostProcesses, HostRule
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from tests.fakes.containers import container_cgroup, started_in
from tests.fakes.fake_nvml import FakeNvml, gpu, mig
from tests.fakes.leasing import lease
from tests.fakes.waiting import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from allocator.model import Lease

NOBODY_HAS = 2**22  # no pid is so high


class World:
    """One machine: devices, a clock, and what users were told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.nvml = FakeNvml(gpu(0, minor=0))
        self.said: list[str] = []
        self.holdings = Holdings()
        self.scan_problem: OSError | None = None
        self.grants_problem: Exception | None = None
        self.told = Told()
        self.processes = Processes(boot_id=boot_id())
        self.finishing = Finishing()
        self.watch = Watch(
            inventory=self.nvml,
            take_in=self._as_it_is,
            finishing=self.finishing,
            now=self.now,
            patience_seconds=5,
            fresh_seconds=8,
        )
        self.leases: tuple[Lease, ...] = ()
        foreign = ForeignContainers()
        foreign.tell(())
        self.tracking = Tracking(
            watch=self.watch,
            attributor=Attributor(processes=self.processes, containers=self.told, now=self.now, first_uid=0),
            control=HostControl(
                processes=self.processes,
                account=lambda _uid: Owner(name="somebody", is_person=True),
                tell=lambda _uid, text: self.said.append(text),
                now=self.now,
                utc_seconds=lambda: self.seconds,
            ),
            intruders=Intruders(
                leases=self._leases,
                tell_holder=self._note,
                containers=self.told,
                foreign=foreign,
                now=self.now,
            ),
            granted=self._granted,
            scan=self._scan,
            now=self.now,
        )

    def now(self) -> Moment:
        return Moment(utc="2026-01-01T00:00:00Z", boottime_ms=int(self.seconds * 1000), boot_id=boot_id())

    async def _as_it_is(self, snapshot: Snapshot) -> Snapshot:
        return snapshot

    async def _leases(self) -> tuple[Lease, ...]:
        return self.leases

    async def _note(self, lease: LeaseId, device: DeviceUuid) -> None:
        self.said.append(f"{lease} {device}")

    async def _granted(self) -> frozenset[Uid]:
        if self.grants_problem is not None:
            raise self.grants_problem
        return frozenset()

    def _scan(self) -> Holdings:
        if self.scan_problem is not None:
            raise self.scan_problem
        return self.holdings

    async def round(self) -> Round:
        """One look and its round, five seconds later."""
        self.seconds += 5
        await self.watch.look()
        await self.tracking._round_if_new()
        if self.tracking._scanning is not None:
            await self.tracking._scanning
        assert self.tracking.last is not None
        return self.tracking.last


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    made.processes.close()
    made.finishing.close()


async def test_a_process_is_told_until_it_ends_and_a_while_after(world: World) -> None:
    """With its device and memory; one that has ended says when."""
    with running() as child:
        world.nvml.put(gpu(0, processes=(GpuProcess(pid=child.pid, memory_mib=300),)))
        (one,) = (await world.round()).processes
        assert (one.seen.pid, one.seen.memory_mib, one.ended) == (child.pid, 300, None)
    world.nvml.put(gpu(0, processes=()))
    (one,) = (await world.round()).processes
    assert one.seen.pid == child.pid
    assert one.ended is not None


async def test_a_look_that_failed_ends_nothing(world: World) -> None:
    """Without a driver nobody knows what runs: the last round stays."""
    with running() as child:
        world.nvml.put(gpu(0, pids=(child.pid,)))
        before = await world.round()
        world.nvml.problem = "no driver"
        with pytest.raises(Exception, match="no driver"):
            await world.watch.look()
        await world.tracking._round_if_new()
        assert world.tracking.last is before
        world.nvml.problem = None
        world.nvml.put(gpu(0, pids=None))  # the list cannot be read
        told = await world.round()
        assert [one.ended for one in told.processes] == [None]
        assert [(one.device, one.listed) for one in told.unlisted] == [(gpu(0).uuid, before.at)]
        mute = {"0": "it has never answered"}
        world.nvml.snapshot = Snapshot(unidentified=mute, complete=False)  # nor does it say which it is
        told = await world.round()
        assert [one.ended for one in told.processes] == [None]
        assert [(one.device, one.why) for one in told.unlisted] == [(gpu(0).uuid, mute["0"])]
        world.nvml.snapshot = Snapshot()  # it is not there
        told = await world.round()
        assert [one.ended is None for one in told.processes] == [False]
        assert told.unlisted == ()


async def test_it_is_said_why_the_last_round_is_not_of_now(world: World) -> None:
    """Before the first, while the devices cannot be looked at, after a round that failed, and while one takes long."""
    assert world.tracking.problem == "NVML was not read yet"
    await world.watch.look()
    assert world.tracking.problem == "whose the processes are is being looked at"
    assert (await world.round()).at == world.watch.seen
    told: str | None = world.tracking.problem
    assert told is None
    world.seconds += 8
    assert world.tracking.problem == "the GPUs could not be looked at since"
    world.nvml.problem = "no driver"
    with pytest.raises(InventoryUnavailable):
        await world.watch.look()
    assert world.tracking.problem == "no driver"
    world.nvml.problem = None
    for _ in range(2):
        world.seconds += 4
        await world.watch.look()
    assert world.tracking.problem == "whose the processes are is being looked at"
    world.tracking._failure = "no"
    assert world.tracking.problem == "whose the processes are cannot be told: no"
    await world.round()
    assert world.tracking.problem is None


@pytest.mark.parametrize("problem", [LedgerUnavailable("disk I/O error"), PermissionError("no")])
async def test_a_round_that_fails_ends_no_daemon(
    world: World, problem: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be read now is read in a later round."""
    monkeypatch.setattr("allocator.tracking._TICK_SECONDS", 0)
    world.grants_problem = problem
    await world.watch.look()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(world.tracking.run())
        with structlog.testing.capture_logs() as logs:
            while not logs:  # noqa: ASYNC110  a round tells nobody
                await asyncio.sleep(0.01)
        assert world.tracking.problem == f"whose the processes are cannot be told: {problem}"
        world.grants_problem = None
        await world.watch.look()
        async with asyncio.timeout(5):
            while world.tracking.last is None:  # noqa: ASYNC110  nor does this one
                await asyncio.sleep(0.01)
        running.cancel()


async def test_a_process_in_a_mig_device_is_told_once(world: World) -> None:
    """The GPU lists it as well; what the GPU lists beside its instances is told as the GPU's."""
    with running() as child, running() as other:
        inside = GpuProcess(pid=child.pid, gpu_instance_id=7, compute_instance_id=0)
        world.nvml.put(gpu(0, state=DeviceState.UNUSABLE, processes=(inside, GpuProcess(pid=other.pid))))
        world.nvml.put(mig(0, 0, processes=(GpuProcess(pid=child.pid),)))
        told = {one.seen.pid: one.seen for one in (await world.round()).processes}
        assert told[child.pid].device == mig(0, 0).uuid
        assert (told[child.pid].gpu_instance_id, told[child.pid].compute_instance_id) == (7, 0)
        assert told[other.pid].device == gpu(0).uuid


async def test_a_process_on_an_instance_without_a_device_is_told(world: World) -> None:
    """As the GPU's, which lists it: a MIG device that the look has not would hide it otherwise."""
    with running() as child:
        there = GpuProcess(pid=child.pid, gpu_instance_id=13, compute_instance_id=0)
        world.nvml.put(gpu(0, state=DeviceState.UNUSABLE, processes=(there,)))
        world.nvml.put(mig(0, 0))
        (one,) = (await world.round()).processes
        assert (one.seen.device, one.seen.gpu_instance_id) == (gpu(0).uuid, 13)


async def test_a_container_off_its_lease_is_told_and_stopped(world: World) -> None:
    """As policy says: its user is warned, then the process alone is ended; the holder of the device has a note."""
    web = ContainerId("a" * 64)
    world.tracking.rules = HostProcesses(unleased=HostRule.STOP, grace_seconds=60)
    world.leases = (lease("held", gpu(0).uuid),)
    with container_cgroup(web) as cgroup, started_in(cgroup) as child, started_in(cgroup) as beside:
        world.told.tell([Named(running=Running(id=web, pid=beside.pid, owner=Uid(54321)), name="web")])
        world.nvml.put(gpu(0, pids=(child.pid,)))
        for _ in range(3):
            told = await world.round()
        assert list(told.leased.values()) == [False]
        assert world.said[0] == f"held {gpu(0).uuid}"
        assert f"its container {web[:12]} does not hold and is ended in 60 seconds" in world.said[1]
        world.seconds += 60
        await world.round()
        assert child.wait(5) == -signal.SIGTERM
        assert beside.poll() is None


async def test_memory_without_a_process_is_told_after_two_looks(world: World) -> None:
    """With who has the device's file open; a process that nobody can see does not count as one."""
    world.holdings = Holdings(
        open={os.getpid(): frozenset({DeviceFile(driver="nvidia", major=195, minor=0)})}
    )
    world.nvml.put(gpu(0, minor=0, pids=(NOBODY_HAS,), measures=Measures(memory_used_mib=9000)))
    assert world.watch.unattributed() == frozenset()  # a process is listed, whoever that is
    for number in range(SWEEPS):
        ghosts = (await world.round()).ghosts
        assert (ghosts is None) == (number < SWEEPS - 1)  # until then it was not judged
    assert ghosts is not None
    assert [one.used_mib for one in ghosts] == [9000]
    assert world.watch.unattributed() == {gpu(0).uuid}
    world.nvml.put(gpu(0, minor=0, measures=Measures(memory_used_mib=0)))
    assert (await world.round()).ghosts == ()
    assert world.watch.unattributed() == frozenset()


async def test_after_a_start_one_look_is_enough_to_think_so(world: World) -> None:
    """What was known before is forgotten, and memory that nobody has is not free before that was judged anew."""
    world.nvml.put(gpu(0, measures=Measures(memory_used_mib=9000)))
    world.nvml.put(gpu(1, measures=Measures(memory_used_mib=None)))
    for number in range(SWEEPS):
        await world.round()
        assert world.watch.unattributed() == {gpu(0).uuid}
        assert (world.watch.ghosts is None) == (number < SWEEPS - 1)
    world.nvml.put(gpu(1, measures=Measures(memory_used_mib=9000)))
    await world.round()
    assert world.watch.unattributed() == {gpu(0).uuid}  # from now on two looks are asked for


async def test_who_only_has_a_device_open_is_told_too(world: World) -> None:
    """By the scan of descriptors, which comes more rarely; one that fails leaves the last one."""
    with running() as child:
        world.holdings = Holdings(
            open={child.pid: frozenset({DeviceFile(driver="nvidia", major=195, minor=255)})},
            unread=frozenset({1}),
        )
        assert (await world.round()).scan is None  # it was only begun, and who holds what is not known
        told = await world.round()
        assert told.scan is not None
        assert told.scan.at.boottime_ms == 5000  # of the round that began it
        assert [one.facts.identity.pid for one in told.scan.elsewhere] == [child.pid]
        assert told.scan.unread == {1}
        world.scan_problem = PermissionError("no")
        world.seconds += 60
        await world.round()
        scan = (await world.round()).scan
        assert scan is not None
        assert scan.at.boottime_ms == 5000
        assert [one.facts.identity.pid for one in scan.elsewhere] == [child.pid]


@pytest.mark.skipif(os.geteuid() != 0, reason="starts a process of another uid")
async def test_the_rules_of_policy_are_carried_out(world: World) -> None:
    """A person's process on the host is warned of once, as soon as policy says so."""
    with running(user=54321) as child:
        world.nvml.put(gpu(0, pids=(child.pid,)))
        (told,) = (await world.round()).processes
        assert (told.attribution.kind, told.attribution.owner) == (Kind.USER, 54321)
        assert world.said == []
        world.tracking.rules = HostProcesses(host_processes=HostRule.WARN)
        for _ in range(2):
            await world.round()
        assert len(world.said) == 1


async def test_nothing_told_is_not_nothing_running() -> None:
    """Before the proxy has spoken the engine's containers are unknown; afterwards they have names."""
    told, one = Told(), ContainerId("a" * 64)
    assert await told.running() is None
    told.tell([Named(running=Running(id=one, pid=5, owner=Uid(1000)), name="web")])
    assert await told.running() == (Running(id=one, pid=5, owner=Uid(1000)),)
    assert told.name(one) == "web"
    assert told.name(None) is None
    told.tell([])
    assert await told.running() == ()
    assert told.name(one) == "web"  # for what has just ended
