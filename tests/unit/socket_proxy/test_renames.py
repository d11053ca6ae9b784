"""A renamed container answers to its new name, and loses no address by it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from policy.model import Kind
from socket_proxy.index import Entry
from socket_proxy.refusals import EngineError
from socket_proxy.renames import take_alias
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

BOX, NET, OTHER = "a" * 64, "b" * 64, "c" * 64
RENAMED = Entry(kind=Kind.CONTAINER, id=BOX, name="u1001.api", owner=ALICE.uid)
LEAVE, JOIN = f"POST /networks/{NET}/disconnect", f"POST /networks/{NET}/connect"


def known(world: ProxyWorld, networks: dict[str, Any], *, running: bool = False) -> None:
    """The container as dockerd knows it, in a world that has a network of alice's and the bridge."""
    world.index.put(Entry(kind=Kind.NETWORK, id=NET, name="u1001.app", owner=ALICE.uid))
    world.index.put(Entry(kind=Kind.NETWORK, id=OTHER, name="bridge", owner=None))
    inspected = {"State": {"Running": running}, "NetworkSettings": {"Networks": networks}}
    world.answers |= {f"GET /containers/{BOX}/json": (200, inspected), LEAVE: (200, {}), JOIN: (200, {})}


async def test_it_joins_its_own_networks_again(tmp_path: Path) -> None:
    """A predefined network has no names, so it stays as it is."""
    async with proxy_world(tmp_path) as world:
        asked = {"Aliases": ["web", "kept"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Links": None}
        known(world, {"u1001.app": asked | {"IPAddress": "10.0.0.9", "NetworkID": ""}, "bridge": {}})
        await take_alias(world.engine, world.index, RENAMED)
        assert world.asked == [f"GET /containers/{BOX}/json", LEAVE, JOIN]
        endpoint = {"Aliases": ["web", "kept", "api"], "IPAMConfig": {"IPv4Address": "10.0.0.9"}}
        assert json.loads(world.bodies[2]) == {"Container": BOX, "EndpointConfig": endpoint}


@pytest.mark.parametrize(
    ("running", "aliases"), [(True, ["web"]), (False, ["web", "api"])], ids=["running", "known already"]
)
async def test_it_stays_where_it_is(tmp_path: Path, aliases: list[str], *, running: bool) -> None:
    """A running container would lose its address and connections."""
    async with proxy_world(tmp_path) as world:
        known(world, {"u1001.app": {"Aliases": aliases}}, running=running)
        await take_alias(world.engine, world.index, RENAMED)
        assert world.asked == [f"GET /containers/{BOX}/json"]


@pytest.mark.parametrize(
    "entry",
    [replace(RENAMED, name="api"), replace(RENAMED, owner=None), replace(RENAMED, owner=BOB.uid)],
    ids=["from before", "unmanaged", "in another's namespace"],
)
async def test_dockerd_answers_itself_for_a_name_that_is_its_own(tmp_path: Path, entry: Entry) -> None:
    """Then nothing is asked."""
    async with proxy_world(tmp_path) as world:
        await take_alias(world.engine, world.index, entry)
        assert world.asked == []


async def test_a_network_that_cannot_be_left_is_told(tmp_path: Path) -> None:
    """The caller writes it down."""
    async with proxy_world(tmp_path) as world:
        known(world, {"u1001.app": {}})
        world.answers[LEAVE] = (500, {"message": "no"})
        with pytest.raises(EngineError):
            await take_alias(world.engine, world.index, RENAMED)
        assert JOIN not in world.asked
