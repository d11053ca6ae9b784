"""Prune takes the caller's own, one by one, and reports what went."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from policy.dockerapi.model import Operation
from policy.model import ContainerId, Kind
from socket_proxy.binds import Binds
from socket_proxy.containers import Containers
from socket_proxy.image_removal import ImageRemoval
from socket_proxy.index import Entry
from socket_proxy.prune import Prunes
from socket_proxy.settle import Settlements
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

OWN, THEIRS, NOBODYS, BUSY = ("a" * 64, "b" * 64, "d" * 64, "c" * 64)
DAY = 86_400


async def pruned(world: ProxyWorld, operation: Operation, **how: Any) -> dict[str, Any]:
    answers = world.answering
    containers = Containers(
        engine=world.engine,
        index=world.index,
        leaser=world.leaser,
        approvals=None,
        stand_ins=None,
        answers=answers,
        binds=Binds(engine=world.engine, policy=cast("Any", None)),
        settlements=Settlements(engine=world.engine, leaser=world.leaser, sealed=world.sealed),
        facts=world.facts,
        owners=world.owners,
        adoptions=world.adoptions,
    )
    prunes = Prunes(
        engine=world.engine,
        index=world.index,
        facts=world.facts,
        records=world.records,
        removal=ImageRemoval(
            engine=world.engine, facts=world.facts, owners=world.owners, answers=world.answering
        ),
        containers=containers,
        answers=answers,
    )
    asked, client = transaction(operation, **how)
    assert await prunes.by_operation[operation](asked) is None
    assert client.status == 200
    report: dict[str, Any] = client.document
    return report


def known(world: ProxyWorld, kind: Kind) -> None:
    for object_id, owner in ((OWN, ALICE.uid), (BUSY, ALICE.uid), (THEIRS, BOB.uid), (NOBODYS, None)):
        world.index.put(Entry(kind=kind, id=object_id, name=object_id[:3], owner=owner))


def deleted(world: ProxyWorld) -> list[str]:
    return [line.partition("?")[0] for line in world.asked if line.startswith("DELETE")]


def filters(**given: list[str]) -> dict[str, tuple[str, ...]]:
    return {"filters": (json.dumps({name: dict.fromkeys(values, True) for name, values in given.items()}),)}


async def test_containers_of_others_stay(tmp_path: Path) -> None:
    """What another or nobody owns is not even tried; what runs again by now is left out of the report."""
    async with proxy_world(tmp_path) as world:
        known(world, Kind.CONTAINER)
        listed = [{"Id": each, "SizeRw": 5} for each in (OWN, THEIRS, NOBODYS, BUSY)]
        world.answers |= {
            "GET /containers/json": (200, listed),
            f"DELETE /containers/{OWN}": (200, {}),
            f"DELETE /containers/{BUSY}": (409, {"message": "running"}),
        }
        report = await pruned(world, Operation.CONTAINER_PRUNE)
        assert report == {"ContainersDeleted": [OWN], "SpaceReclaimed": 5}
        assert deleted(world) == [f"DELETE /containers/{OWN}", f"DELETE /containers/{BUSY}"]
        assert world.index.get(Kind.CONTAINER, OWN) is None
        assert world.index.get(Kind.CONTAINER, BUSY) is not None


async def test_an_admin_prunes_the_own_too(tmp_path: Path) -> None:
    """`docker container prune` by an admin does not empty everybody's."""
    async with proxy_world(tmp_path) as world:
        known(world, Kind.CONTAINER)
        world.answers["GET /containers/json"] = (200, [{"Id": THEIRS}])
        report = await pruned(world, Operation.CONTAINER_PRUNE, everything=True)
        assert report["ContainersDeleted"] in ([], None)
        assert deleted(world) == []


async def test_a_removed_containers_lease_goes_back(tmp_path: Path) -> None:
    """A pruned container holds no GPU."""
    async with proxy_world(tmp_path) as world:
        world.leaser.add("L1", state="active", container=OWN)
        lease = world.leaser.leases[next(iter(world.leaser.leases))].id
        world.index.put(
            Entry(kind=Kind.CONTAINER, id=ContainerId(OWN), name="a", owner=ALICE.uid, lease=lease)
        )
        world.answers |= {
            "GET /containers/json": (200, [{"Id": OWN}]),
            f"DELETE /containers/{OWN}": (200, {}),
        }
        await pruned(world, Operation.CONTAINER_PRUNE)
        assert world.leaser.state("L1") == "released"


async def test_filters_select(tmp_path: Path) -> None:
    """`label` and `until` are the client's, judged here."""
    async with proxy_world(tmp_path) as world:
        known(world, Kind.CONTAINER)
        world.answers["GET /containers/json"] = (
            200,
            [{"Id": OWN, "Labels": {"keep": "no"}}, {"Id": BUSY, "Labels": {"keep": "yes"}}],
        )
        world.answers["DELETE /containers/"] = (200, {})
        report = await pruned(world, Operation.CONTAINER_PRUNE, query=filters(label=["keep=no"]))
        assert report["ContainersDeleted"] == [OWN]


async def test_networks_of_others_stay(tmp_path: Path) -> None:
    """The report names networks by name, as dockerd's does."""
    async with proxy_world(tmp_path) as world:
        known(world, Kind.NETWORK)
        created = "2020-01-01T00:00:00Z"
        listed = [{"Id": each, "Name": each[:3], "Created": created} for each in (OWN, THEIRS, NOBODYS)]
        world.answers |= {"GET /networks": (200, listed), f"DELETE /networks/{OWN}": (200, {})}
        assert await pruned(world, Operation.NETWORK_PRUNE) == {"NetworksDeleted": ["aaa"]}
        assert deleted(world) == [f"DELETE /networks/{OWN}"]


@pytest.mark.parametrize(
    ("version", "query", "gone"),
    [
        ((1, 41), {}, ["anon", "named"]),
        ((1, 42), {}, ["anon"]),
        ((1, 42), filters(all=["true"]), ["anon", "named"]),
    ],
)
async def test_which_volumes_go(
    tmp_path: Path, version: tuple[int, int], query: dict[str, tuple[str, ...]], gone: list[str]
) -> None:
    """Named volumes went before 1.42 and go with `all` since; another's never."""
    async with proxy_world(tmp_path) as world:
        for name, owner in (("anon", ALICE.uid), ("named", ALICE.uid), ("theirs", BOB.uid)):
            world.index.put(Entry(kind=Kind.VOLUME, id=name, name=name, owner=owner))
        world.records.claim_volume("anon", ALICE.uid)
        sizes = {"Volumes": [{"Name": "anon", "UsageData": {"Size": 7}}, {"Name": "named"}]}
        world.answers |= {
            "GET /volumes": (200, {"Volumes": [{"Name": each} for each in ("anon", "named", "theirs")]}),
            "GET /system/df": (200, sizes),
            "DELETE /volumes/": (200, {}),
        }
        report = await pruned(world, Operation.VOLUME_PRUNE, version=version, query=query)
        assert report == {"VolumesDeleted": gone, "SpaceReclaimed": 7}
        assert world.records.volume_owner("anon") is None


async def test_images_of_others_stay(tmp_path: Path) -> None:
    """An image goes if every tag is the caller's; one that another made too is that one's alone from now on."""
    async with proxy_world(tmp_path) as world:
        world.owners.set_tag("a:1", ALICE.uid)
        world.owners.set_tag("b:1", BOB.uid)
        for image_id, makers in (("sha256:3", (ALICE,)), ("sha256:4", (ALICE, BOB))):
            for maker in makers:
                world.owners.claim(image_id, [], maker.uid)
        listed: list[dict[str, Any]] = [
            {"Id": "sha256:1", "RepoTags": ["a:1"], "Size": 3},
            {"Id": "sha256:2", "RepoTags": ["a:1", "b:1"]},
            {"Id": "sha256:3", "RepoTags": ["<none>:<none>"], "Size": 4},
            {"Id": "sha256:4"},
            {"Id": "sha256:5"},
        ]
        tags = {"sha256:1": ["a:1"], "sha256:2": ["a:1", "b:1"]}
        for image in listed:
            inspected = {"Id": image["Id"], "RepoTags": tags.get(image["Id"], [])}
            world.answers[f"GET /images/{image['Id']}/json"] = (200, inspected)
        world.answers |= {
            "GET /images/json": (200, listed),
            "DELETE /images/sha256:1": (200, [{"Untagged": "a:1"}, {"Deleted": "sha256:1"}]),
            "DELETE /images/sha256:3": (200, [{"Deleted": "sha256:3"}]),
        }
        report = await pruned(world, Operation.IMAGE_PRUNE)
        assert report["SpaceReclaimed"] == 7
        assert deleted(world) == ["DELETE /images/sha256:1", "DELETE /images/sha256:3"]
        assert world.owners.makers("sha256:4") == {BOB.uid}
        assert {"Deleted": "sha256:4"} in report["ImagesDeleted"]
