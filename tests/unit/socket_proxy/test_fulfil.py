"""A volume that a container names is made as its user's, or not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from observability.metrics import Metrics
from policy.model import EnsureVolume, Facts, Kind, ObjectFact, Reference, RequestId
from socket_proxy.fulfil import Fulfilled, Fulfiller
from socket_proxy.index import Entry
from socket_proxy.refusals import Refusal
from tests.fakes.proxy_world import ALICE, BOB, ENGINE, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path


REAL = "u1001.data"


async def ensure(world: ProxyWorld, known: ObjectFact | None = None) -> Fulfilled | Refusal:
    fulfiller = Fulfiller(
        engine=world.engine,
        index=world.index,
        sealer=world.sealer,
        leaser=world.leaser,
        metrics=Metrics(operation_classes=(), rules=()),
    )
    facts = Facts(engine=ENGINE, objects={Reference(kind=Kind.VOLUME, text="data"): known})
    return await fulfiller.fulfil(ALICE, (EnsureVolume(name="data"),), facts, RequestId("r1"))


async def test_a_missing_volume_is_made_as_the_users(tmp_path: Path) -> None:
    """What dockerd made carries the user's seal, and the index knows it."""
    async with proxy_world(tmp_path) as world:
        world.answers["POST /volumes/create"] = (201, {"Name": REAL, "Labels": world.labels(ALICE)})
        assert isinstance(await ensure(world), Fulfilled)
        entry = world.index.get(Kind.VOLUME, REAL)
        assert entry is not None
        assert entry.owner == ALICE.uid


@pytest.mark.parametrize("theirs", [True, False])
async def test_a_volume_that_was_there_already_is_not_handed_out(tmp_path: Path, *, theirs: bool) -> None:
    """dockerd answers 201 with another's volume; its labels tell, and the answer is a 409."""
    async with proxy_world(tmp_path) as world:
        labels = world.labels(BOB) if theirs else None
        world.answers["POST /volumes/create"] = (201, {"Name": REAL, "Labels": labels})
        refusal = await ensure(world)
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.rules) == (409, ("volume_names",))
        entry = world.index.get(Kind.VOLUME, REAL)
        assert entry is not None
        assert entry.owner == (BOB.uid if theirs else None)


async def test_a_volume_that_is_the_users_is_used(tmp_path: Path) -> None:
    """Whatever it is called inside dockerd: one from before names were per user is not made a second time."""
    async with proxy_world(tmp_path) as world:
        fact = ObjectFact(kind=Kind.VOLUME, id="data", owner=ALICE.uid, name="data")
        assert isinstance(await ensure(world, fact), Fulfilled)
        assert world.asked == []


async def test_what_another_made_in_the_users_namespace_is_not_used(tmp_path: Path) -> None:
    """Root can make a volume of any name; it is refused before dockerd is asked."""
    async with proxy_world(tmp_path) as world:
        world.index.put(Entry(kind=Kind.VOLUME, id=REAL, name=REAL, owner=None))
        refusal = await ensure(world)
        assert isinstance(refusal, Refusal)
        assert world.asked == []
