"""Withholding devices from leasing: only what nobody holds, and until it is given back."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from allocator.host_access import HostAccess
from allocator.host_grants import HostGrant, HostGrants
from allocator.mig_journal import Entry, StepKind, StepState
from allocator.model import DeviceKind, DeviceState, InventoryUnavailable, Lease, LeaseState, Refusal
from allocator.processes import Processes
from allocator.readings import GpuProcess, MigMode, Span
from allocator.reconcile import Carrier
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.fake_nvml import FakeNvml, gpu, mig, snapshot, split
from tests.fakes.host_access import Table
from tests.fakes.leasing import Clock, evidence, foreign, service, want

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from allocator.attributor import OpenElsewhere
    from allocator.model import Device
    from allocator.service import Allocator

FIRST, SECOND = mig(0, 0).uuid, mig(0, 1).uuid


async def ready(path: Path, nvml: FakeNvml, *carriers: Carrier, **more: Any) -> Allocator:
    """A service whose proxy has told that there are these containers."""
    one = service(path / "ledger", nvml, Clock(), **more)
    await one.settle(evidence(one._now(), *carriers))
    return one


async def granting(path: Path, *devices: Device) -> tuple[Allocator, HostAccess]:
    """A service and the grants that it asks for, on devices of a GPU that is in MIG mode and whose file is /dev/nvidia0."""
    mode = MigMode(current=True, pending=True)
    told = (replace(one, minor=0, mig_mode=mode if one.kind is DeviceKind.GPU else None) for one in devices)

    async def recorded() -> tuple[HostGrant, ...]:
        return await access.recorded()

    async def ran(_command: Sequence[str]) -> None:
        return None

    async def open_elsewhere() -> tuple[OpenElsewhere, ...]:
        return ()

    clock = Clock()
    one = await ready(path, FakeNvml(*told), granted=recorded)
    (path / "devices").write_text("Character devices:\n195 nvidia\n")
    (path / "closed").touch()
    access = HostAccess(
        grants=HostGrants(path / "grants"),
        inventory=one.withheld,
        processes=Processes(boot_id=clock.boot),
        holders=open_elsewhere,
        now=clock,
        utc_seconds=lambda: clock.seconds,
        run=ran,
        devices=path / "devices",
        closed=path / "closed",
        capabilities=Table(),
    )
    return one, access


async def test_what_is_withheld_is_leased_to_nobody(tmp_path: Path) -> None:
    """Not by number and not by name; afterwards it is as before."""
    one = await ready(tmp_path, FakeNvml(*split(0, "1g.5gb", "1g.5gb")))
    await one.sweep()
    assert await one.withheld.withhold([FIRST, SECOND]) == ()
    assert isinstance(await one.lease(want()), Refusal)
    assert isinstance(await one.lease(want(count=None, device_ids=(FIRST,))), Refusal)
    await one.sweep()
    assert one.watch.current().devices[FIRST].state is DeviceState.UNUSABLE
    assert one.watch.current().devices[FIRST].recovers
    await one.withheld.give_back([FIRST, SECOND])
    assert not one.watch.current().devices[FIRST].recovers
    assert isinstance(await one.lease(want()), Lease)
    await one.close()


async def test_a_withheld_gpu_withholds_its_parts(tmp_path: Path) -> None:
    """A change of mode concerns all of them."""
    one = await ready(tmp_path, FakeNvml(*split(0, "1g.5gb")))
    await one.sweep()
    assert await one.withheld.withhold([gpu(0).uuid]) == ()
    assert isinstance(await one.lease(want()), Refusal)
    await one.close()


async def test_what_is_held_is_not_withheld(tmp_path: Path) -> None:
    """By a lease, with its container once that is known, or by a process; then nothing is."""
    nvml = FakeNvml(*split(0, "1g.5gb", "1g.5gb"))
    one = await ready(tmp_path, nvml)
    lease = await one.lease(want(count=None, device_ids=(FIRST,)))
    assert isinstance(lease, Lease)
    assert await one.withheld.withhold([FIRST, SECOND]) == ("a create under way of alice",)
    assert (await one.withheld.holders())[FIRST] == ("a create under way of alice",)
    nvml.put(mig(0, 1, processes=(GpuProcess(pid=7),)))
    await one.sweep()
    assert await one.withheld.withhold([SECOND]) == ("process 7",)
    assert one.watch.current().devices[SECOND].state is DeviceState.OK
    await one.close()


async def test_a_gpu_is_not_withheld_from_who_had_a_part_that_is_gone(tmp_path: Path) -> None:
    """Nor from who has one that is there: a GPU is withheld with all its parts."""
    nvml = FakeNvml(*split(0, "1g.5gb", "1g.5gb"))
    one = await ready(tmp_path, nvml)
    lease = await one.lease(want(count=None, device_ids=(FIRST,)))
    assert isinstance(lease, Lease)
    assert await one.withheld.withhold([gpu(0).uuid]) == ("a create under way of alice",)
    for left in ((gpu(0), mig(0, 1)), (gpu(0),)):
        nvml.snapshot = snapshot(*left)
        await one.sweep()
        said = ("a create under way of alice, whose MIG device is gone",)
        assert (await one.withheld.holders())[gpu(0).uuid] == said
        assert await one.withheld.withhold([gpu(0).uuid]) == said
    await one.release(lease.id, who="x", why="removed")
    assert await one.withheld.withhold([gpu(0).uuid]) == ()
    await one.close()


@pytest.mark.parametrize("runs", [True, False])
async def test_what_ds01_did_not_make_holds_its_devices(tmp_path: Path, *, runs: bool) -> None:
    """A stopped one too: it may start again, and must find what it was made with."""
    one = await ready(tmp_path, FakeNvml(*split(0, "1g.5gb", "1g.5gb")))
    await one.sweep()
    one.foreign.tell([foreign(FIRST, runs=runs)])
    said = ("" if runs else "stopped ") + "container old, which ds01 did not make"
    assert await one.withheld.withhold([FIRST]) == (said,)
    assert await one.withheld.holders() == {FIRST: (said,)}
    assert await one.withheld.withhold([SECOND]) == ()
    await one.close()


@pytest.mark.parametrize("runs", [True, False])
async def test_a_monitor_holds_nothing(tmp_path: Path, *, runs: bool) -> None:
    """What it runs on a device does; else nothing could be split anew beside one."""
    nvml = FakeNvml(*split(0, "1g.5gb", "1g.5gb"))
    nvml.put(mig(0, 1, processes=(GpuProcess(pid=7),)))
    one = await ready(tmp_path, nvml)
    await one.sweep()
    one.foreign.tell([foreign(FIRST, SECOND, runs=runs, monitor=True)])
    assert await one.withheld.holders() == {SECOND: ("process 7",)}
    assert await one.withheld.withhold([FIRST]) == ()
    await one.close()


async def test_a_device_that_is_granted_outside_containers_is_not_withheld(tmp_path: Path) -> None:
    """From the moment that the grant is on record until it is over; its neighbour is, and the sentence says what ends it."""
    one, access = await granting(tmp_path, *split(0, "1g.5gb", "1g.5gb"))
    made = await access.grant(
        uid=Uid(1000), name="alice", devices=["0:0"], seconds=3600, by="root", reason="x"
    )
    assert isinstance(made, HostGrant)
    said = f"access of alice outside containers until {made.ends_utc} (ds01 gpu revoke alice)"
    assert await one.withheld.withhold([FIRST]) == (said,)
    assert await one.withheld.holders() == {FIRST: (said,)}
    assert await one.withheld.withhold([SECOND]) == ()
    await access.revoke(Uid(1000), by="root", why="done")
    assert await one.withheld.withhold([FIRST]) == ()
    await access.close()
    await one.close()


async def test_a_withheld_device_is_not_granted(tmp_path: Path) -> None:
    """Nor while the mode of its GPU changes: what comes back there is another device."""
    one, access = await granting(tmp_path, *split(0, "1g.5gb", "1g.5gb"))
    wish: dict[str, Any] = {"uid": Uid(1000), "name": "alice", "seconds": 3600, "by": "root", "reason": "x"}
    for withheld in (FIRST, gpu(0).uuid):
        await one.sweep()
        assert await one.withheld.withhold([withheld]) == ()
        assert isinstance(await access.grant(**wish, devices=["0:0"]), Refusal)
        await one.withheld.give_back([withheld])
    assert isinstance(await access.grant(**wish, devices=["0:0"]), HostGrant)
    await access.close()
    await one.close()


async def test_nothing_is_withheld_while_a_grant_is_written_down(tmp_path: Path) -> None:
    """Between the look at the devices and the record a change of MIG waits, and then finds the record."""
    one, access = await granting(tmp_path, *split(0, "1g.5gb"))
    await one.sweep()
    async with asyncio.TaskGroup() as tasks, one.withheld.settled() as seen:
        assert FIRST in seen.devices
        withholding = tasks.create_task(one.withheld.withhold([FIRST]))
        await asyncio.sleep(0.05)
        assert not withholding.done()
    assert withholding.result() == ()
    async with one.withheld.settled() as seen:
        assert FIRST not in seen.devices
    await access.close()
    await one.close()


async def test_unknown_processes_hold_a_device(tmp_path: Path) -> None:
    """Unknown is never nobody; a GPU's list of its instances' processes holds the instances alone."""
    nvml = FakeNvml(*split(0, "1g.5gb"))
    one = await ready(tmp_path, nvml)
    nvml.put(mig(0, 0, pids=None))
    inside = GpuProcess(pid=5, gpu_instance_id=7, compute_instance_id=0)
    nvml.put(
        gpu(0, state=DeviceState.UNUSABLE, mig_mode=MigMode(current=True, pending=True), processes=(inside,))
    )
    await one.sweep()
    held = await one.withheld.holders()
    assert held == {FIRST: ("processes that cannot be read",)}
    nvml.problem = "no driver"
    await one.sweep()
    with pytest.raises(InventoryUnavailable):
        await one.withheld.withhold([FIRST])
    await one.close()


OTHER = ContainerId("c" * 64)


async def over_by_time(one: Allocator) -> Lease:
    """A lease of the first device, with a container that stopped and kept it too long."""
    lease = await one.lease(want(count=None, device_ids=(FIRST,), hold_seconds=0))
    assert isinstance(lease, Lease)
    await one.confirm(lease.id, OTHER, who="x")
    for _ in range(3):
        one._now.seconds += 60  # type: ignore[attr-defined]  # the clock of tests
        await one.settle(evidence(one._now(), carrying(lease, "exited")))
    found = await one.find(lease.id)
    assert found is not None
    assert found.state is LeaseState.RELEASED
    return found


def carrying(lease: Lease, state: str) -> Carrier:
    return Carrier(container=OTHER, lease=lease.id, owner_uid=lease.owner_uid, state=state)


async def test_a_stopped_container_holds_what_its_lease_was_of(tmp_path: Path) -> None:
    """The lease is over by time, and others may have the device; but it is there as long as the container names it."""
    one = await ready(tmp_path, FakeNvml(*split(0, "1g.5gb", "1g.5gb")))
    lease = await over_by_time(one)
    said = ("stopped container cccccccccccc of alice, whose lease is over",)
    assert await one.withheld.holders() == {FIRST: said}
    assert await one.withheld.withhold([FIRST]) == said
    assert await one.withheld.withhold([gpu(0).uuid]) == said
    assert await one.withheld.withhold([SECOND]) == ()
    await one.release(lease.id, who="proxy", why="container removed")
    assert await one.withheld.withhold([FIRST]) == ()
    await one.close()


async def test_a_container_that_runs_without_a_lease_has_the_file_of_its_gpu(tmp_path: Path) -> None:
    """Somebody else has its devices, so that the lease cannot come back; a stopped one has no file open."""
    nvml = FakeNvml(*split(0, "1g.5gb"))
    one = await ready(tmp_path, nvml)
    lease = await over_by_time(one)
    nvml.snapshot = snapshot(gpu(0))
    await one.sweep()
    assert isinstance(await one.lease(want(owner_uid=Uid(2), owner_name="bob")), Lease)
    bob = "a create under way of bob"
    for state, said in (
        ("exited", (bob,)),
        ("running", (bob, "container cccccccccccc of alice, whose lease is over")),
    ):
        one._now.seconds += 1  # type: ignore[attr-defined]  # the clock of tests
        await one.settle(evidence(one._now(), carrying(lease, state), pending=None))
        assert (await one.withheld.holders())[gpu(0).uuid] == said
    await one.close()


async def test_a_lease_that_nobody_knows_may_be_of_any_device(tmp_path: Path) -> None:
    """A ledger was lost, and the container was not."""
    stopped = Carrier(container=OTHER, lease=LeaseId("never"), owner_uid=Uid(1000), state="exited")
    one = await ready(tmp_path, FakeNvml(*split(0, "1g.5gb", "1g.5gb")), stopped)
    await one.sweep()
    said = ("stopped container cccccccccccc, with a lease that is not on record",)
    assert await one.withheld.holders() == dict.fromkeys((gpu(0).uuid, FIRST, SECOND), said)
    await one.close()


async def test_before_the_proxy_has_told_anything_everything_is_held(tmp_path: Path) -> None:
    """A container of which nobody knows yet may name it; after a restart too."""
    one = service(tmp_path / "ledger", FakeNvml(*split(0, "1g.5gb")), Clock())
    await one.sweep()
    said = ("waits for the proxy, which has not told yet what containers there are",)
    assert await one.withheld.withhold([FIRST]) == said
    assert await one.withheld.holders() == dict.fromkeys((gpu(0).uuid, FIRST), said)
    assert not one.reconciled
    await one.settle(evidence(one._now()))
    assert one.reconciled
    assert await one.withheld.withhold([FIRST]) == ()
    await one.close()


async def test_a_step_that_was_cut_short_withholds_after_a_restart(tmp_path: Path) -> None:
    """From the first decision on, until it has ended."""
    one = await ready(tmp_path, FakeNvml(*split(0, "1g.5gb")))
    entry = Entry(kind=StepKind.DESTROY, gpu=gpu(0).uuid, instance=7, start=0, devices=(FIRST,), who="root")
    number = await one.mig_journal.intend(entry)
    await one.close()
    two = service(tmp_path / "ledger", FakeNvml(*split(0, "1g.5gb")), Clock())
    assert isinstance(await two.lease(want()), Refusal)
    assert [step.number for step in await two.mig_journal.unfinished()] == [number]
    await two.mig_journal.end(number, StepState.ABANDONED, "it had not begun")
    await two.withheld.give_back([FIRST])
    assert isinstance(await two.lease(want()), Lease)
    await two.close()


async def test_nobody_need_have_looked_before_something_is_withheld(tmp_path: Path) -> None:
    """At the start what a crash cut short is gone on with at once: it looks itself, and needs no look for a place."""
    one = service(tmp_path / "ledger", FakeNvml(*split(0, "1g.5gb")), Clock())
    assert await one.withheld.withhold([], (gpu(0).uuid, 0)) == ()
    assert one.watch.snapshot is None
    assert await one.withheld.withhold([FIRST]) == (
        "waits for the proxy, which has not told yet what containers there are",
    )
    await one.close()


async def test_a_gpu_is_settled_only_when_what_was_restored_is_seen(tmp_path: Path) -> None:
    """A look that lacks it may have begun before; once it is settled, what is missing is lost."""
    mode = MigMode(current=True, pending=True)
    whole = gpu(0, state=DeviceState.UNUSABLE, mig_mode=mode)
    parts = [
        mig(0, place, profile_id=19, placement=Span(start=place, size=1), gpu_instance_id=7 + place)
        for place in range(2)
    ]
    nvml, clock = FakeNvml(whole, *parts), Clock()
    one = service(tmp_path / "ledger", nvml, clock)
    leases = [await one.lease(want(count=None, device_ids=(part.uuid,))) for part in parts]
    await one.close()
    clock.boot = "boot-2"
    nvml.snapshot = snapshot(whole)
    one = service(tmp_path / "ledger", nvml, clock)
    with pytest.raises(InventoryUnavailable, match="not seen yet"):
        await one.withheld.settle(whole.uuid, [FIRST])
    assert one.withheld.before_reboot() != ()
    nvml.put(parts[0])
    await one.withheld.settle(whole.uuid, [FIRST])
    assert one.withheld.before_reboot() == ()
    assert {lease.devices[0]: lease.state for lease in await one.leases(None)} == {
        FIRST: LeaseState.PENDING,
        SECOND: LeaseState.LOST,
    }
    assert len(leases) == 2
    await one.close()
