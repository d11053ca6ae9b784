"""The power goes between any two steps of two creates: every surviving container then has its own devices, and no other (I5).

All interleavings of reserve, create, confirm, start, remove, release and evidence for one GPU are walked, each state once. In
each the power goes; what was not synced is lost, in whole or in part, and dockerd has lost a new container or has not. Then the
guard's questions, evidence and a new request come in every order.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from allocator.ledger import Conflict, Ledger
from allocator.model import Lease, LeaseState
from allocator.reconcile import Carrier
from allocator.service import Allocator, Timing
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.disk import Disk, Lost
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, evidence, want

if TYPE_CHECKING:
    from collections.abc import Iterator

USERS = (1, 2)
THIRD = 3
STEPS = tuple(itertools.product(("reserve", "create", "confirm", "start", "remove", "release"), USERS))
EVIDENCE = ("evidence", 0)
Step = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Create:
    """How far one create has come. `at`: the last step that was answered."""

    at: str = ""
    lease: LeaseId | None = None
    container: Carrier | None = None


@dataclass(frozen=True, slots=True)
class World:
    """By user, what the engine has and what was answered; the rest is in the ledger."""

    creates: tuple[Create, ...] = tuple(Create() for _ in USERS)

    def of(self, user: int) -> Create:
        return self.creates[user - 1]

    def put(self, user: int, create: Create) -> World:
        return World((*self.creates[: user - 1], create, *self.creates[user:]))

    def carriers(self) -> tuple[Carrier, ...]:
        return tuple(create.container for create in self.creates if create.container)


@dataclass
class Running:
    """One process of the allocator over a ledger in `folder`."""

    folder: Path
    boot: str = "boot-1"
    disk: Disk = field(init=False)
    service: Allocator = field(init=False)

    def __post_init__(self) -> None:
        self.clock = Clock()
        self.clock.boot = self.boot
        self.disk = Disk(self.folder / "ledger")
        self.service = Allocator(
            ledger=Ledger(self.folder / "ledger", sync=self.disk.sync),
            inventory=FakeNvml(gpu(0)),
            now=self.clock,
            new_id=lambda: LeaseId("never asked"),
            timing=Timing(),
        )
        self.service.foreign.tell(())

    async def play(self, world: World, steps: tuple[Step, ...]) -> World | None:
        """The world after these steps; None where one of them cannot come now."""
        for step in steps:
            after = await self._step(world, *step)
            if after is None:
                return None
            world = after
        return world

    async def _step(self, world: World, step: str, user: int) -> World | None:
        if step == "evidence":
            await self.service.settle(evidence(self.clock(), *world.carriers(), session=self.boot))
            return world
        create = world.of(user)
        if step == "reserve":
            if create.at:
                return None
            lease = await self.reserve(user)
            return world.put(user, Create(at=step, lease=lease.id)) if lease else None
        if create.lease is None:
            return None
        lease_id = create.lease
        match step, create.at:
            case "create", "reserve":
                container = Carrier(
                    container=ContainerId(f"{user:064x}"),
                    lease=lease_id,
                    owner_uid=Uid(user),
                    state="created",
                )
                return world.put(user, replace(create, at=step, container=container))
            case "confirm", "create":
                assert create.container
                await self.service.confirm(lease_id, create.container.container, who="x")
            case "start", "create" | "confirm":
                assert create.container
                assert await self.may_start(create.container)
                create = replace(create, container=replace(create.container, state="running"))
            case "remove", "create" | "confirm" | "start":
                create = replace(create, container=None)
            case "release", "remove":
                await self.service.release(lease_id, who="x", why="removed")
            case _:
                return None
        return world.put(user, replace(create, at=step))

    async def reserve(self, user: int) -> Lease | None:
        self.service._granting._new_id = lambda: LeaseId(f"of {user}")
        outcome = await self.service.lease(want(owner_uid=Uid(user), session=self.boot))
        return outcome if isinstance(outcome, Lease) else None

    async def may_start(self, container: Carrier) -> bool:
        """The guard's question."""
        try:
            return bool(await self.service.start(container.lease, container.container, who="guard"))
        except Conflict:
            return False


@dataclass(frozen=True, slots=True)
class Left:
    """What a boot finds: the leases on disk, and the containers that the engine still has."""

    leases: tuple[tuple[LeaseId, LeaseState, ContainerId | None], ...]
    containers: tuple[Carrier, ...]


def leases_of(path: Path) -> tuple[tuple[LeaseId, LeaseState, ContainerId | None], ...]:
    ledger = Ledger(path)
    found = tuple((item.id, item.state, item.container) for item in ledger.live())
    ledger.close()
    return found


def survivors(world: World) -> Iterator[tuple[Carrier, ...]]:
    """A container that never started may be lost by the engine too; none runs."""
    for lost in itertools.product((False, True), repeat=len(world.carriers())):
        yield tuple(
            item if item.state == "created" else replace(item, state="exited")
            for item, gone in zip(world.carriers(), lost, strict=True)
            if not (gone and item.state == "created")
        )


async def walk(folder: Path) -> tuple[dict[Left, Path], int]:
    """Every state that a power loss can leave, with a ledger of each; and how often it took back a confirm."""
    taken_back = 0
    numbers = itertools.count()
    left: dict[Left, Path] = {}
    seen: set[object] = set()
    todo: list[tuple[Step, ...]] = [()]
    while todo:
        steps = todo.pop()
        place = folder / f"{next(numbers)}"
        place.mkdir()
        running = Running(place)
        world = await running.play(World(), steps)
        losses = []
        if world is not None:
            for lost in Lost:
                losses.append(place / lost.name)
                running.disk.after_power_loss(losses[-1], lost)
        await running.service.close()
        found = [leases_of(path) for path in losses]
        state = (world, leases_of(place / "ledger"), *found)
        if world is not None and state not in seen:
            seen.add(state)
            todo += [(*steps, step) for step in (*STEPS, EVIDENCE)]
            for leases, path in zip(found, losses, strict=True):
                confirmed = {create.lease for create in world.creates if create.at == "confirm"}
                taken_back += sum(name in confirmed and not container for name, _, container in leases)
                for containers in survivors(world):
                    left.setdefault(Left(leases, containers), path)
    return left, taken_back


async def recover(folder: Path, boot: Left, order: tuple[str | Carrier, ...]) -> None:
    """The next boot, in which things come in this order; evidence comes again at the end."""
    running = Running(folder, boot="boot-2")
    runs: set[ContainerId] = set()
    given = False
    for event in (*order, "evidence"):
        if event == "evidence":
            now = tuple(
                replace(item, state="running") if item.container in runs else item for item in boot.containers
            )
            await running.service.settle(evidence(running.clock(), *now, session="boot-2"))
        elif isinstance(event, Carrier):
            runs |= {event.container} if await running.may_start(event) else set()
        else:
            given = given or bool(await running.reserve(THIRD))
    live = {lease.id: lease.container for lease in await running.service.leases(None)}
    await running.service.close()
    told = f"{boot} in the order {order}: {live}, running {runs}"
    # One GPU: whose container is there has it, in whatever order; otherwise it is free once evidence has come.
    assert runs == {item.container for item in boot.containers}, told
    assert live.items() >= {(item.lease, item.container) for item in boot.containers}, told
    assert len(live) == len(boot.containers) + given <= 1, told


def test_every_container_that_survives_has_its_own_devices(tmp_path: Path) -> None:
    """And the devices of every other lease are free again; nobody ever gets what a container may have."""
    left, taken_back = asyncio.run(walk(tmp_path))
    assert taken_back
    pending = [boot for boot in left if boot.leases and boot.leases[0][1] is LeaseState.PENDING]
    assert any(boot.containers for boot in pending)
    assert any(not boot.containers for boot in pending)
    for number, (boot, path) in enumerate(left.items()):
        events: tuple[str | Carrier, ...] = (*boot.containers, "evidence", "reserve")
        for turn, order in enumerate(itertools.permutations(events)):
            place = tmp_path / f"boot-{number}-{turn}"
            place.mkdir()
            shutil.copy(path, place / "ledger")
            asyncio.run(recover(place, boot, order))
