"""A user's default network is made once, as its user's, and found again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from policy.model import JoinOwnNetwork, Kind, RequestId
from policy.ownership import default_network
from socket_proxy.index import Entry
from socket_proxy.networks import OwnNetworks
from socket_proxy.refusals import Refusal
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

ID = "a" * 64
WANTED = JoinOwnNetwork(name=default_network(ALICE.uid))


def networks(world: ProxyWorld) -> OwnNetworks:
    return OwnNetworks(engine=world.engine, index=world.index, sealer=world.sealer)


async def test_two_creates_at_once_make_one_network(tmp_path: Path) -> None:
    """The second waits for the first, and gets what it made; the index knows whose it is."""
    async with proxy_world(tmp_path) as world:
        world.answers["POST /networks/create"] = (201, {"Id": ID})
        own = networks(world)
        found = await asyncio.gather(*(own.ensure(ALICE, WANTED, RequestId(f"r{n}")) for n in range(3)))
        assert found == [ID, ID, ID]
        assert world.asked == ["POST /networks/create"]
        entry = world.index.get(Kind.NETWORK, ID)
        assert entry is not None
        assert (entry.owner, entry.name) == (ALICE.uid, "u1001.bridge")


async def test_a_network_of_that_name_that_is_anothers_is_not_used(tmp_path: Path) -> None:
    """A name proves nothing: only what carries the user's seal is theirs."""
    async with proxy_world(tmp_path) as world:
        world.index.put(Entry(kind=Kind.NETWORK, id="b" * 64, name=WANTED.name, owner=BOB.uid))
        world.index.put(Entry(kind=Kind.NETWORK, id="c" * 64, name=WANTED.name, owner=None))
        world.answers["POST /networks/create"] = (
            409,
            {"message": "network with name u1001.bridge already exists"},
        )
        refusal = await networks(world).ensure(ALICE, WANTED, RequestId("r1"))
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.rules) == (503, ("network_mode",))
        assert "u1001" not in refusal.message


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("could not find an available, non-overlapping IPv4 address pool", "default-address-pools"),
        (f"overlaps with network {'b' * 64}", "engine's log"),
    ],
)
async def test_an_engine_that_cannot_make_it_is_said(tmp_path: Path, message: str, step: str) -> None:
    """With what the admin can do, and without the engine's own words, which may name others' networks."""
    async with proxy_world(tmp_path) as world:
        world.answers["POST /networks/create"] = (500, {"message": message})
        refusal = await networks(world).ensure(ALICE, WANTED, RequestId("r1"))
        assert isinstance(refusal, Refusal)
        assert step in refusal.message
        assert "b" * 64 not in refusal.message
