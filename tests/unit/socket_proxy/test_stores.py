"""Who owns a network or a volume after its create, whatever dockerd answers."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from http1.errors import UpstreamLost
from policy.dockerapi.model import Operation
from policy.model import Kind, Uid
from socket_proxy.index import Entry
from socket_proxy.stores import Stores, refused_subnet
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world
from tests.fakes.transactions import Client, transaction

if TYPE_CHECKING:
    from pathlib import Path

    from socket_proxy.refusals import Refusal


def stores(world: ProxyWorld) -> Stores:
    return Stores(index=world.index, records=world.records, answers=world.answering, sealer=world.sealer)


async def make_volume(world: ProxyWorld, name: str = "data") -> tuple[Refusal | None, Client]:
    asked, client = transaction(Operation.VOLUME_CREATE, {"Name": name} if name else {})
    return await stores(world).create_volume(asked), client


def owner(world: ProxyWorld, kind: Kind, object_id: str) -> Uid | None:
    entry = world.index.get(kind, object_id)
    return entry.owner if entry else None


@pytest.mark.parametrize("name", ["data", ""])
async def test_a_new_volume_is_its_makers(tmp_path: Path, name: str) -> None:
    """Named or not, the index knows it when the client does."""
    made = name or "f" * 64
    async with proxy_world(tmp_path) as world:
        world.answers["POST /volumes/create"] = (201, {"Name": made, "Labels": world.labels()})
        refusal, client = await make_volume(world, name)
        assert (refusal, client.status) == (None, 201)
        assert owner(world, Kind.VOLUME, made) == ALICE.uid


async def test_anothers_volume_name_does_not_reach_dockerd(tmp_path: Path) -> None:
    """The index knows whose it is, so it is a 409 before anything is asked."""
    async with proxy_world(tmp_path) as world:
        world.index.put(Entry(kind=Kind.VOLUME, id="data", name="data", owner=BOB.uid))
        refusal, _ = await make_volume(world)
        assert refusal is not None
        assert (refusal.status, refusal.rules, world.asked) == (409, ("volume_names",), [])


@pytest.mark.parametrize("theirs", [True, False])
async def test_a_volume_that_was_there_is_not_handed_out(tmp_path: Path, *, theirs: bool) -> None:
    """dockerd answers 201 with another's volume; its seal tells, and the index learns whose it is."""
    async with proxy_world(tmp_path) as world:
        labels = world.labels(BOB) if theirs else None
        world.answers["POST /volumes/create"] = (201, {"Name": "data", "Labels": labels})
        refusal, client = await make_volume(world)
        assert refusal is not None
        assert (refusal.status, client.body) == (409, b"")
        assert owner(world, Kind.VOLUME, "data") == (BOB.uid if theirs else None)


async def test_a_refused_volume_is_nobodys(tmp_path: Path) -> None:
    """What dockerd did not make leaves no owner behind."""
    async with proxy_world(tmp_path) as world:
        world.answers["POST /volumes/create"] = (500, {"message": "no space"})
        refusal, client = await make_volume(world)
        assert (refusal, client.status) == (None, 500)
        assert world.index.get(Kind.VOLUME, "data") is None


@pytest.mark.parametrize("answer", ["lost", "unreadable"])
async def test_a_volume_without_an_answer_is_nobodys(tmp_path: Path, answer: str) -> None:
    """The volume may be another's that was there already, so the index does not keep the claim."""
    async with proxy_world(tmp_path) as world:
        if answer == "unreadable":
            world.answers["POST /volumes/create"] = (201, {"Nome": "data"})
        with pytest.raises((UpstreamLost, msgspec.ValidationError)):
            await make_volume(world)
        assert world.index.get(Kind.VOLUME, "data") is None


async def test_a_known_volume_stays_its_owners_without_an_answer(tmp_path: Path) -> None:
    """Creating one's own volume again and losing the engine does not lose the volume."""
    async with proxy_world(tmp_path) as world:
        world.index.put(Entry(kind=Kind.VOLUME, id="data", name="data", owner=ALICE.uid))
        with pytest.raises(UpstreamLost):
            await make_volume(world)
        assert owner(world, Kind.VOLUME, "data") == ALICE.uid


@pytest.mark.parametrize(("status", "left"), [(200, None), (409, ALICE.uid)])
async def test_a_volume_is_given_up_when_dockerd_says_so(
    tmp_path: Path, status: int, left: Uid | None
) -> None:
    """Index and record are one, and a volume in use stays in both."""
    async with proxy_world(tmp_path) as world:
        world.answers["DELETE /volumes/data"] = (status, {"message": "in use"})
        world.index.put(Entry(kind=Kind.VOLUME, id="data", name="data", owner=ALICE.uid))
        world.records.claim_volume("data", ALICE.uid)
        asked, client = transaction(Operation.VOLUME_DELETE, volume="data")
        await stores(world).delete_volume(asked)
        assert client.status == status
        assert owner(world, Kind.VOLUME, "data") == left
        assert world.records.volume_owner("data") == left


async def test_a_new_network_is_its_makers(tmp_path: Path) -> None:
    """Known by id and name, and the answer is passed on."""
    async with proxy_world(tmp_path) as world:
        world.answers["POST /networks/create"] = (201, {"Id": "d" * 64, "Warning": ""})
        asked, client = transaction(Operation.NETWORK_CREATE, {"Name": "net"})
        await stores(world).create_network(asked)
        assert (client.status, client.document["Id"]) == (201, "d" * 64)
        found = world.index.find(Kind.NETWORK, "net", ALICE.uid, everything=False)
        assert found is not None
        assert found.id == "d" * 64


async def test_a_refused_network_is_nobodys(tmp_path: Path) -> None:
    """dockerd's error goes on, and the index is as before."""
    async with proxy_world(tmp_path) as world:
        world.answers["POST /networks/create"] = (409, {"message": "network with name net already exists"})
        asked, client = transaction(Operation.NETWORK_CREATE, {"Name": "net"})
        await stores(world).create_network(asked)
        assert client.status == 409
        assert not world.index.ids(Kind.NETWORK)


@pytest.mark.parametrize(
    ("subnet", "refused"),
    [
        ("192.168.1.0/24", True),
        ("192.168.1.128/25", True),
        ("192.168.0.0/16", True),
        ("192.168.1.7/28", True),
        ("192.168.2.0/24", False),
        ("fd00::/80", True),
        ("fd01::/80", False),
        ("", False),
    ],
)
def test_a_network_in_the_machines_own_is_refused(subnet: str, *, refused: bool) -> None:
    """Whatever part of it, in either family; without a subnet the engine chooses."""
    in_use = [ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("fd00::/64")]
    body: dict[str, Any] = {"Name": "n", "IPAM": {"Config": [{"Subnet": subnet}]}}
    answer = refused_subnet(body, in_use)
    assert (answer is not None) is refused
    assert answer is None or (answer.status, answer.rules) == (403, ("network_options",))
