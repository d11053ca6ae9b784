"""A request over a real ledger: waiting in line, giving back, and what cancellation and failure leave."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from allocator.model import Lease, LedgerUnavailable, Refusal, RefusalKind
from policy.model import Uid
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, held, queued, service, want

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.service import Allocator


async def test_a_thousand_at_once_get_one_gpu(one: Allocator) -> None:
    """Of many requests at the same moment exactly one is granted."""
    outcomes = await asyncio.gather(*(one.lease(want(owner_uid=Uid(uid))) for uid in range(100)))
    assert sum(isinstance(item, Lease) for item in outcomes) == 1


async def test_the_oldest_waiter_is_served_first(one: Allocator) -> None:
    """A freed device goes to who waited longest, the next one waits on."""
    first = await held(one)
    async with asyncio.TaskGroup() as tasks:
        older = tasks.create_task(held(one, wait_seconds=5, owner_uid=Uid(2)))
        await queued(one, 1)
        younger = tasks.create_task(held(one, wait_seconds=5, owner_uid=Uid(3)))
        await queued(one, 2)
        await one.release(first.id, who="x", why="removed")
        lease = await older
        assert not younger.done()
        await one.release(lease.id, who="x", why="removed")
        assert (await younger).owner_uid == 3


async def test_waiting_ends_with_the_refusal(one: Allocator) -> None:
    """Who waited in vain gets the refusal, and leaves the queue."""
    await held(one)
    outcome = await one.lease(want(wait_seconds=1))
    assert isinstance(outcome, Refusal)
    await queued(one, 0)


async def test_a_hopeless_request_does_not_wait(one: Allocator) -> None:
    """What no release can cure is refused at once, although the client would wait."""
    async with asyncio.timeout(1):
        outcome = await one.lease(want(count=3, wait_seconds=600))
    assert isinstance(outcome, Refusal)
    assert outcome.kind is RefusalKind.TOO_FEW


async def test_a_waiter_that_left_gets_nothing(one: Allocator) -> None:
    """After its client has gone, a freed device is free for others."""
    first = await held(one)
    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(one.lease(want(wait_seconds=60)))
        await queued(one, 1)
        waiter.cancel()
    await one.release(first.id, who="x", why="removed")
    assert await one.leases(None) == ()


async def test_a_grant_that_crosses_a_cancellation_goes_back(one: Allocator) -> None:
    """A waiter served in the very moment in which its client leaves holds nothing afterwards."""
    first = await held(one)
    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(one.lease(want(wait_seconds=60)))
        await queued(one, 1)
        one._line._waiters[0].outcome.add_done_callback(lambda _: waiter.cancel())
        await one.release(first.id, who="x", why="removed")
    assert waiter.cancelled()
    assert await one.leases(None) == ()


@pytest.mark.parametrize("steps", range(40))
async def test_cancelled_at_each_await_nothing_is_held(tmp_path: Path, steps: int) -> None:
    """A lease cancelled after any number of loop turns is either whole and told, or not there."""
    one = service(tmp_path / "ledger", FakeNvml(gpu(0)), Clock())
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(one.lease(want()))
        for _ in range(steps):
            await asyncio.sleep(0.0002)
        task.cancel()
    told = [] if task.cancelled() else [task.result()]
    assert list(await one.leases(None)) == told
    await one.close()


async def test_a_ledger_that_fails_grants_nothing(one: Allocator, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the ledger cannot be written, the request fails and the device stays free."""

    def fail(*_: object, **__: object) -> None:
        raise LedgerUnavailable("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(one._ledger, "grant", fail)
        with pytest.raises(LedgerUnavailable):
            await one.lease(want())
    assert isinstance(await one.lease(want()), Lease)


async def test_a_busy_device_is_looked_at_again(tmp_path: Path, clock: Clock) -> None:
    """A process that ended since the last sweep does not hold a request up."""
    nvml = FakeNvml(gpu(0, pids=(5,)))
    one = service(tmp_path / "ledger", nvml, clock)
    assert isinstance(await one.lease(want()), Refusal)
    nvml.put(gpu(0))
    await held(one)
    await one.close()
