"""Four users, one proxy, a failing driver and crashes, in any order: no device is held twice, none leaks (I5).

Kinds of event: reserve, hang up, create and confirm, start and stop, remove, evidence, time, the driver and its devices,
processes and memory of nobody, containers that ds01 did not make, reservations, a change of MIG mode, crash of proxy, allocator
or machine. At least 10,000 are played.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
STARTABLE = {LeaseState.BOUND, LeaseState.ACTIVE, LeaseState.HELD}
# Where there is a file system in memory: the order of writes is tested here, and the disk in tests/unit/allocator/test_ledger.py.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
EVENTS = Counter[str]()
STEPS, EXAMPLES = 50, 300  # 15,000 events


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
        self.begin("boot0")

    def begin(self, ledger: str) -> None:
        self.number += 1000
        self.path = self.folder / ledger
        self.disk = Disk(self.path)
        self.service = self.run(self._service())
        self._tell_foreign()
        self.service.watch.ghosts = self.used

    def _tell_foreign(self) -> None:
        self.service.foreign.tell([foreign(*self.foreign)] if self.foreign else [])

    async def _service(self) -> Any:
        return service(self.path, self.nvml, self.clock, self.number, sync=self.disk.sync)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def live(self) -> tuple[Lease, ...]:
        found: tuple[Lease, ...] = self.service._ledger.live()  # nothing else is at work
        return found

    def lease_of(self, index: int) -> Lease | None:
        told = list(self.told.values())
        return told[index % len(told)] if told else None

    def asked(self, user: int, wish: dict[str, object]) -> Any:
        groups = (GROUP,) if user <= 2 else ()
        limits: dict[str, object] = {"limit": LIMIT, "equivalents": WORTH, "groups": groups}
        return want(owner_uid=Uid(user), owner_name=f"u{user}", session=self.session, **limits, **wish)

    @rule(user=USERS, wish=WISHES)
    def reserve(self, user: int, wish: dict[str, object]) -> None:
        try:
            outcome = self.run(self.service.lease(self.asked(user, wish)))
        except InventoryUnavailable:
            assert self.nvml.problem
            return
        if isinstance(outcome, Lease) and outcome.id not in self.told:
            EVENTS.update(["granted"])
            assert set(outcome.devices) <= self.free(but=outcome.id)
            self.told[outcome.id] = outcome

    @rule(user=USERS, wish=WISHES, turns=st.integers(0, 12), waits=st.booleans())
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
            self.told[outcome[0].id] = outcome[0]

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

        lease = self.lease_of(index)
        if lease is not None:
            self._remove(lease.id)
        for outcome in self.run(work()):
            if isinstance(outcome, Lease):
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
        self.reserve(user=user, wish=wish)
        self._create(len(self.told) - 1, confirm=True)
        self._start(len(self.containers) - 1)

    def _create(self, index: int, *, confirm: bool) -> None:
        lease = self.lease_of(index)
        if lease is None or lease.session != self.session or not self.run(self.service.find(lease.id)).live:
            return
        self.made += 1
        container = ContainerId(f"{self.made:064x}")
        if any(item.lease == lease.id for item in self.containers.values()):
            return
        self.containers[container] = Carrier(
            container=container, lease=lease.id, owner_uid=lease.owner_uid, state="created"
        )
        if confirm:
            try:
                self.run(self.service.confirm(lease.id, container, who="x"))
            except Conflict:
                del self.containers[container]

    @rule(index=st.integers(0, 50))
    def start(self, index: int) -> None:
        self._start(index)

    def _start(self, index: int) -> None:
        """As the guard does: a container runs only after the allocator said so."""
        carriers = list(self.containers.values())
        if not carriers:
            return
        carrier = carriers[index % len(carriers)]
        before = self.run(self.service.find(carrier.lease))
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
        carriers = [item for item in self.containers.values() if item.state == "running"]
        if carriers:
            carrier = carriers[index % len(carriers)]
            self.containers[carrier.container] = replace(carrier, state="exited")

    @rule(index=st.integers(0, 50))
    def remove_and_release(self, index: int) -> None:
        lease = self.lease_of(index)
        if lease is not None:
            self._remove(lease.id)
            self.run(self.service.release(lease.id, who="x", why="removed"))

    @rule(index=st.integers(0, 50))
    def remove_unseen(self, index: int) -> None:
        lease = self.lease_of(index)
        if lease is not None:
            self._remove(lease.id)

    def _remove(self, lease: LeaseId) -> None:
        self.containers = {key: item for key, item in self.containers.items() if item.lease != lease}

    @rule()
    def evidence(self) -> None:
        self.run(self.service.settle(self._asked()))

    @rule(index=st.integers(0, 50))
    def evidence_from_before_a_start(self, index: int) -> None:
        """What was gathered before a start arrives after it."""
        told = self._asked()
        self._start(index)
        self.run(self.service.settle(told))

    @rule(index=st.integers(0, 50), seconds=st.integers(0, 40))
    def evidence_that_comes_late(self, index: int, seconds: int) -> None:
        """The proxy, or dockerd, was held up."""
        told = self._asked()
        self.clock.seconds += 1
        self._start(index)
        self.clock.seconds += seconds
        self.run(self.service.settle(told))

    def _asked(self) -> Evidence:
        return evidence(self.clock(), *self.containers.values(), session=self.session)

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.clock.seconds += seconds

    @rule(device=CHANGING, lost=st.sampled_from([True, False, False]))
    def a_device_comes_and_goes(self, device: Any, lost: Any) -> None:
        if lost:
            self.nvml.take(device.uuid)
        else:
            self.nvml.put(device)
        self.run(self.service.sweep())

    @rule(device=st.sampled_from([gpu(0), gpu(1)]), state=st.sampled_from([DeviceState.OK, *DeviceState]))
    def a_gpu_changes_state(self, device: Any, state: DeviceState) -> None:
        self.nvml.put(gpu(int(device.index), state=state))
        self.run(self.service.sweep())
        if state is DeviceState.OK:
            self.run(self.service.upkeep.release(device.uuid, who="root", why="it is back"))

    @rule(
        device=CHANGING,
        code=st.sampled_from([31, 48, 63, 79, 999]),
        tellers=st.sampled_from([("nvml",), ("log",), ("nvml", "log")]),
    )
    def a_device_has_an_error(self, device: Any, code: int, tellers: tuple[str, ...]) -> None:
        """Of a program, of memory, of the device, or one that ds01 does not know; told by NVML, the kernel log or both."""
        if "log" in tellers:
            self.service.hearing.logged(logged(device, code))
            self.clock.seconds += 2  # until the next look
        if "nvml" in tellers:
            self.nvml.xid(device, code)
        self.run(self.service.sweep())

    @rule(device=st.sampled_from(DEVICES), taken_out=st.booleans())
    def an_admin_decides(self, device: Any, taken_out: Any) -> None:
        upkeep = self.service.upkeep
        act = upkeep.quarantine if taken_out else upkeep.release
        self.run(act(device.uuid, who="root", why="as told"))

    @rule(device=CHANGING, there=st.booleans())
    def a_process_comes_and_goes(self, device: Any, there: Any) -> None:
        """One that is nobody's in particular, as far as placement goes."""
        if device.uuid in self.nvml.snapshot.devices:
            self.nvml.put(replace(device, processes=(GpuProcess(pid=77),) if there else ()))
        self.run(self.service.sweep())

    @rule(device=st.sampled_from(DEVICES), there=st.booleans())
    def memory_of_nobody_comes_and_goes(self, device: Any, there: Any) -> None:
        EVENTS.update(["memory of nobody"])
        self.used = frozenset([device.uuid]) if there else frozenset()
        self.service.watch.ghosts = self.used  # as attribution says after its own look

    @rule(devices=st.sets(st.sampled_from([device.uuid for device in DEVICES]), max_size=2))
    def a_foreign_container_comes_and_goes(self, devices: set[DeviceUuid]) -> None:
        EVENTS.update(["foreign container"])
        self.foreign = frozenset(devices)
        self._tell_foreign()

    @rule(user=USERS, count=st.integers(1, 2), there=st.booleans())
    def an_admin_reserves(self, user: int, count: int, there: Any) -> None:
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
        if there:
            self.run(self.service.reserving.add(kept))

    @rule(whole=st.booleans())
    def a_gpu_changes_its_mode(self, whole: Any) -> None:
        """Out of MIG mode and back: a reset, which nobody may hold the GPU for."""
        held = {uuid for lease in self.live() for uuid in lease.devices}
        if held & {device.uuid for device in SPLIT}:
            return
        EVENTS.update(["MIG mode"])
        for device in SPLIT:
            self.nvml.take(device.uuid)
        for device in (gpu(2),) if whole else SPLIT:
            self.nvml.put(device)
        self.run(self.service.sweep())

    @rule(problem=st.sampled_from([None, None, None, "no driver"]))
    def the_driver_comes_and_goes(self, problem: str | None) -> None:
        self.nvml.problem = problem

    @rule(lost=st.sampled_from([None, *Lost]))
    def the_allocator_crashes(self, lost: Any) -> None:
        """Reopen the ledger as another process would, or the power goes: then what was not synced may be lost, and no container runs."""
        ledger = self.path.name
        if lost:
            ledger = f"boot{self.number}"
            self.disk.after_power_loss(self.folder / ledger, lost)
        self.run(self.service.close())
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
        EVENTS.update(["event"])
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

    def free(self, *, but: LeaseId | None = None) -> set[DeviceUuid]:
        """By the oracle: from the machine, the rows of the ledger, and what was told of others.

        A part that is gone while a lease holds it leaves the container the device file of its whole GPU, so that
        the GPU itself is had, too; the parts that are still there are not.
        """
        rows = self.service._ledger.read(
            "SELECT lease, device FROM lease_devices JOIN leases ON id = lease WHERE live = 1"
        )
        held = {DeviceUuid(device) for lease, device in rows if lease != but}
        out = self.service._ledger.read("SELECT device FROM quarantines WHERE ended_utc IS NULL")
        gone = [part.parent for part in SPLIT if part.uuid in held - self.nvml.snapshot.devices.keys()]
        return free_by_hand(
            self.nvml.snapshot,
            held | self.foreign,
            out=[DeviceUuid(device) for (device,) in out],
            used=self.used.union(filter(None, gone)),
        )

    @invariant()
    def free_is_what_nobody_has(self) -> None:
        """While the driver can be relied on; where it cannot nothing is free."""
        board, _ = self.run(self.service.queue())
        if board is None:
            return
        EVENTS.update(["compared"])
        assert board.free == self.free()
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
        self.run(self.service.close())
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
        assert played["event"] >= 10_000, played
        assert played["granted"] >= 200, played
        assert played["compared"] >= 2_000, played
        for kind in ("memory of nobody", "foreign container", "reservation", "MIG mode"):
            assert played[kind] >= 100, played
