"""Four users, one proxy, a failing driver and crashes, in any order: no device is held twice, none leaks (I5).

Kinds of event: reserve, hang up, create and confirm, start and stop, remove, evidence, the driver and its devices,
processes and memory of nobody, containers that ds01 did not make, reservations, a change of MIG mode, crash of proxy, allocator
or machine. At least 10,000 that change something are played (a run is three), most of them leasing: a step that finds nothing to act on
begins with a request or a run, and where too much is broken already all is mended instead. (Preconditions would do the same, but what is
drawn must not depend on the state, which depends on threads.)
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from allocator.ledger import Conflict
from allocator.model import DeviceState, GroupLimit, InventoryUnavailable, Lease, LeaseState
from allocator.readings import GpuProcess
from allocator.reconcile import Carrier
from allocator.reservations import Reservation
from allocator.slices import equivalents
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from policy.when import parse_when
from tests.fakes.disk import Disk, Lost
from tests.fakes.fake_nvml import FakeNvml, gpu, logged, mig, split
from tests.fakes.free_devices import free_by_hand
from tests.fakes.leasing import Clock, evidence, foreign, service, want

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from allocator.model import Device
    from allocator.reconcile import Evidence

USERS = st.integers(1, 4)
LIMIT = 2
WORTH = Fraction(10, 7)
GROUP = GroupLimit(name="lab", devices=3)  # of users 1 and 2 together
SPLIT = split(2, "3g.20gb", "1g.5gb")
DEVICES = (gpu(0), gpu(1), *SPLIT)
DAILY = "daily 00:00-24:00"
CHANGING = st.sampled_from([gpu(0), gpu(1), mig(2, 0, "3g.20gb")])
WISHES: st.SearchStrategy[dict[str, object]] = st.sampled_from(
    [
        {"count": 1},
        {"count": 2},
        {"count": 3},
        {"count": 1, "profile": "1g.5gb"},
        {"count": 1, "profile": "any"},
        {"count": 1, "memory_mib": 10000},
        {"count": None, "device_ids": ("0",)},
        {"count": None, "device_ids": ("2:0", "2:1")},
        {"count": 1, "seconds": 30},
        {"count": 1, "hold_seconds": 25},
    ]
)
pytestmark = pytest.mark.timeout(400)  # 40 s alone; others work beside it

STARTABLE = {LeaseState.BOUND, LeaseState.ACTIVE, LeaseState.HELD}
# Where there is a file system in memory: the order of writes is tested here, and the disk in tests/unit/allocator/test_ledger.py.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
EVENTS = Counter[str]()
STEPS, EXAMPLES = 50, 250
FLOORS = {  # a run that idles, or in which nothing can be leased, is below them
    "event": 10_000,
    "granted": 1_000,
    "confirmed": 1_000,
    "started": 1_000,
    "released": 1_000,
    "compared": 2_000,
    "memory of nobody": 30,
    "foreign container": 30,
    "reservation": 30,
    "MIG mode": 30,
}
MOST_BROKEN = 1  # of four devices, or of three
ONE: dict[str, object] = {"count": 1}


class Leasing(RuleBasedStateMachine):
    """What dockerd holds is kept beside the service: containers by id, each with the lease it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.runner = asyncio.Runner()
        self.nvml, self.clock = FakeNvml(*DEVICES), Clock()
        self.session, self.number, self.made = "s0", 0, 0
        self.containers: dict[ContainerId, Carrier] = {}
        self.told: dict[LeaseId, Lease] = {}
        self.foreign: frozenset[DeviceUuid] = frozenset()  # what one has that runs and is none of ds01's
        self.used: frozenset[DeviceUuid] = frozenset()  # by memory that no process owns
        self.reserved: Reservation | None = None
        self.layout: tuple[Device, ...] = SPLIT  # of the GPU that changes its mode
        self.broken = 0  # how many devices nobody has and nobody could get
        self.holding: set[LeaseId] = set()
        self.stood: object = None  # what the allocator held and knew after the last event
        self.begin("boot0")

    def begin(self, ledger: str) -> None:
        self.number += 1000
        self.path = self.folder / ledger
        self.disk = Disk(self.path)
        self.service = self.runner.run(self._service())
        self._tell_foreign()
        self.service.watch.ghosts = self.used

    def _tell_foreign(self) -> None:
        self.service.foreign.tell([foreign(*self.foreign)] if self.foreign else [])

    async def _service(self) -> Any:
        return service(self.path, self.nvml, self.clock, self.number, sync=self.disk.sync)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        outcome = self.runner.run(work)
        self.count()
        return outcome

    def count(self) -> None:
        """An event is what changed anything that the allocator holds or knows."""
        live, watch = self.live(), self.service.watch
        holding = {lease.id for lease in live}
        EVENTS.update(["released"] * len(self.holding - holding))
        stands = (self.path, live, watch.snapshot, watch.problem, watch.ghosts, self.foreign, self.reserved)
        EVENTS.update(["event"] * (stands != self.stood))
        self.holding, self.stood = holding, stands

    def look(self) -> None:
        """What a sweep begins with; the rest of it is in other steps."""
        with suppress(InventoryUnavailable):
            self.run(self.service.watch.look())

    def live(self) -> tuple[Lease, ...]:
        found: tuple[Lease, ...] = self.service._ledger.live()  # nothing else is at work
        return found

    def leases(self) -> list[Lease]:
        """Those that a client could act on: the live ones, and the last that is over."""
        live = {item.id for item in self.live()}
        told = list(self.told.values())
        over = [item for item in told if item.id not in live]
        return [item for item in told if item.id in live] + over[-1:]

    def granted(self) -> list[Lease]:
        """Those for which no container was made yet, by the proxy that is there now."""
        carried = {item.lease for item in self.containers.values()}
        return [
            item
            for item in self.live()
            if item.session == self.session and item.id in self.told and item.id not in carried
        ]

    def running(self) -> list[Carrier]:
        return [item for item in self.containers.values() if item.state == "running"]

    def asked(self, user: int, wish: dict[str, object]) -> Any:
        groups = (GROUP,) if user <= 2 else ()
        limits: dict[str, object] = {"limit": LIMIT, "equivalents": WORTH, "groups": groups}
        return want(owner_uid=Uid(user), owner_name=f"u{user}", session=self.session, **limits, **wish)

    def mended(self) -> bool:
        """Whether too much is broken already, and was mended: devices that are lost or in error, and what is there of strangers."""
        if self.broken <= MOST_BROKEN:
            return False
        self.nvml.problem = None
        for device in SPLIT:
            self.nvml.take(device.uuid)
        for device in (gpu(0), gpu(1), *self.layout):
            self.nvml.put(device)
        self.used = self.service.watch.ghosts = frozenset()
        self.foreign = frozenset()
        self._tell_foreign()
        self.look()
        for quarantined in self.out():
            self.run(self.service.upkeep.release(quarantined, who="root", why="mended"))
        return True

    @rule(user=USERS, wish=WISHES)
    def reserve(self, user: int, wish: dict[str, object]) -> None:
        """Who gets nothing ends what it has longest."""
        told = len(self.told)
        self._reserve(user, wish)
        own = [lease for lease in self.live() if lease.owner_uid == user]
        if len(self.told) == told and own:
            self._end(own[0].id)

    def _reserve(self, user: int, wish: dict[str, object]) -> None:
        try:
            outcome = self.run(self.service.lease(self.asked(user, wish)))
        except InventoryUnavailable:
            assert self.nvml.problem
            return
        if isinstance(outcome, Lease) and outcome.id not in self.told:
            EVENTS.update(["granted"])
            assert set(outcome.devices) <= self.free(but=outcome.id)
            self.told[outcome.id] = outcome

    @rule(
        user=USERS,
        wish=WISHES,
        turns=st.one_of(st.integers(0, 12), st.integers(13, 300)),
        waits=st.booleans(),
    )
    def reserve_and_hang_up(self, user: int, wish: dict[str, object], turns: int, *, waits: bool) -> None:
        async def work() -> list[Any]:
            asked = replace(self.asked(user, wish), wait_seconds=60 * waits)
            asking = asyncio.gather(self.service.lease(asked), return_exceptions=True)
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            outcomes: list[Any] = await asyncio.gather(asking, return_exceptions=True)
            return outcomes

        (outcome,) = self.run(work())
        if isinstance(outcome, list) and isinstance(outcome[0], Lease):
            EVENTS.update(["granted"] * (outcome[0].id not in self.told))
            self.told[outcome[0].id] = outcome[0]
        else:
            self._reserve(user, wish)  # nothing of the first asking is in the way

    @rule(user=USERS, other=USERS, index=st.integers(0, 50))
    def wait_in_line(self, user: int, other: int, index: int) -> None:
        """Two wait, one lease ends, and both give up a moment later."""

        async def asking(one: int) -> Any:
            waiting = replace(self.asked(one, {"count": 1}), wait_seconds=60, request_id=f"w{one}")
            try:
                return await self.service.lease(waiting)
            except InventoryUnavailable:
                return None

        async def work() -> list[Any]:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(asking(one)) for one in (user, other)]
                await asyncio.sleep(0.001)
                if lease is not None:
                    await self.service.release(lease.id, who="x", why="removed")
                for task in tasks:
                    task.cancel()
            return [task.result() for task in tasks if not task.cancelled()]

        leases = self.leases()
        lease = leases[index % len(leases)] if leases else None
        if lease is not None:
            self._remove(lease.id)
        for outcome in self.run(work()):
            if isinstance(outcome, Lease):
                EVENTS.update(["granted"])
                self.told[outcome.id] = outcome

    @rule(index=st.integers(0, 50))
    def create_and_confirm(self, index: int) -> None:
        self._create(index, confirm=True)

    @rule(index=st.integers(0, 50))
    def create_and_crash(self, index: int) -> None:
        self._create(index, confirm=False)
        self.session += "x"

    @rule(user=USERS, wish=WISHES)
    def docker_run(self, user: int, wish: dict[str, object]) -> None:
        """All of it, as it is when nothing goes wrong."""
        self._reserve(user, wish)
        self._create(-1, confirm=True)
        self._start(-1)

    @rule()
    def next_in_turn(self) -> None:
        """As `docker_run`; where nothing is to be had, who was there longest makes room. Hypothesis draws it most: it takes nothing."""
        told = len(self.told)
        self.docker_run(user=self.made % 4 + 1, wish=ONE)
        if len(self.told) == told and self.live():
            self._end(self.live()[0].id)

    def _create(self, index: int, *, confirm: bool) -> None:
        if not self.granted():
            self.reserve(user=index % 4 + 1, wish=ONE)
        leases = self.granted()
        if not leases:
            return
        lease = leases[index % len(leases)]
        self.made += 1
        container = ContainerId(f"{self.made:064x}")
        self.containers[container] = Carrier(
            container=container, lease=lease.id, owner_uid=lease.owner_uid, state="created"
        )
        if confirm:
            try:
                self.run(self.service.confirm(lease.id, container, who="x"))
                EVENTS.update(["confirmed"])
            except Conflict:
                del self.containers[container]

    @rule(index=st.integers(0, 50), seconds=st.sampled_from([0, 0, 40]))
    def start(self, index: int, seconds: int) -> None:
        """Of what stands still, if need be made for it; perhaps after its time is over."""
        if len(self.running()) == len(self.containers):
            self._create(index, confirm=True)
        self.clock.seconds += seconds
        self._start(index)

    def _start(self, index: int) -> None:
        """As the guard does: a container runs only after the allocator said so."""
        carriers = list(self.containers.values())
        still = [item for item in carriers if item.state != "running"]
        if index % 2 and still:
            carriers = still
        if not carriers:
            return
        carrier = carriers[index % len(carriers)]
        before = self.service._ledger.find(carrier.lease)
        try:
            self.run(self.service.start(carrier.lease, carrier.container, who="x"))
        except InventoryUnavailable:
            assert self.nvml.problem or not self._are_there(before)
            return
        except Conflict:
            left = before.seconds_left(self.clock())
            assert (
                before.state not in STARTABLE
                or before.container != carrier.container
                or (left is not None and left <= 0)
                or not self._are_there(before)
            )
            return
        assert self._are_there(before)
        EVENTS.update(["started"] * (carrier.state != "running"))
        self.containers[carrier.container] = replace(carrier, state="running")

    def _are_there(self, lease: Lease) -> bool:
        """Whether every device of a lease is in the last look as it was leased, and in service."""
        seen = self.service.watch.snapshot.devices
        held = zip(lease.devices, lease.generations, strict=True)
        found = [(seen[uuid], generation) for uuid, generation in held if uuid in seen]
        fit = (
            one.generation == generation and one.state in {DeviceState.OK, DeviceState.DRAINING}
            for one, generation in found
        )
        return len(found) == len(lease.devices) and all(fit)

    @rule(index=st.integers(0, 50))
    def stop(self, index: int) -> None:
        if not self.running():
            self.docker_run(user=index % 4 + 1, wish=ONE)
        carriers = self.running()
        if not carriers:
            return
        carrier = carriers[index % len(carriers)]
        self.containers[carrier.container] = replace(carrier, state="exited")

    @rule(index=st.integers(0, 50))
    def remove_and_release(self, index: int) -> None:
        leases = self.leases()
        if leases:
            self._end(leases[index % len(leases)].id)
        else:
            self.next_in_turn()

    def _end(self, lease: LeaseId) -> None:
        self._remove(lease)
        self.run(self.service.release(lease, who="x", why="removed"))

    @rule(index=st.integers(0, 50))
    def remove_unseen(self, index: int) -> None:
        if not self.containers:
            self.next_in_turn()
        carriers = list(self.containers.values())
        if carriers:
            self._remove(carriers[index % len(carriers)].lease)

    def _remove(self, lease: LeaseId) -> None:
        self.containers = {key: item for key, item in self.containers.items() if item.lease != lease}

    @rule(index=st.integers(0, 50), seconds=st.integers(0, 40), gone=st.booleans())
    def evidence(self, index: int, seconds: int, *, gone: bool) -> None:
        """Of what became of a container that nobody else tells of, a while ago."""
        if gone:
            self.remove_unseen(index=index)
        else:
            self.stop(index=index)
        self.clock.seconds += seconds
        self.run(self.service.settle(self._asked()))
        self.run(self.service.sweep())

    @rule(index=st.integers(0, 50))
    def evidence_from_before_a_start(self, index: int) -> None:
        """What was gathered before a start, or before all of a run, arrives after it."""
        told = self._asked()
        if index % 3:
            self.next_in_turn()
        self._start(index)
        self.run(self.service.settle(told))

    @rule(index=st.integers(0, 50), seconds=st.integers(0, 40))
    def evidence_that_comes_late(self, index: int, seconds: int) -> None:
        """The proxy, or dockerd, was held up."""
        told = self._asked()
        self.clock.seconds += 1
        if index % 3:
            self.next_in_turn()
        self._start(index)
        self.clock.seconds += seconds
        self.run(self.service.settle(told))

    def _asked(self) -> Evidence:
        return evidence(self.clock(), *self.containers.values(), session=self.session)

    @rule(device=CHANGING)
    def a_device_comes_and_goes(self, device: Any) -> None:
        if self.mended():
            return
        if device.uuid in self.nvml.snapshot.devices:
            self.nvml.take(device.uuid)
        else:
            self.nvml.put(device)
        self.look()

    @rule(device=st.sampled_from([gpu(0), gpu(1)]), state=st.sampled_from([DeviceState.OK, *DeviceState]))
    def a_gpu_changes_state(self, device: Any, state: DeviceState) -> None:
        if self.mended():
            return
        self.nvml.put(gpu(int(device.index), state=state))
        self.look()
        if state is DeviceState.OK:
            self.run(self.service.upkeep.release(device.uuid, who="root", why="it is back"))

    @rule(
        device=CHANGING,
        code=st.sampled_from([31, 48, 63, 79, 999]),
        tellers=st.sampled_from([("nvml",), ("log",), ("nvml", "log")]),
    )
    def a_device_has_an_error(self, device: Any, code: int, tellers: tuple[str, ...]) -> None:
        """Of a program, of memory, of the device, or one that ds01 does not know; told by NVML, the kernel log or both."""
        if self.mended():
            return
        if "log" in tellers:
            self.service.hearing.logged(logged(device, code))
            self.clock.seconds += 2  # until the next look
        if "nvml" in tellers:
            self.nvml.xid(device, code)
        self.run(self.service.sweep())

    @rule(device=st.sampled_from(DEVICES))
    def an_admin_decides(self, device: Any) -> None:
        if self.mended():
            return
        upkeep = self.service.upkeep
        act = upkeep.release if device.uuid in self.out() else upkeep.quarantine
        self.run(act(device.uuid, who="root", why="as told"))

    @rule(device=CHANGING)
    def a_process_comes_and_goes(self, device: Any) -> None:
        """One that is nobody's in particular, as far as placement goes."""
        if self.mended():
            return
        seen = self.nvml.snapshot.devices.get(device.uuid)
        if seen is not None:
            self.nvml.put(replace(device, processes=() if seen.processes else (GpuProcess(pid=77),)))
        self.look()

    @rule(device=st.sampled_from(DEVICES))
    def memory_of_nobody_comes_and_goes(self, device: Any) -> None:
        if self.mended():
            return
        EVENTS.update(["memory of nobody"])
        self.used = frozenset() if self.used else frozenset([device.uuid])
        self.service.watch.ghosts = self.used  # as attribution says after its own look

    @rule(devices=st.sets(st.sampled_from([device.uuid for device in DEVICES]), min_size=1, max_size=2))
    def a_foreign_container_comes_and_goes(self, devices: set[DeviceUuid]) -> None:
        if self.mended():
            return
        EVENTS.update(["foreign container"])
        self.foreign = frozenset() if self.foreign else frozenset(devices)
        self._tell_foreign()

    @rule(user=USERS, count=st.integers(1, 2))
    def an_admin_reserves(self, user: int, count: int) -> None:
        """The whole day, for one user."""
        EVENTS.update(["reservation"])
        kept = Reservation(
            id="r1",
            uid=Uid(user),
            name=f"u{user}",
            count=count,
            when=parse_when(DAILY),
            when_text=DAILY,
            source="root",
        )
        self.run(self.service.reserving.remove("r1", by="root"))
        self.reserved = None if self.reserved else kept
        if self.reserved:
            self.run(self.service.reserving.add(kept))

    @rule(ends=st.booleans())
    def a_gpu_changes_its_mode(self, *, ends: bool) -> None:
        """Out of MIG mode and back: a reset, which nobody may hold the GPU for; who does is asked to end, or it is left."""
        uuids = {device.uuid for device in SPLIT}
        holding = [lease.id for lease in self.live() if uuids & set(lease.devices)]
        if holding and not ends:
            return
        for lease in holding:
            self._end(lease)
        EVENTS.update(["MIG mode"])
        self.layout = (gpu(2),) if self.layout == SPLIT else SPLIT
        for device in SPLIT:
            self.nvml.take(device.uuid)
        for device in self.layout:
            self.nvml.put(device)
        self.look()

    @rule(lasts=st.booleans())
    def the_driver_comes_and_goes(self, *, lasts: bool) -> None:
        """For one look, or until it is mended."""
        if self.mended():
            return
        self.nvml.problem = "no driver"
        self.look()
        if not lasts:
            self.nvml.problem = None
            self.look()

    @rule(lost=st.sampled_from([None, *Lost]))
    def the_allocator_crashes(self, lost: Any) -> None:
        """Reopen the ledger as another process would, or the power goes: then what was not synced may be lost, and no container runs."""
        ledger = self.path.name
        if lost:
            ledger = f"boot{self.number}"
            self.disk.after_power_loss(self.folder / ledger, lost)
        self.runner.run(self.service.close())
        if lost:
            self.clock.boot, self.clock.seconds = f"{self.clock.boot}x", self.clock.seconds + 60
            self.session += "y"
            self.containers = {
                key: replace(item, state="exited") if item.state == "running" else item
                for key, item in self.containers.items()
            }
        self.begin(ledger)
        assert all(self.service._ledger.find(lease) for lease in self.told)  # whatever became of it

    @invariant()
    def no_device_is_held_twice(self) -> None:
        held = Counter(device for item in self.live() for device in item.devices)
        assert all(number == 1 for number in held.values())

    @invariant()
    def no_limit_is_passed(self) -> None:
        """But by leases that came back because a running container still carried them."""
        leases = [item for item in self.live() if item.since == item.created]
        for user in range(1, 5):
            own = [item for item in leases if item.owner_uid == user]
            assert sum(len(item.devices) for item in own) <= LIMIT
            assert sum((item.equivalents for item in own), Fraction(0)) <= WORTH
        assert sum(len(item.devices) for item in leases if item.groups) <= 3

    @invariant()
    def every_live_lease_was_told(self) -> None:
        assert {item.id for item in self.live()} <= self.told.keys()

    def out(self) -> list[DeviceUuid]:
        """What is quarantined."""
        rows = self.service._ledger.read("SELECT device FROM quarantines WHERE ended_utc IS NULL")
        return [DeviceUuid(device) for (device,) in rows]

    def free(self, *, but: LeaseId | None = None) -> set[DeviceUuid]:
        """By the oracle: from the machine, the rows of the ledger, and what was told of others.

        A part that is gone while a lease holds it leaves the container the device file of its whole GPU, so that
        the GPU itself is had, too; the parts that are still there are not.
        """
        rows = self.service._ledger.read(
            "SELECT lease, device FROM lease_devices JOIN leases ON id = lease WHERE live = 1"
        )
        held = {DeviceUuid(device) for lease, device in rows if lease != but}
        gone = [part.parent for part in SPLIT if part.uuid in held - self.nvml.snapshot.devices.keys()]
        return free_by_hand(
            self.nvml.snapshot,
            held | self.foreign,
            out=self.out(),
            used=self.used.union(filter(None, gone)),
        )

    @invariant()
    def free_is_what_nobody_has(self) -> None:
        """While the driver can be relied on; where it cannot nothing is free."""
        board, _ = self.run(self.service.queue())
        units = {gpu(0).uuid, gpu(1).uuid, *(device.uuid for device in self.layout[-2:])}
        if board is None:
            self.broken = len(units)
            return
        EVENTS.update(["compared"])
        free = self.free()
        assert board.free == free
        self.broken = len(units - free - {uuid for item in self.live() for uuid in item.devices})
        assert all(0 < equivalents(device) <= 1 for device in board.snapshot.devices.values())

    @invariant()
    def what_runs_holds_its_devices(self) -> None:
        """A container that was let start is the only holder of its devices until it has stopped or is gone."""
        holders = {device: item for item in self.live() for device in item.devices}
        for carrier in self.containers.values():
            if carrier.state == "running":
                lease = self.service._ledger.find(carrier.lease)
                assert all(holders[device].id == lease.id for device in lease.devices)

    def teardown(self) -> None:
        """Whatever happened: with no container left, evidence of a new session frees every device."""
        self.clock.seconds += 3600
        self.run(self.service.settle(evidence(self.clock(), session="last")))
        left = self.live()
        self.runner.run(self.service.close())
        self.runner.close()
        shutil.rmtree(self.folder)
        assert left == ()


Leasing.TestCase.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)


class TestLeasing(Leasing.TestCase):  # type: ignore[misc, valid-type]  # hypothesis makes it at run time
    """All of it, as one test."""

    def runTest(self) -> None:  # noqa: N802  unittest's name for it
        """Enough is played, and each kind of event often enough to mean something."""
        before = Counter(EVENTS)
        super().runTest()
        played = EVENTS - before
        assert not {kind: played[kind] for kind, floor in FLOORS.items() if played[kind] < floor}, played
