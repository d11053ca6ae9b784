"""A lease whose create ended uncertainly goes to the container that carries it, or back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from policy.model import LeaseId
from socket_proxy import settle
from socket_proxy.ports import LeaseOver
from socket_proxy.refusals import Unavailable
from socket_proxy.settle import Settlements
from tests.fakes.proxy_world import ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_a_sealed_carrier_is_confirmed(tmp_path: Path) -> None:
    """The older of two carriers is the one the lease was for."""
    async with proxy_world(tmp_path) as world:
        labels = world.labels(lease="L1")
        world.answers["GET /containers/json"] = (
            200,
            [{"Id": "copy", "Created": 2, "Labels": labels}, {"Id": "first", "Created": 1, "Labels": labels}],
        )
        await Settlements(engine=world.engine, leaser=world.leaser, sealed=world.sealed)._settle(
            LeaseId("L1")
        )
        assert world.leaser.leases[LeaseId("L1")].container == "first"


async def test_a_forged_carrier_does_not_count(tmp_path: Path) -> None:
    """A lease label without a seal, as an image can bring it, holds no device."""
    async with proxy_world(tmp_path) as world:
        world.leaser.add("L1")
        forged = {**world.labels(lease="L2"), "ds01.lease": "L1"}
        world.answers["GET /containers/json"] = (200, [{"Id": "x", "Labels": forged}])
        await Settlements(engine=world.engine, leaser=world.leaser, sealed=world.sealed)._settle(
            LeaseId("L1")
        )
        assert world.leaser.state("L1") == "released"


async def settled(world: ProxyWorld, monkeypatch: pytest.MonkeyPatch, problem: BaseException) -> Settlements:
    """Settlements that have met `problem` until they gave the lease up; without waiting for real."""
    monkeypatch.setattr(settle, "LIFETIME_MS", 0)
    monkeypatch.setattr(settle, "_MARGIN_MS", 0)
    monkeypatch.setattr(settle, "_TICK_SECONDS", 0.001)
    world.answers["GET /containers/json"] = (200, [])
    world.leaser.fails["release"] = problem
    settlements = Settlements(engine=world.engine, leaser=world.leaser, sealed=world.sealed)
    settlements.later(LeaseId("L1"))
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(settlements.run())
        while not world.leaser.forgotten:  # noqa: ASYNC110  the fake tells nobody
            await asyncio.sleep(0.001)
        running.cancel()
    return settlements


async def test_a_lease_that_the_allocator_does_not_know_is_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the loss of a ledger there is nothing to give back, and nothing is asked again."""
    async with proxy_world(tmp_path) as world:
        settlements = await settled(world, monkeypatch, LeaseOver("no such lease"))
        assert (list(settlements._due), world.leaser.forgotten) == ([], [LeaseId("L1")])


async def test_what_never_succeeds_is_left_to_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some tries the session says that it no longer works on the lease, and the allocator settles it."""
    async with proxy_world(tmp_path) as world:
        monkeypatch.setattr(settle, "_MOST_TRIES", 3)
        settlements = await settled(world, monkeypatch, Unavailable("disk full"))
        assert (list(settlements._due), world.leaser.forgotten) == ([], [LeaseId("L1")])
