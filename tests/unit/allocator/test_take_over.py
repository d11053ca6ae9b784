"""A lease for a container that ds01 did not make: what it has, as far as nobody else holds it, and when it ends."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Conflict
from allocator.model import LeaseState, Refusal, RefusalKind
from allocator.reconcile import Carrier
from allocator.take_over import TakenOver, TakeOver
from policy.model import ContainerId, Uid
from tests.fakes.fake_nvml import FakeNvml, gpu, mig, split
from tests.fakes.leasing import Clock, evidence, foreign, service, want

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.model import Lease
    from allocator.service import Allocator

OLD = ContainerId("f" * 64)
DEVICES = (gpu(0), gpu(1), *split(2, "3g.20gb", "1g.5gb"))


def wish(*, restarts: bool = False) -> TakeOver:
    return TakeOver(
        container=OLD,
        owner_uid=Uid(1000),
        owner_name="alice",
        groups=("students",),
        restarts=restarts,
        session="one",
        request_id="r" * 12,
    )


@pytest.fixture
async def allocator(tmp_path: Path, clock: Clock) -> AsyncIterator[Allocator]:
    one = service(tmp_path / "ledger", FakeNvml(*DEVICES), clock)
    await one.sweep()
    yield one
    await one.close()


async def taken(allocator: Allocator, *, restarts: bool = False) -> TakenOver:
    found = await allocator.take_over(wish(restarts=restarts))
    assert found is not None
    return found


async def leased(allocator: Allocator, *, restarts: bool = False) -> Lease:
    found = (await taken(allocator, restarts=restarts)).lease
    assert found is not None
    return found


async def test_it_holds_what_it_has(allocator: Allocator) -> None:
    """In its owner's name, for the limits of the owner and of groups, for as long as it is there."""
    allocator.foreign.tell([foreign("1", "2:1")])
    lease = await leased(allocator)
    assert lease.devices == (gpu(1).uuid, mig(2, 1).uuid)
    assert (lease.state, lease.container, lease.owner_uid) == (LeaseState.ACTIVE, OLD, 1000)
    assert (lease.groups, lease.equivalents, lease.seconds) == (("students",), Fraction(8, 7), None)
    assert await allocator.leases(Uid(1000)) == (lease,)
    refused = await allocator.lease(want(limit=2))
    assert isinstance(refused, Refusal)
    assert refused.kind is RefusalKind.LIMIT


async def test_a_second_time_gives_the_same(allocator: Allocator) -> None:
    """An answer that was lost is asked for again."""
    allocator.foreign.tell([foreign("0")])
    assert await leased(allocator) == await leased(allocator)


async def test_for_another_owner_there_is_no_second_lease(allocator: Allocator) -> None:
    """Nor the first one's: whoever the container is given to next waits until evidence has ended it."""
    allocator.foreign.tell([foreign("0")])
    first = await leased(allocator)
    with pytest.raises(Conflict, match="alice's"):
        await allocator.take_over(replace(wish(), owner_uid=Uid(1002), owner_name="bob"))
    assert await allocator.leases(None) == (first,)


async def test_of_a_split_gpu_the_parts_are_leased(allocator: Allocator) -> None:
    """All there are, where it has everything."""
    allocator.foreign.tell([foreign("0", "1", "2")])
    lease = await leased(allocator)
    assert lease.devices == tuple(sorted((gpu(0).uuid, gpu(1).uuid, mig(2, 0).uuid, mig(2, 1).uuid)))


async def test_what_another_holds_is_left_out(allocator: Allocator) -> None:
    """No device is in two leases; two containers from before ds01 may well have the same."""
    given = await allocator.lease(want(count=None, device_ids=("0",)))
    assert not isinstance(given, Refusal)
    allocator.foreign.tell([foreign("0", "1")])
    found = await taken(allocator)
    assert found.lease is not None
    assert (found.lease.devices, found.left_out) == ((gpu(1).uuid,), (gpu(0).uuid,))
    assert not (await taken(allocator)).left_out  # the lease is there already


@pytest.mark.parametrize("one", [foreign(), foreign("0", runs=False)], ids=["no GPU", "stopped"])
async def test_without_a_device_there_is_no_lease(allocator: Allocator, one: object) -> None:
    """And none for what is stopped: it has no device, and ds01 does not let it start."""
    allocator.foreign.tell([one])  # type: ignore[list-item]  # both are
    assert await taken(allocator) == TakenOver(lease=None)


async def test_nothing_is_known_of_what_was_not_told(allocator: Allocator) -> None:
    """A container of ds01's own is never among those."""
    assert await allocator.take_over(wish()) is None


@pytest.mark.parametrize(("restarts", "ends"), [(False, True), (True, False)])
async def test_it_ends_when_the_container_stops(
    allocator: Allocator, clock: Clock, *, restarts: bool, ends: bool
) -> None:
    """But not where the engine may start it again by itself: the devices would be another's by then."""
    allocator.foreign.tell([foreign("0")])
    lease = await leased(allocator, restarts=restarts)
    for state in ("running", "exited", "exited"):
        carrier = Carrier(container=OLD, lease=lease.id, owner_uid=Uid(1000), state=state)
        clock.seconds += 60
        await allocator.settle(evidence(clock(), carrier))
    found = await allocator.find(lease.id)
    assert found is not None
    assert found.state is (LeaseState.RELEASED if ends else LeaseState.HELD)


async def test_it_ends_when_the_container_is_gone(allocator: Allocator, clock: Clock) -> None:
    """Also when the proxy fell between the lease and its own record: then no container carries it."""
    allocator.foreign.tell([foreign("0")])
    lease = await leased(allocator, restarts=True)
    clock.seconds += 60
    await allocator.settle(evidence(clock()))
    found = await allocator.find(lease.id)
    assert found is not None
    assert found.state is LeaseState.RELEASED
