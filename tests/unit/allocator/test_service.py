"""The allocator over a real ledger: what becomes of a lease, by evidence, by starts and by outages."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Conflict
from allocator.model import (
    DeviceState,
    InventoryUnavailable,
    Lease,
    LeaseState,
    Refusal,
)
from allocator.reconcile import Carrier, Contradiction
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, evidence, held, queued, want

if TYPE_CHECKING:
    from allocator.service import Allocator

ONE = ContainerId("1" * 64)


async def test_a_lease_goes_from_pending_to_released(one: Allocator) -> None:
    """Granted pending, confirmed with its container, released once and for all."""
    lease = await held(one)
    assert lease.state is LeaseState.PENDING
    for _ in range(2):
        confirmed = await one.confirm(lease.id, ONE, who="x")
        assert confirmed is not None
        assert (confirmed.state, confirmed.container) == (LeaseState.BOUND, ONE)
    for _ in range(2):
        released = await one.release(lease.id, who="x", why="removed")
        assert released is not None
        assert released.state is LeaseState.RELEASED
    assert await one.leases(None) == ()


async def test_what_cannot_be_confirmed(one: Allocator) -> None:
    """A lease of another container or a released one is a conflict; an unknown one is None."""
    lease = await held(one)
    await one.confirm(lease.id, ONE, who="x")
    with pytest.raises(Conflict):
        await one.confirm(lease.id, ContainerId("2" * 64), who="x")
    await one.release(lease.id, who="x", why="removed")
    with pytest.raises(Conflict):
        await one.confirm(lease.id, ONE, who="x")
    assert await one.confirm(LeaseId("never"), ONE, who="x") is None
    assert await one.release(LeaseId("never"), who="x", why="x") is None


async def test_without_nvml_nothing_is_granted_and_all_is_kept(one: Allocator, nvml: FakeNvml) -> None:
    """An outage refuses grants, keeps leases as they are, still releases, and ends by itself."""
    lease = await held(one)
    nvml.problem = "no driver"
    with pytest.raises(InventoryUnavailable):
        await one.lease(want())
    await one.sweep()
    assert one.watch.problem == "no driver"
    (kept,) = await one.leases(None)
    assert kept.state is LeaseState.PENDING
    await one.release(lease.id, who="x", why="removed")
    nvml.problem = None
    await held(one)
    assert one.watch.problem is None


async def test_a_lost_device_is_held_until_its_container_is_gone(
    one: Allocator, nvml: FakeNvml, clock: Clock
) -> None:
    """Lost and back again, a device stays its holder's until evidence says the container is gone."""
    lease = await held(one)
    await one.confirm(lease.id, ONE, who="x")
    nvml.put(gpu(0, state=DeviceState.LOST))
    await one.sweep()
    nvml.put(gpu(0))
    assert isinstance(await one.lease(want()), Refusal)
    (found,) = await one.leases(None)
    assert found.state is LeaseState.LOST
    clock.seconds += 60
    await one.settle(evidence(clock()))
    assert isinstance(await one.lease(want()), Refusal)  # until a person has looked at it
    assert await one.upkeep.release(gpu(0).uuid, who="root", why="reseated")
    await held(one)


async def test_a_released_lease_still_carried_comes_back_or_is_reported(one: Allocator, clock: Clock) -> None:
    """Its devices free: it is active again. Leased on meanwhile: reported, nobody loses anything."""
    lease = await held(one)
    carrier = Carrier(container=ONE, lease=lease.id, owner_uid=lease.owner_uid)
    await one.release(lease.id, who="x", why="by mistake")
    clock.seconds += 1
    await one.settle(evidence(clock(), carrier))
    (back,) = await one.leases(None)
    assert (back.id, back.state) == (lease.id, LeaseState.ACTIVE)
    clock.seconds += 1
    await one.release(lease.id, who="x", why="by mistake")
    other = await held(one, owner_uid=Uid(2))
    clock.seconds += 1
    (problem,) = await one.settle(evidence(clock(), carrier))
    assert isinstance(problem, Contradiction)
    assert [item.id for item in await one.leases(None)] == [other.id]


async def test_late_evidence_ends_no_lease_that_was_confirmed_meanwhile(one: Allocator, clock: Clock) -> None:
    """A proxy that was stopped between asking dockerd and telling, or a slow dockerd, takes no device from a container."""
    lease = await held(one)
    told = evidence(clock(), pending=frozenset({lease.id}))
    clock.seconds += 1
    await one.confirm(lease.id, ONE, who="x")
    clock.seconds += 600
    assert await one.settle(told) == ()
    (found,) = await one.leases(None)
    assert found.state is LeaseState.BOUND


async def test_old_evidence_is_refused(one: Allocator, clock: Clock) -> None:
    """That of another boot, that from before what was settled last, and that which nobody can have asked for yet."""
    before = evidence(clock())
    clock.seconds += 5
    for odd in (evidence(clock(), boot_id="boot-0"), evidence(clock(), asked_ms=clock().boottime_ms + 1)):
        with pytest.raises(Conflict):
            await one.settle(odd)
    assert not one.reconciled
    await one.settle(evidence(clock()))
    with pytest.raises(Conflict):
        await one.settle(before)
    await one.settle(evidence(clock()))


async def test_leases_are_listed_by_owner(one: Allocator) -> None:
    """A user's list holds that user's leases only."""
    lease = await held(one)
    assert await one.leases(Uid(1000)) == (lease,)
    assert await one.leases(Uid(1)) == ()
    assert await one.find(lease.id) == lease


async def bound(allocator: Allocator) -> Lease:
    """A lease whose container has never started."""
    lease = await held(allocator)
    confirmed = await allocator.confirm(lease.id, ONE, who="x")
    assert confirmed is not None
    return confirmed


async def test_a_start_rests_on_a_look_that_is_not_old(one: Allocator, nvml: FakeNvml, clock: Clock) -> None:
    """A fresh one is not waited for again; after that the device is looked at before anything starts."""
    lease = await bound(one)
    looks = one.watch.looks
    started = await one.start(lease.id, ONE, who="x")
    assert started is not None
    assert (started.state, one.watch.looks) == (LeaseState.ACTIVE, looks)
    clock.seconds += 8
    await one.start(lease.id, ONE, who="x")
    assert one.watch.looks == looks + 1
    clock.seconds += 8
    nvml.take(gpu(0).uuid)
    with pytest.raises(Conflict, match="has lost a device"):
        await one.start(lease.id, ONE, who="x")


async def test_a_start_on_a_quarantined_gpu_waits_until_it_is_back(one: Allocator) -> None:
    """An admin's order takes the lease from nobody."""
    lease = await bound(one)
    await one.upkeep.quarantine(gpu(0).uuid, who="root", why="a new cooler")
    with pytest.raises(Conflict, match="GPU 0 of this container is out of service: a new cooler"):
        await one.start(lease.id, ONE, who="x")
    (kept,) = await one.leases(None)
    assert kept.state is LeaseState.BOUND
    await one.upkeep.release(gpu(0).uuid, who="root", why="it is in")
    assert await one.start(lease.id, ONE, who="x") is not None


async def test_nothing_starts_while_nobody_can_say_what_there_is(
    one: Allocator, nvml: FakeNvml, clock: Clock
) -> None:
    """The lease stays as it is; one that is over is told so without a look."""
    lease = await bound(one)
    nvml.problem = "no driver"
    clock.seconds += 8
    with pytest.raises(InventoryUnavailable, match="no driver"):
        await one.start(lease.id, ONE, who="x")
    (kept,) = await one.leases(None)
    assert kept == lease
    looks = one.watch.looks
    with pytest.raises(Conflict):
        await one.start(lease.id, ContainerId("2" * 64), who="x")
    assert await one.start(LeaseId("never"), ONE, who="x") is None
    assert one.watch.looks == looks
    nvml.problem = None
    assert await one.start(lease.id, ONE, who="x") is not None


async def test_a_start_waits_for_a_hung_driver_no_longer_than_a_grant(
    one: Allocator, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is told that nobody can say, and others go on meanwhile."""
    lease = await bound(one)
    clock.seconds += 8
    hung = asyncio.Event()

    async def hang() -> None:
        await hung.wait()
        raise InventoryUnavailable("hung")

    monkeypatch.setattr(one.watch._inventory, "read", hang)
    monkeypatch.setattr(one.watch, "_patience_seconds", 0.05)
    with pytest.raises(InventoryUnavailable, match="has not answered yet"):
        await one.start(lease.id, ONE, who="x")
    hung.set()


async def test_a_hung_driver_holds_up_no_release(one: Allocator, monkeypatch: pytest.MonkeyPatch) -> None:
    """While NVML does not answer, leases are listed, confirmed and released as ever."""
    lease = await held(one)
    hung = asyncio.Event()

    async def hang() -> None:
        await hung.wait()
        raise InventoryUnavailable("hung")

    monkeypatch.setattr(one.watch._inventory, "read", hang)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(one.sweep())
        await asyncio.sleep(0)
        async with asyncio.timeout(2):
            await one.confirm(lease.id, ONE, who="x")
            await one.release(lease.id, who="x", why="removed")
            assert await one.leases(None) == ()
        hung.set()


async def test_a_release_wakes_the_sweep(one: Allocator, nvml: FakeNvml) -> None:
    """A waiter is served soon after the last process of a removed container has ended, not a sweep later."""
    lease = await held(one)
    nvml.put(gpu(0, pids=(9,)))
    await one.sweep()
    async with asyncio.TaskGroup() as tasks:
        sweeping = tasks.create_task(one.run())
        waiter = tasks.create_task(held(one, wait_seconds=4, owner_uid=Uid(2)))
        await queued(one, 1)
        nvml.put(gpu(0))
        await one.release(lease.id, who="x", why="removed")
        async with asyncio.timeout(3):
            assert (await waiter).owner_uid == 2
        sweeping.cancel()
