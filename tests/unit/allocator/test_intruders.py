"""Rounds of processes in containers, with leases and a clock that the test moves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import structlog

from allocator.attribution import Attribution, Identity, Kind, ProcessFacts, Seen
from allocator.attributor import KEEP_SECONDS, Attributed, Running
from allocator.foreign import ForeignContainers
from allocator.intruders import SETTLE_SECONDS, Intruders
from allocator.model import Lease, LedgerUnavailable
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from tests.fakes.fake_nvml import gpu, snapshot
from tests.fakes.leasing import Clock, foreign, lease

WEB, OTHER, OLD = ContainerId("a" * 64), ContainerId("b" * 64), ContainerId("f" * 64)
ALICE, BOB = Uid(1000), Uid(1001)
MINE, FREE = gpu(0), gpu(1)
LOOK = snapshot(MINE, FREE)
BOBS = Attribution(kind=Kind.CONTAINER, owner=BOB, container=OTHER)
HELD = lease("held", MINE.uuid, container=WEB)


def process(pid: int = 5, found: Attribution = BOBS, *, device: DeviceUuid = MINE.uuid) -> Attributed:
    identity = Identity(boot_id="b", pid=pid, start_ticks=1)
    facts = ProcessFacts(
        identity=identity, cgroup="0::/", login_uid=None, real_uid=None, uid_map=None, own_pid_namespace=None
    )
    return Attributed(seen=Seen(pid=pid, device=device), attribution=found, identity=identity, facts=facts)


class World:
    """Leases, notes and containers around the one that is tested."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.held: tuple[Lease, ...] = (HELD,)
        self.runs: tuple[Running, ...] | None = ()
        self.unavailable = False
        self.notes: list[tuple[LeaseId, DeviceUuid]] = []
        self.foreign = ForeignContainers()
        self.foreign.tell(())
        self.intruders = Intruders(
            leases=self.leases,
            tell_holder=self.tell,
            containers=self,
            foreign=self.foreign,
            now=self.clock,
        )

    async def leases(self) -> tuple[Lease, ...]:
        if self.unavailable:
            raise LedgerUnavailable
        return self.held

    async def tell(self, lease: LeaseId, device: DeviceUuid) -> None:
        if self.unavailable:
            raise LedgerUnavailable
        self.notes.append((lease, device))

    async def running(self) -> tuple[Running, ...] | None:
        return self.runs

    async def round(self, *processes: Attributed, seconds: float = 5) -> list[dict[str, Any]]:
        """One round, so long after the last; what it logged."""
        self.clock.seconds += seconds
        with structlog.testing.capture_logs() as logs:
            await self.intruders.sweep(processes, LOOK)
        return [dict(line) for line in logs]

    async def rounds(self, *processes: Attributed) -> list[dict[str, Any]]:
        """Until what is new has settled."""
        logs = [await self.round(*processes) for _ in range(3)]
        return [line for some in logs for line in some]

    def leased(self, one: Attributed) -> bool | None:
        assert one.identity is not None
        return self.intruders.leased.get((one.identity, one.seen.device))


@pytest.fixture
def world() -> World:
    return World()


async def test_an_intruder_is_told_once_after_it_has_settled(world: World) -> None:
    """With whose it is and whose the device is; the holder gets one note."""
    one = process()
    assert await world.round(one) == []
    assert await world.round(one, seconds=SETTLE_SECONDS - 1) == []
    assert (world.leased(one), world.notes, world.intruders.ours) == (None, [], {})
    (line,) = await world.round(one, seconds=1)
    assert line == {
        "event": "unleased_process.reported",
        "log_level": "error",
        "device": MINE.uuid,
        "pid": 5,
        "kind": "container",
        "container": OTHER,
        "step": None,
        "uid": BOB,
        "lease": HELD.id,
        "holder_uid": ALICE,
    }
    assert (world.leased(one), world.notes) == (False, [(HELD.id, MINE.uuid)])
    assert await world.rounds(one) == []
    assert world.notes == [(HELD.id, MINE.uuid)]


async def test_who_is_on_its_own_device_is_told_of_nowhere(world: World) -> None:
    """It is known to be leased, at once."""
    own = process(found=replace(BOBS, owner=ALICE, container=WEB))
    assert await world.rounds(own) == []
    assert (world.leased(own), world.notes, world.intruders.ours) == (True, [], {})


async def test_a_device_of_nobody_is_told_without_a_holder(world: World) -> None:
    """A process on a free device that its container does not lease is unleased as well."""
    (line,) = await world.rounds(process(device=FREE.uuid))
    assert (line["lease"], line["holder_uid"], world.notes) == (None, None, [])


async def test_each_process_and_each_device_is_told(world: World) -> None:
    """One that goes on to a second device is told there too; a second process in the container at once."""
    first, there, second = process(), process(device=FREE.uuid), process(6)
    await world.rounds(first)
    assert [line["device"] for line in await world.rounds(first, there)] == [FREE.uuid]
    assert [line["pid"] for line in await world.round(first, there, second)] == [6]
    assert {one.pid: devices for one, devices in world.intruders.ours.items()} == {
        5: (MINE.uuid, FREE.uuid),
        6: (MINE.uuid,),
    }


async def test_a_container_of_many_short_processes_is_told(world: World) -> None:
    """None of them lasts as long as an intrusion must; the container does, breaks included."""
    assert await world.round(process(1)) == []
    assert await world.round() == []
    assert len(await world.round(process(2))) == 1
    assert await world.round(seconds=KEEP_SECONDS) == []
    assert await world.round(process(3)) == []


async def test_what_ends_as_its_lease_does_is_not_told(world: World) -> None:
    """Its processes may stay for some seconds longer than the lease of a container that was removed."""
    own = process(found=replace(BOBS, owner=ALICE, container=WEB))
    await world.round(own)
    world.held = ()
    assert await world.round(own) == []
    assert await world.round(replace(own, facts=None, ended=world.clock())) == []
    assert world.leased(own) is None  # neither its own any more, nor told


async def test_a_lease_that_comes_in_time_begins_anew(world: World) -> None:
    """A suspicion that was wrong is not counted on."""
    one = process()
    await world.round(one)
    world.held = (lease("its", MINE.uuid, container=OTHER),)
    await world.round(one)
    world.held = (HELD,)
    assert await world.round(one, seconds=SETTLE_SECONDS) == []


async def test_an_intruder_keeps_its_mark_when_it_has_ended(world: World) -> None:
    """For as long as it is told at all."""
    one = process()
    await world.rounds(one)
    ended = replace(one, facts=None, ended=world.clock())
    await world.round(ended)
    assert (world.leased(one), world.intruders.ours) == (False, {})
    await world.round()
    assert world.leased(one) is None


async def test_nobody_is_judged_while_it_is_not_known_who_holds_what(world: World) -> None:
    """Nor before the proxy has told which containers there are. What was told stays; nothing is done by it."""
    one, late = process(), process(7)
    world.runs = None
    assert await world.rounds(one) == []
    world.runs = ()
    world.unavailable = True
    assert await world.rounds(one) == []
    world.unavailable = False
    await world.rounds(one)
    assert world.intruders.ours
    world.unavailable = True
    assert await world.rounds(one, late) == []
    assert (world.leased(one), world.leased(late), world.intruders.ours) == (False, None, {})


async def test_a_note_that_could_not_be_left_is_left_later(world: World) -> None:
    """The ledger may fail between the reading of leases and the note."""

    async def fail(_lease: LeaseId, _device: DeviceUuid) -> None:
        raise LedgerUnavailable

    world.intruders._tell_holder = fail
    assert len(await world.rounds(process())) == 1
    world.intruders._tell_holder = world.tell
    assert await world.round(process()) == []
    assert world.notes == [(HELD.id, MINE.uuid)]


async def test_only_processes_in_containers_of_ds01s_are_to_be_ended(world: World) -> None:
    """Those of foreign and adopted containers, of builds and of other engines are told and let be."""
    world.foreign.tell([foreign("0")])
    others = (
        process(1, Attribution(kind=Kind.CONTAINER, container=OLD)),
        process(2, Attribution(kind=Kind.CONTAINER, owner=BOB, container=OLD)),
        process(3, Attribution(kind=Kind.BUILD_STEP, owner=BOB, step="x" * 25)),
        process(4, Attribution(kind=Kind.OTHER_CONTAINER, owner=BOB, container=OTHER)),
    )
    assert sorted(line["pid"] for line in await world.rounds(*others, process(5))) == [1, 2, 3, 4, 5]
    assert {one.pid for one in world.intruders.ours} == {5}


async def test_what_could_not_be_looked_at_is_not_judged(world: World) -> None:
    """It is unattributed, and may be anybody's."""
    unknown = replace(process(), identity=None, facts=None, attribution=Attribution(kind=Kind.UNKNOWN))
    assert await world.rounds(unknown) == []
    assert world.intruders.leased == {}
