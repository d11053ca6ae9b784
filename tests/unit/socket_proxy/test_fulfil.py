"""A volume that a container names is made as its user's, or not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import EnsureVolume, Kind, RequestId
from socket_proxy.fulfil import Fulfilled, Fulfiller
from socket_proxy.refusals import Refusal
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path


async def ensure(world: ProxyWorld) -> Fulfilled | Refusal:
    fulfiller = Fulfiller(engine=world.engine, index=world.index, sealer=world.sealer, leaser=world.leaser)
    return await fulfiller.fulfil(ALICE, (EnsureVolume(name="data"),), RequestId("r1"))


async def test_a_missing_volume_is_made_as_the_users(tmp_path: Path) -> None:
    """What dockerd made carries the user's seal, and the index knows it."""
    async with proxy_world(tmp_path) as world:
        world.answers["POST /volumes/create"] = (201, {"Name": "data", "Labels": world.labels(ALICE)})
        assert isinstance(await ensure(world), Fulfilled)
        entry = world.index.get(Kind.VOLUME, "data")
        assert entry is not None
        assert entry.owner == ALICE.uid


@pytest.mark.parametrize("theirs", [True, False])
async def test_a_volume_that_was_there_already_is_not_handed_out(tmp_path: Path, *, theirs: bool) -> None:
    """dockerd answers 201 with another's volume; its labels tell, and the answer is a 409."""
    async with proxy_world(tmp_path) as world:
        labels = world.labels(BOB) if theirs else None
        world.answers["POST /volumes/create"] = (201, {"Name": "data", "Labels": labels})
        refusal = await ensure(world)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.rules) == (409, ("volume_names",))
        entry = world.index.get(Kind.VOLUME, "data")
        assert entry is not None
        assert entry.owner == (BOB.uid if theirs else None)
