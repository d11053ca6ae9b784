"""Four users, one proxy, a failing driver and crashes, in any order: no device is held twice, none leaks (I5)."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from allocator.ledger import Conflict
from allocator.model import DeviceState, InventoryUnavailable, Lease
from allocator.place import is_free
from allocator.reconcile import Carrier, Evidence
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.fake_nvml import FakeNvml, gpu, mig, split
from tests.fakes.leasing import Clock, service, want

if TYPE_CHECKING:
    from collections.abc import Coroutine

USERS = st.integers(1, 4)
LIMIT = 2
DEVICES = (gpu(0), gpu(1), *split(2, "3g.20gb", "1g.5gb"))
CHANGING = st.sampled_from([gpu(0), gpu(1), mig(2, 0, "3g.20gb")])


class Leasing(RuleBasedStateMachine):
    """What dockerd holds is kept beside the service: containers by id, each with the lease it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.runner = asyncio.Runner()
        self.nvml, self.clock = FakeNvml(*DEVICES), Clock()
        self.session, self.number = "s0", 0
        self.containers: dict[ContainerId, Carrier] = {}
        self.told: list[Lease] = []
        self.start()

    def start(self) -> None:
        self.number += 1000
        self.service = self.run(self._service())

    async def _service(self) -> Any:
        return service(self.folder / "ledger", self.nvml, self.clock, self.number)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def live(self) -> tuple[Lease, ...]:
        found: tuple[Lease, ...] = self.run(self.service.leases(None))
        return found

    def lease_of(self, index: int) -> Lease | None:
        return self.told[index % len(self.told)] if self.told else None

    @rule(user=USERS, count=st.integers(1, 3))
    def reserve(self, user: int, count: int) -> None:
        held = sum(len(item.devices) for item in self.live() if item.owner_uid == user)
        asked = want(
            owner_uid=Uid(user), owner_name=f"u{user}", count=count, limit=LIMIT, session=self.session
        )
        try:
            outcome = self.run(self.service.lease(asked))
        except InventoryUnavailable:
            assert self.nvml.problem
            return
        if isinstance(outcome, Lease):
            assert held + count <= LIMIT
            assert len(outcome.devices) == count
            out = self.service._care._records.quarantines()
            for uuid in outcome.devices:
                assert uuid not in out
                assert self.nvml.snapshot.devices[uuid].parent not in out
            self.told.append(outcome)

    @rule(user=USERS, turns=st.integers(0, 12))
    def reserve_and_hang_up(self, user: int, turns: int) -> None:
        async def work() -> list[Any]:
            asked = want(owner_uid=Uid(user), limit=LIMIT, session=self.session)
            asking = asyncio.gather(self.service.lease(asked), return_exceptions=True)
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            outcomes: list[Any] = await asyncio.gather(asking, return_exceptions=True)
            return outcomes

        (outcome,) = self.run(work())
        if isinstance(outcome, list) and isinstance(outcome[0], Lease):
            self.told.append(outcome[0])

    @rule(index=st.integers(0, 50))
    def create_and_confirm(self, index: int) -> None:
        self._create(index, confirm=True)

    @rule(index=st.integers(0, 50))
    def create_and_crash(self, index: int) -> None:
        self._create(index, confirm=False)
        self.session += "x"

    def _create(self, index: int, *, confirm: bool) -> None:
        lease = self.lease_of(index)
        if lease is None or lease.session != self.session or not self.run(self.service.find(lease.id)).live:
            return
        container = ContainerId(f"{len(self.containers):064x}")
        if any(item.lease == lease.id for item in self.containers.values()):
            return
        self.containers[container] = Carrier(container=container, lease=lease.id, owner_uid=lease.owner_uid)
        if confirm:
            try:
                self.run(self.service.confirm(lease.id, container))
            except Conflict:
                del self.containers[container]

    @rule(index=st.integers(0, 50))
    def remove_and_release(self, index: int) -> None:
        lease = self.lease_of(index)
        if lease is not None:
            self._remove(lease.id)
            self.run(self.service.release(lease.id, why="removed"))

    @rule(index=st.integers(0, 50))
    def remove_unseen(self, index: int) -> None:
        lease = self.lease_of(index)
        if lease is not None:
            self._remove(lease.id)

    def _remove(self, lease: LeaseId) -> None:
        self.containers = {key: item for key, item in self.containers.items() if item.lease != lease}

    @rule()
    def evidence(self) -> None:
        self.run(
            self.service.settle(Evidence(session=self.session, carriers=tuple(self.containers.values())))
        )

    @rule(seconds=st.integers(1, 40))
    def time_passes(self, seconds: int) -> None:
        self.clock.seconds += seconds

    @rule(device=CHANGING, lost=st.booleans())
    def a_device_comes_and_goes(self, device: Any, lost: Any) -> None:
        if lost:
            self.nvml.take(device.uuid)
        else:
            self.nvml.put(device)
        self.run(self.service.sweep())

    @rule(device=st.sampled_from([gpu(0), gpu(1)]), state=st.sampled_from(list(DeviceState)))
    def a_gpu_changes_state(self, device: Any, state: DeviceState) -> None:
        self.nvml.put(gpu(int(device.index), state=state))
        self.run(self.service.sweep())
        if state is DeviceState.OK:
            self.run(self.service.release_quarantine(device.uuid, who="root", why="it is back"))

    @rule(device=CHANGING, code=st.sampled_from([31, 48, 63, 79, 999]))
    def a_device_has_an_error(self, device: Any, code: int) -> None:
        """Of a program, of memory, of the device, or one that ds01 does not know."""
        self.nvml.xid(device, code)
        self.run(self.service.sweep())

    @rule(device=st.sampled_from(DEVICES), taken_out=st.booleans())
    def an_admin_decides(self, device: Any, taken_out: Any) -> None:
        act = self.service.quarantine if taken_out else self.service.release_quarantine
        self.run(act(device.uuid, who="root", why="as told"))

    @rule(problem=st.sampled_from([None, "no driver"]))
    def the_driver_comes_and_goes(self, problem: str | None) -> None:
        self.nvml.problem = problem

    @rule(reboot=st.booleans())
    def the_allocator_crashes(self, reboot: Any) -> None:
        """Reopen the ledger as another process would; after a reboot no container carries anything new."""
        self.run(self.service.close())
        if reboot:
            self.clock.boot, self.clock.seconds = f"{self.clock.boot}x", 1.0
            self.session += "y"
        self.start()

    @invariant()
    def no_device_is_held_twice(self) -> None:
        held = Counter(device for item in self.live() for device in item.devices)
        assert all(number == 1 for number in held.values())

    @invariant()
    def every_live_lease_was_told(self) -> None:
        assert {item.id for item in self.live()} <= {item.id for item in self.told}

    @invariant()
    def leased_and_free_make_the_inventory(self) -> None:
        leases, machine = self.live(), self.nvml.snapshot
        held = {device for item in leases for device in item.devices}
        for device in machine.devices.values():
            usable = device.state is DeviceState.OK and device.pids == ()
            assert is_free(device, machine, leases) == (usable and device.uuid not in held)

    @invariant()
    def a_carried_device_is_never_another_s(self) -> None:
        holders = {device: item for item in self.live() for device in item.devices}
        for carrier in self.containers.values():
            lease = self.run(self.service.find(carrier.lease))
            for device in lease.devices:
                assert device not in holders or holders[device].id == lease.id

    def teardown(self) -> None:
        """Whatever happened: with no container left, evidence of a new session frees every device."""
        self.clock.seconds += 3600
        self.run(self.service.settle(Evidence(session="last", carriers=())))
        left = self.live()
        self.run(self.service.close())
        self.runner.close()
        shutil.rmtree(self.folder)
        assert left == ()


Leasing.TestCase.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestLeasing = Leasing.TestCase
