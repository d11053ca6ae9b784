"""The allocator's client against the allocator itself: what it says of leases whose answer was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from allocator.adoption import Ownership
from allocator.api import Api
from allocator.api_foreign import ForeignRoutes
from allocator.foreign_owners import ForeignOwners
from allocator.model import Lease as Granted
from allocator.model import LeaseState
from allocator.service import Allocator
from host.clock import boot_id, boottime_ms
from http1.errors import UpstreamUnavailable
from policy.model import ContainerId, LeaseGpus, LeaseId, RequestId, Uid
from socket_proxy.leases import AllocatorClient
from socket_proxy.ports import Asking, Held, Lease, LeaseOver, LeaseRefused
from socket_proxy.refusals import Unavailable
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, foreign, service, want

CONTAINER = ContainerId("c" * 64)
GRACE_SECONDS = 60


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def allocator(tmp_path: Path, clock: Clock) -> AsyncIterator[Allocator]:
    running = service(tmp_path / "ledger.sqlite", FakeNvml(gpu(0), gpu(1)), clock)
    yield running
    await running.close()


@pytest.fixture
async def client(tmp_path: Path, allocator: Allocator, clock: Clock) -> AsyncIterator[AllocatorClient]:
    path = tmp_path / "allocator.sock"
    trusted = frozenset({0})
    api = Api(allocator, trusted_uids=trusted, now=clock, new_id=lambda: LeaseId("r1"))
    unknown = ForeignOwners(lambda _: Ownership(owner=None, evidence=None, why=""))
    more = ForeignRoutes(allocator, unknown, trusted_uids=trusted, now=clock).routes()
    runner = web.AppRunner(api.application(*more), access_log=None)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    speaking = AllocatorClient(path)
    yield speaking
    await speaking.close()
    await runner.cleanup()


def _asking(client: AllocatorClient, clock: Clock) -> Asking:
    """What the client notes, by the allocator's clock of these tests."""
    now = clock()
    return replace(client.asking(), boot_id=now.boot_id, at_ms=now.boottime_ms)


async def _reserve(client: AllocatorClient) -> Lease:
    wish = LeaseGpus(count=1, device_ids=(), limit=8, wait_seconds=0)
    lease = await client.reserve(uid=Uid(1000), name="alice", want=wish, request_id=RequestId("r" * 12))
    assert isinstance(lease, Lease)
    return lease


async def test_a_user_is_told_of_the_leases_held(client: AllocatorClient) -> None:
    """What a user holds is read back as it was granted."""
    lease = await _reserve(client)
    assert await client.leases(Uid(1000)) == (lease,)
    assert await client.leases(Uid(1001)) == ()


async def _state(allocator: Allocator, lease: Lease) -> LeaseState:
    found = await allocator.find(lease.id)
    assert found is not None
    return found.state


async def test_a_lease_whose_answer_was_lost_is_taken_back(
    client: AllocatorClient, allocator: Allocator, clock: Clock
) -> None:
    """A grant this session never learned of (the allocator died while answering) is not held for ever."""
    lost = await allocator.lease(want(session=client.session))
    assert isinstance(lost, Granted)
    clock.seconds += GRACE_SECONDS
    await client.report((), _asking(client, clock))
    after = await allocator.find(lost.id)
    assert after is not None
    assert after.state is LeaseState.RELEASED


async def test_a_lease_at_work_is_kept(client: AllocatorClient, allocator: Allocator, clock: Clock) -> None:
    """However long its create takes, a lease this session still works on is not taken back."""
    lease = await _reserve(client)
    clock.seconds += GRACE_SECONDS
    await client.report((), _asking(client, clock))
    assert await _state(allocator, lease) is LeaseState.PENDING


async def test_what_is_at_work_is_noted_before_the_engine_is_asked(
    client: AllocatorClient, allocator: Allocator, clock: Clock
) -> None:
    """A lease that is confirmed or given up while the engine answers was worked on when it was asked; by this boot's clock."""
    lease = await _reserve(client)
    before, noted = boottime_ms(), client.asking()
    clock.seconds += GRACE_SECONDS
    asked = _asking(client, clock)
    client.forget(lease.id)
    await client.report((), asked)
    assert await _state(allocator, lease) is LeaseState.PENDING
    assert (noted.boot_id, set(noted.pending)) == (boot_id(), {lease.id})
    assert before <= noted.at_ms <= boottime_ms()


async def test_evidence_that_is_refused_is_not_sent(client: AllocatorClient, clock: Clock) -> None:
    """Whoever reports asks dockerd again."""
    with pytest.raises(Unavailable, match="another boot"):
        await client.report((), replace(_asking(client, clock), boot_id="another"))


async def test_a_confirmed_lease_is_its_containers(
    client: AllocatorClient, allocator: Allocator, clock: Clock
) -> None:
    """Once confirmed, the container decides: carried it stays, gone it ends."""
    lease = await _reserve(client)
    await client.confirm(lease.id, CONTAINER)
    clock.seconds += GRACE_SECONDS
    held = Held(container=CONTAINER, lease=lease.id, owner_uid=Uid(1000), state="running")
    await client.report((held,), _asking(client, clock))
    assert await _state(allocator, lease) is LeaseState.ACTIVE
    clock.seconds += GRACE_SECONDS
    await client.report((), _asking(client, clock))
    assert await _state(allocator, lease) is LeaseState.RELEASED


async def test_there_are_devices_until_nobody_can_say(
    client: AllocatorClient, allocator: Allocator, tmp_path: Path
) -> None:
    """Two GPUs are some, before NVML was asked there are none; an allocator that does not answer vouches for none."""
    assert not await client.has_devices()
    await allocator.sweep()
    assert await client.has_devices()
    (tmp_path / "allocator.sock").unlink()
    alone = AllocatorClient(tmp_path / "allocator.sock")
    assert not await alone.has_devices()
    await alone.close()


async def test_who_waits_while_the_allocator_restarts_keeps_its_place(
    client: AllocatorClient, allocator: Allocator, clock: Clock, tmp_path: Path
) -> None:
    """It asks again until its time is over, with the moment of its first asking."""
    first, _second = await _reserve(client), await _reserve(client)
    path = tmp_path / "allocator.sock"
    away = tmp_path / "away.sock"
    path.rename(away)  # as if it had stopped
    wish, another = LeaseGpus(count=1, limit=8, wait_seconds=30), AllocatorClient(path)
    async with asyncio.TaskGroup() as tasks:
        asking = tasks.create_task(
            another.reserve(uid=Uid(1001), name="bob", want=wish, request_id=RequestId("b" * 12))
        )
        await asyncio.sleep(0.1)
        away.rename(path)
        async with asyncio.timeout(5):
            while not len(allocator._line):  # noqa: ASYNC110  the line tells nobody
                await asyncio.sleep(0.01)
        (waiter,) = allocator._line.ordered({})
        assert waiter.entry.want.asked_ms is not None
        assert waiter.entry.want.wait_seconds < 30
        await client.release(first.id, "removed")
        lease = await asking
    await another.close()
    assert isinstance(lease, Lease)
    with pytest.raises(LeaseOver):
        await client.confirm(first.id, CONTAINER)
    assert not isinstance(await client.start(first.id, CONTAINER), Lease)


async def test_an_unconfirmed_lease_starts_its_container_and_no_other(client: AllocatorClient) -> None:
    """Whose confirm never came, or was lost with the power, is the first's that starts; from then on it is refused to others."""
    lease = await _reserve(client)
    started = await client.start(lease.id, CONTAINER)
    assert isinstance(started, Lease)
    assert (started.state, started.container) == ("active", CONTAINER)
    assert not isinstance(await client.start(lease.id, ContainerId("d" * 64)), Lease)


async def test_without_a_wait_an_absent_allocator_is_said_at_once(tmp_path: Path) -> None:
    """503 with the reason."""
    alone = AllocatorClient(tmp_path / "none.sock")
    wish = LeaseGpus(count=1, limit=8)
    refused = await alone.reserve(uid=Uid(1), name="a", want=wish, request_id=RequestId("b" * 12))
    assert isinstance(refused, LeaseRefused)
    assert refused.status == 503
    await alone.close()


async def _take_over(client: AllocatorClient) -> tuple[Lease | None, tuple[str, ...]] | LeaseRefused:
    return await client.take_over(
        foreign().id, uid=Uid(1000), name="alice", groups=("lab",), restarts=False, request_id="r" * 12
    )


async def test_what_an_older_container_has_is_leased(client: AllocatorClient, allocator: Allocator) -> None:
    """As much as is nobody else's; where the allocator knows of none, it says so."""
    await allocator.sweep()
    assert await _take_over(client) == LeaseRefused(
        status=404,
        message="ds01: no such container was told of; it may be new, try again in half a minute",
    )
    held = await _reserve(client)
    allocator.foreign.tell([foreign("0", "1")])
    taken = await _take_over(client)
    assert not isinstance(taken, LeaseRefused)
    lease, left_out = taken
    assert lease is not None
    assert (lease.state, lease.container, left_out) == ("active", foreign().id, held.devices)
    await client.release(lease.id, "taken back")
    allocator.foreign.tell([foreign()])
    assert await _take_over(client) == (None, ())


async def test_an_allocator_that_knows_no_containers_is_told_them_first(
    client: AllocatorClient, allocator: Allocator
) -> None:
    """It has just started, and would lease what a container has that ds01 did not make. The create goes on as if nothing were."""
    allocator.foreign._told = None  # as at a start
    told: list[int] = []

    async def tell() -> None:
        told.append(1)
        allocator.foreign.tell([foreign("0")])

    client.tell_containers = tell
    lease = await _reserve(client)
    assert (lease.devices, told) == ((gpu(1).uuid,), [1])
    allocator.foreign.tell(())
    await _reserve(client)
    assert told == [1]


async def test_where_they_cannot_be_told_nothing_is_leased(
    client: AllocatorClient, allocator: Allocator
) -> None:
    """The engine does not answer; the refusal says that it is not the user's doing."""
    allocator.foreign._told = None

    async def fail() -> None:
        raise UpstreamUnavailable

    for tell in (fail, client.tell_containers):
        client.tell_containers = tell
        wish = LeaseGpus(count=1, device_ids=(), limit=8, wait_seconds=0)
        refused = await client.reserve(uid=Uid(1000), name="alice", want=wish, request_id=RequestId("r" * 12))
        assert isinstance(refused, LeaseRefused)
        assert refused.status == 503
    assert await allocator.leases(None) == ()
