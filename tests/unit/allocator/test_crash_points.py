"""A kill at every await of reserve, create, confirm, start, release and reconcile: no lease is lost, doubled or leaked (I5).

All tasks of one event loop are counted each time one suspends. At a chosen count the caller is cancelled, or the process
dies: nothing runs any more, and what the writer was asked to write at that moment has been written or has not. Or the power
goes: then what was written and not synced is lost too. Then the ledger is opened again, evidence comes, and ledger and
containers must agree.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from allocator.ledger import Conflict, Ledger
from allocator.model import Lease, LeaseState, Refusal
from allocator.reconcile import Carrier
from allocator.service import Allocator, Timing
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.disk import Disk, Lost
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, evidence, want

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator

    from allocator.reconcile import Evidence

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
KINDS = (
    "cancelled",
    *("died before the write", "died after the write"),
    *("lost power before the write", "lost power after the write"),
)
MOST_POINTS = 400  # of one operation: far more than there are


class Machine:
    """One event loop whose suspensions are counted, and a writer that writes between its turns."""

    def __init__(self, stop_at: int, kind: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.loop = loop or asyncio.new_event_loop()
        self.loop.set_task_factory(self._task)
        self.stop_at, self.kind = stop_at, kind
        self.count, self.dead, self.armed = 0, False, False
        self.points: list[str] = []
        self.jobs: list[Callable[[], None]] = []

    def _task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **kwargs: Any) -> asyncio.Task[Any]:
        return asyncio.Task(self._counted(coroutine), loop=loop, **kwargs)

    async def _counted(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return await _Steps(coroutine, self)

    def suspended(self, coroutine: Any) -> None:
        """Somebody waits for something. At the chosen count the kill comes."""
        if not self.armed or self.dead:
            return
        self.count += 1
        self.points += _where(coroutine)
        if self.count != self.stop_at:
            return
        if self.kind == "cancelled":
            self.caller.cancel()
            return
        if self.kind.endswith("after the write"):
            for job in self.jobs:
                job()
        self.dead = True
        self.loop.stop()

    def play(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a caller until it has ended, or the process has. Returns: what it was told, None if nothing."""
        self.armed = True
        self.caller = self.loop.create_task(work)
        self.caller.add_done_callback(lambda _: self.loop.stop())
        self.loop.run_forever()
        self.armed = False
        if self.dead or self.caller.cancelled():
            return None
        return self.caller.result()

    def submit(self, act: Callable[[], Any]) -> concurrent.futures.Future[Any]:
        """The writer's part of an executor: a write happens in a turn of its own."""
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def job() -> None:
            if job in self.jobs and not self.dead:
                self.jobs.remove(job)
                try:
                    future.set_result(act())
                except Exception as error:  # noqa: BLE001  as an executor does
                    future.set_exception(error)

        self.jobs.append(job)
        self.loop.call_soon(job)
        return future

    def shutdown(self, *, wait: bool) -> None:
        """There is no thread."""


class _Steps:
    """An awaitable that tells the machine of each suspension, and goes no further once it is dead."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], machine: Machine) -> None:
        self.coroutine, self.machine = coroutine, machine

    def __await__(self) -> Generator[Any, Any, Any]:
        step: Callable[[], Any] = lambda: self.coroutine.send(None)  # noqa: E731  the first of several
        while True:
            if self.machine.dead:
                yield from self.machine.loop.create_future()
            try:
                waited_for = step()
            except StopIteration as end:
                return end.value
            self.machine.suspended(self.coroutine)
            try:
                yield waited_for
            except BaseException as error:  # noqa: BLE001  handed on
                step = _thrown(self.coroutine, error)
            else:
                step = lambda: self.coroutine.send(None)  # noqa: E731  as above


def _thrown(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Callable[[], Any]:
    return lambda: coroutine.throw(error)


def _where(coroutine: Any) -> list[str]:
    """The functions that wait, the innermost last."""
    names = []
    while coroutine is not None and hasattr(coroutine, "cr_code"):
        names.append(coroutine.cr_code.co_qualname)
        coroutine = coroutine.cr_await
    return names


@dataclass
class World:
    """The machine, dockerd's containers, and a ledger that outlives both."""

    machine: Machine
    path: Path
    clock: Clock = field(default_factory=Clock)
    containers: dict[LeaseId, Carrier] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=itertools.count)
    told: list[Any] = field(
        default_factory=list
    )  # what a task of the caller's was told, though the caller was not

    def __post_init__(self) -> None:
        self.disk = Disk(self.path / "ledger")

    def lose_power(self) -> None:
        """The next boot finds what was synced, and no container that runs."""
        after = self.path / "after"
        after.mkdir()
        self.disk.after_power_loss(after / "ledger", Lost.ALL)
        self.path, self.disk = after, Disk(after / "ledger")
        self.clock.boot += "x"
        self.containers = {
            lease: replace(item, state="exited") if item.state == "running" else item
            for lease, item in self.containers.items()
        }

    def service(self) -> Allocator:
        allocator = Allocator(
            ledger=Ledger(self.path / "ledger", sync=self.disk.sync),
            inventory=FakeNvml(gpu(0), gpu(1), gpu(2)),
            now=self.clock,
            new_id=lambda: LeaseId(f"lease{next(self.ids)}"),
            timing=Timing(),
        )
        allocator.foreign.tell(())
        allocator._finishing._writer.shutdown()
        allocator._finishing._writer = self.machine  # type: ignore[assignment]  # an executor for this loop
        return allocator

    def create(self, lease: Lease, state: str = "created") -> ContainerId:
        container = ContainerId(f"{next(self.ids):064x}")
        self.containers[lease.id] = Carrier(
            container=container, lease=lease.id, owner_uid=lease.owner_uid, state=state
        )
        return container

    def evidence(self, session: str) -> Evidence:
        return evidence(self.clock(), *self.containers.values(), session=session, pending=frozenset())


async def granted(service: Allocator, **changes: object) -> Lease:
    outcome = await service.lease(want(**changes))
    assert isinstance(outcome, Lease)
    return outcome


# --- operations: each prepares, and returns what is then played ----------------------------------------------

Prepared = tuple["Coroutine[Any, Any, Any]", Allocator]


async def reserve(world: World) -> Prepared:
    service = world.service()
    await granted(service)
    world.clock.seconds += 60  # so that the devices are looked at first
    return service.lease(want(count=2, owner_uid=Uid(2))), service


async def reserve_in_line(world: World) -> Prepared:
    """Two wait; the lease for which they wait ends; one of them is the caller."""
    service = world.service()
    held = await granted(service, count=3)

    async def asking() -> None:
        world.told.append(await service.lease(want(owner_uid=Uid(2), wait_seconds=60)))

    async def work() -> Any:
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(asking())
            while not len(service._line) and not waiting.done():  # noqa: ASYNC110  the line tells nobody
                await asyncio.sleep(0)
            await service.release(held.id, who="x", why="removed")
            await waiting
        return world.told[0]

    return work(), service


async def create(world: World) -> Prepared:
    """What the proxy does: reserve, have dockerd create, confirm."""
    service = world.service()

    async def work() -> Any:
        outcome = await service.lease(want())
        assert isinstance(outcome, Lease)
        await asyncio.sleep(0)  # the request is on its way
        container = world.create(outcome)
        await asyncio.sleep(0)  # and so is the answer
        return await service.confirm(outcome.id, container, who="x")

    return work(), service


async def confirm(world: World) -> Prepared:
    service = world.service()
    lease = await granted(service)
    return service.confirm(lease.id, world.create(lease), who="x"), service


async def start(world: World) -> Prepared:
    """What the guard does; the container runs only if it was told yes."""
    service = world.service()
    lease = await granted(service)
    container = world.create(lease)
    await service.confirm(lease.id, container, who="x")

    async def work() -> Any:
        done = await service.start(lease.id, container, who="x")
        world.containers[lease.id] = replace(world.containers[lease.id], state="running")
        return done

    return work(), service


async def release(world: World) -> Prepared:
    service = world.service()
    lease = await granted(service)
    await service.confirm(lease.id, world.create(lease), who="x")
    del world.containers[lease.id]
    return service.release(lease.id, who="x", why="removed"), service


async def reconcile(world: World) -> Prepared:
    """One lease without a container, one whose container has stopped, one of a create that was never confirmed."""
    service = world.service()
    await granted(service)
    stopped, unconfirmed = await granted(service, owner_uid=Uid(2)), await granted(service, owner_uid=Uid(3))
    await service.confirm(stopped.id, world.create(stopped), who="x")
    await service.start(stopped.id, world.containers[stopped.id].container, who="x")
    world.create(unconfirmed)
    world.clock.seconds += 60
    return service.settle(world.evidence("one")), service


async def sweep(world: World) -> Prepared:
    """A device has gone: its lease is marked, and lasts while its container runs."""
    service = world.service()
    lease = await granted(service)
    await service.confirm(lease.id, world.create(lease, "running"), who="x")
    service.watch._inventory.take(lease.devices[0])  # type: ignore[attr-defined]  # the fake
    return service.sweep(), service


# By operation, functions that must be among those in which it was killed.
OPERATIONS: dict[Callable[[World], Awaitable[Prepared]], set[str]] = {
    reserve: {"Watch.look", "Upkeep.take_in", "Granting.decide", "Granting._grant"},
    reserve_in_line: {"Leasing._wait", "Granting.serve", "Granting._give", "Granting._grant"},
    create: {"Granting._grant", "create.<locals>.work", "Allocator.confirm", "Changes.decide"},
    confirm: {"Allocator.confirm", "Changes.decide"},
    start: {"Allocator.start", "Changes.decide"},
    release: {"Allocator.release", "Allocator._release", "Changes.make"},
    reconcile: {"Allocator.settle", "Changes.apply", "Changes.make"},
    sweep: {"Watch.look", "Upkeep.take_in", "Changes.apply", "Allocator._put_away"},
}


def played(
    operation: Callable[[World], Awaitable[Prepared]], stop_at: int, kind: str
) -> tuple[World, Allocator, Any]:
    machine = Machine(stop_at, kind)
    world = World(machine=machine, path=Path(tempfile.mkdtemp(dir=MEMORY)))
    work, service = machine.loop.run_until_complete(operation(world))
    return world, service, machine.play(work)


def agree(world: World, told: Any) -> None:
    """Open the ledger anew, if the process died, and let evidence come twice: then there is one lease for each container.

    But for one that lost its device and that does not run any more: the power ends containers, too.
    """
    machine = Machine(-1, "")
    world.machine = machine
    service = world.service()
    for _ in range(2):
        world.clock.seconds += 60
        machine.loop.run_until_complete(service.settle(world.evidence("two")))
    live: tuple[Lease, ...] = machine.loop.run_until_complete(service.leases(None))
    for lease, carrier in tuple(world.containers.items()):
        (_, _, why) = service._ledger.events(lease)[-1]
        if carrier.state == "exited" and why.startswith("a device of it was lost"):
            del world.containers[lease]
    machine.loop.run_until_complete(service.close())
    machine.loop.close()
    held = Counter(device for lease in live for device in lease.devices)
    assert set(held.values()) <= {1}
    assert {lease.id: lease.container for lease in live} == {
        lease: carrier.container for lease, carrier in world.containers.items()
    }
    if isinstance(told, Lease) and told.state is not LeaseState.RELEASED and told.id in world.containers:
        assert told.devices == next(lease.devices for lease in live if lease.id == told.id)


def finish(world: World, service: Allocator) -> None:
    """After a cancellation the process lives on: nothing pending is held for who has gone."""
    machine = world.machine
    rest = asyncio.all_tasks(machine.loop)
    if rest:
        machine.loop.run_until_complete(asyncio.wait(rest))
    machine.loop.run_until_complete(service.close())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.__name__)
def test_a_kill_at_every_await(operation: Callable[[World], Awaitable[Prepared]], kind: str) -> None:
    """Wherever an operation is cancelled or its process dies, ledger and containers agree after the next evidence."""
    seen: set[str] = set()
    for stop_at in range(1, MOST_POINTS):
        world, service, told = played(operation, stop_at, kind)
        machine = world.machine
        seen.update(machine.points)
        reached = machine.count >= stop_at
        folder = world.path
        if machine.dead:
            if kind.startswith("lost power"):
                world.lose_power()
            service._ledger.close()  # as the kernel does
            ABANDONED.append((machine, asyncio.all_tasks(machine.loop)))
            machine.loop.close()
        else:
            if machine.caller.cancelled() and operation in {reserve, reserve_in_line}:
                finish_and_check_nothing_is_held(world, service)
            else:
                finish(world, service)
            machine.loop.close()
        assert not isinstance(told, Refusal)
        agree(world, told)
        shutil.rmtree(folder)
        if not reached:
            break
    else:
        pytest.fail("the operation never came to its end")
    assert OPERATIONS[operation] <= seen


ABANDONED: list[
    tuple[Machine, set[asyncio.Task[Any]]]
] = []  # kept, so that nothing of a dead process runs when it is collected


def finish_and_check_nothing_is_held(world: World, service: Allocator) -> None:
    """A reserve whose caller has gone leaves no lease, even before any evidence."""
    loop = world.machine.loop
    rest = asyncio.all_tasks(loop)
    if rest:
        loop.run_until_complete(asyncio.wait(rest))
    live: tuple[Lease, ...] = loop.run_until_complete(service.leases(None))
    assert not [lease for lease in live if lease.owner_uid == 2 and lease not in world.told]
    loop.run_until_complete(service.close())


def test_a_confirm_that_meets_a_release_is_told(tmp_path: Path) -> None:
    """Who confirms what was taken back meanwhile hears of it, and does not believe that it holds the device."""

    async def work() -> None:
        world = World(machine=Machine(-1, "", asyncio.get_running_loop()), path=tmp_path)
        service = world.service()
        lease = await granted(service)
        await service.release(lease.id, who="x", why="y")
        with pytest.raises(Conflict):
            await service.confirm(lease.id, world.create(lease), who="x")
        await service.close()

    asyncio.run(work())
