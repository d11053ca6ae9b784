"""A lease whose create ended uncertainly goes to the container that carries it, or back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.model import LeaseId
from socket_proxy.settle import Settlements
from tests.fakes.proxy_world import proxy_world

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_sealed_carrier_is_confirmed(tmp_path: Path) -> None:
    """The older of two carriers is the one the lease was for."""
    async with proxy_world(tmp_path) as world:
        labels = world.labels(lease="L1")
        world.answers["GET /containers/json"] = (
            200,
            [{"Id": "copy", "Created": 2, "Labels": labels}, {"Id": "first", "Created": 1, "Labels": labels}],
        )
        await Settlements(engine=world.engine, leaser=world.leaser, sealer=world.sealer)._settle(
            LeaseId("L1")
        )
        assert world.leaser.leases[LeaseId("L1")].container == "first"


async def test_a_forged_carrier_does_not_count(tmp_path: Path) -> None:
    """A lease label without a seal, as an image can bring it, holds no device."""
    async with proxy_world(tmp_path) as world:
        world.leaser.add("L1")
        forged = {**world.labels(lease="L2"), "ds01.lease": "L1"}
        world.answers["GET /containers/json"] = (200, [{"Id": "x", "Labels": forged}])
        await Settlements(engine=world.engine, leaser=world.leaser, sealer=world.sealer)._settle(
            LeaseId("L1")
        )
        assert world.leaser.state("L1") == "released"
