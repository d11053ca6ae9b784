"""Attribution over several sweeps, of real processes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from allocator.attribution import Kind, Seen
from allocator.attributor import KEEP_SECONDS, Attributed, Attributor, Running
from allocator.holders import DeviceFile, Holdings
from allocator.model import Moment
from allocator.processes import Processes
from host.clock import boot_id
from policy.model import ContainerId, DeviceUuid, Uid
from tests.fakes.containers import container_cgroup, started_in
from tests.fakes.waiting import running

GPU, OTHER = DeviceUuid("GPU-0"), DeviceUuid("GPU-1")
A = ContainerId("a" * 64)
ALICE = Uid(1000)


class Engine:
    """What the engine says it runs; None: it says nothing."""

    def __init__(self) -> None:
        self.says: tuple[Running, ...] | None = ()

    async def running(self) -> tuple[Running, ...] | None:
        return self.says


class World:
    """An attributor with a clock and an engine that the test moves."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.engine = Engine()
        self.processes = Processes(boot_id=boot_id())
        self.attributor = Attributor(processes=self.processes, containers=self.engine, now=self.now)

    def now(self) -> Moment:
        return Moment(utc="2026-01-01T00:00:00Z", boottime_ms=int(self.seconds * 1000), boot_id=boot_id())

    async def sweep(self, *pids: int, unread: tuple[DeviceUuid, ...] = ()) -> tuple[Attributed, ...]:
        seen = [Seen(pid=pid, device=GPU, memory_mib=400) for pid in pids]
        return await self.attributor.attribute(seen, unread=unread)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.processes.close()


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup like that of a container of dockerd, with nothing in it."""
    with container_cgroup(A) as path:
        yield path


async def test_a_process_that_ended_keeps_its_name_for_ten_minutes(world: World) -> None:
    """Whose it was is still told after its exit, with when it was missed; then it is forgotten."""
    with running() as child:
        (alive,) = await world.sweep(child.pid)
        assert alive.ended is None
        assert alive.name == "sleep"
    world.seconds = 5
    (gone,) = await world.sweep()
    assert (gone.identity, gone.name, gone.attribution) == (alive.identity, "sleep", alive.attribution)
    assert gone.ended is not None
    assert gone.facts is None
    world.seconds = 5 + KEEP_SECONDS - 1
    assert await world.sweep() == (gone,)
    world.seconds = 5 + KEEP_SECONDS
    assert await world.sweep() == ()


async def test_what_nvml_lists_after_its_end_is_told_once(world: World) -> None:
    """By what it was, however long the driver goes on listing it."""
    with running() as child:
        (alive,) = await world.sweep(child.pid)
    for _ in range(3):
        (gone,) = await world.sweep(child.pid)
        assert (gone.identity, gone.attribution) == (alive.identity, alive.attribution)
        assert gone.ended is not None


async def test_what_was_gone_before_the_first_look_is_unattributed(world: World) -> None:
    """It is told with why, and kept for nobody; a pid that an ended process had before does not give it a name."""
    with running() as child:
        await world.sweep(child.pid)
    (former,) = await world.sweep()
    told = await world.sweep(child.pid)
    assert [one.attribution.kind for one in told] == [Kind.UNKNOWN, former.attribution.kind]
    assert "ended" in told[0].attribution.why
    (hidden, *_) = await world.sweep(0)
    assert "pid namespace" in hidden.attribution.why


async def test_a_list_that_could_not_be_read_ends_nothing(world: World) -> None:
    """Unknown is not gone: processes of that device stay as they were told last."""
    with running() as child:
        told = await world.sweep(child.pid)
        assert await world.sweep(unread=(GPU,)) == told
        (gone,) = await world.sweep(unread=(OTHER,))
        assert gone.ended is not None
        assert await world.sweep(child.pid) == told


async def test_a_containers_process_is_its_owners(world: World, cgroup: Path) -> None:
    """By the cgroup of the first process that the engine names, whatever its name; also when the engine is away."""
    with started_in(cgroup) as first, started_in(cgroup) as worker:
        (unknown,) = await world.sweep(worker.pid)
        assert (unknown.attribution.kind, unknown.attribution.owner) == (Kind.OTHER_CONTAINER, None)
        world.engine.says = (Running(id=A, pid=first.pid, owner=ALICE),)
        (told,) = await world.sweep(worker.pid)
        assert (told.attribution.kind, told.attribution.owner) == (Kind.CONTAINER, ALICE)
        world.engine.says = None
        assert await world.sweep(worker.pid) == (told,)
    world.engine.says = ()
    (gone,) = await world.sweep()
    assert (gone.attribution.container, gone.attribution.owner) == (A, ALICE)


async def test_a_pid_of_the_engines_that_is_another_process_names_nothing(world: World) -> None:
    """State.Pid may be of a container that has ended, and its number used again."""
    with running() as child:
        world.engine.says = (Running(id=A, pid=child.pid, owner=ALICE),)
        (told,) = await world.sweep(child.pid)
    assert told.attribution.kind is not Kind.CONTAINER


async def test_who_has_a_device_open_unlisted_is_attributed(world: World) -> None:
    """What NVML lists is not told twice, and what has ended is left out."""
    files = frozenset({DeviceFile(driver="nvidia", major=195, minor=0)})
    with running() as ended:
        pass
    with running() as one, running() as other:
        holdings = Holdings(open=dict.fromkeys((one.pid, other.pid, ended.pid), files))
        (told,) = await world.attributor.attribute_open(holdings, listed=[one.pid])
    assert (told.facts.identity.pid, told.files) == (other.pid, files)
