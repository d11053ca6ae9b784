"""An admin's orders and what looks bring, in what everybody sees of the devices at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.model import DeviceState, Lease, LeaseState, Refusal
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, service, want

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.service import Allocator

ORDER = {"who": "root", "why": "a new cooler"}


@pytest.fixture
async def allocator(tmp_path: Path, nvml: FakeNvml) -> AsyncIterator[Allocator]:
    one = service(tmp_path / "ledger", nvml, Clock())
    await one.sweep()
    yield one
    await one.close()


def state(allocator: Allocator) -> DeviceState:
    assert allocator.watch.snapshot is not None
    return allocator.watch.snapshot.devices[gpu(0).uuid].state


async def test_an_order_counts_at_once(allocator: Allocator) -> None:
    """Without another look at NVML, and it is taken back in the same way; of what is not there nothing is done."""
    upkeep, looks = allocator.upkeep, allocator.watch.looks
    assert not await upkeep.quarantine(gpu(1).uuid, **ORDER)
    assert not await upkeep.release(gpu(0).uuid, **ORDER)
    assert await upkeep.quarantine(gpu(0).uuid, **ORDER)
    assert (state(allocator), allocator.watch.looks) == (DeviceState.QUARANTINED, looks)
    assert isinstance(await allocator.lease(want()), Refusal)
    assert await upkeep.release(gpu(0).uuid, **ORDER)
    assert state(allocator) is DeviceState.OK
    assert isinstance(await allocator.lease(want()), Lease)


async def test_a_look_that_misses_a_device_costs_its_lease(allocator: Allocator, nvml: FakeNvml) -> None:
    """And its holder is told; who had an intruder is told of that, and of nobody's name."""
    held = await allocator.lease(want())
    assert isinstance(held, Lease)
    await allocator.upkeep.tell_of_intruder(held.id, gpu(0).uuid)
    assert "not yours" in (allocator.upkeep.note(held.id) or "")
    nvml.take(gpu(0).uuid)
    await allocator.sweep()
    (lease,) = await allocator.leases(None)
    assert lease.state is LeaseState.LOST
    assert "is gone" in (allocator.upkeep.note(held.id) or "")
