"""A pull gives its puller the name, as docker does. The other ways to make and name images: integration/test_images.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.dockerapi.model import Operation
from socket_proxy.image_tags import Tags
from socket_proxy.images import Makers
from tests.fakes.policy_world import POLICY
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

PULLED, OLD = "sha256:" + "1" * 64, "sha256:" + "2" * 64
OWN = "ds01.invalid/u1001/busybox:latest"


def makers(world: ProxyWorld) -> Makers:
    return Makers(
        engine=world.engine,
        owners=world.owners,
        facts=world.facts,
        tags=Tags(owners=world.owners, facts=world.facts),
        policy=lambda: POLICY,
    )


def world_with(world: ProxyWorld, *, delete: int = 200) -> None:
    """Alice has an own `busybox`; a registry's is here as well."""
    world.owners.set_tag(OWN, ALICE.uid)
    world.answers[f"GET /images/{OWN}/json"] = (200, {"Id": OLD, "RepoTags": [OWN]})
    world.answers["GET /images/busybox:latest/json"] = (200, {"Id": PULLED, "RepoTags": ["busybox:latest"]})
    world.answers["GET /images/"] = (404, {"message": "no such image"})
    world.answers["POST /images/"] = (201, {})
    world.answers["DELETE /images/"] = (delete, [{"Untagged": OWN}] if delete == 200 else {"message": "no"})


async def test_a_pull_ends_the_own_name(tmp_path: Path) -> None:
    """It is moved onto the pulled image and taken off there, so that dockerd removes no image with it."""
    async with proxy_world(tmp_path) as world:
        world_with(world)
        pull, _ = transaction(Operation.IMAGE_CREATE, query={"fromImage": ("busybox",)})
        await makers(world).pulled(pull, "busybox:latest")
        assert [line for line in world.asked if not line.startswith("GET")] == [
            f"POST /images/{PULLED}/tag?repo=ds01.invalid%2Fu1001%2Fbusybox&tag=latest",
            f"DELETE /images/{OWN}?noprune=1",
        ]
        assert not world.owners.shadows(ALICE.uid, "busybox:latest")
        assert world.owners.is_public(PULLED, ["busybox:latest"])


@pytest.mark.parametrize(("actor", "everything"), [(BOB, False), (ALICE, True)], ids=["anothers", "admins"])
async def test_a_pull_ends_no_other_name(tmp_path: Path, actor: object, *, everything: bool) -> None:
    """Nobody else's; an admin has none."""
    async with proxy_world(tmp_path) as world:
        world_with(world)
        pull, _ = transaction(
            Operation.IMAGE_CREATE,
            query={"fromImage": ("busybox",)},
            actor=BOB if actor is BOB else ALICE,
            everything=everything,
        )
        await makers(world).pulled(pull, "busybox:latest")
        assert [line for line in world.asked if not line.startswith("GET")] == []
        assert world.owners.shadows(ALICE.uid, "busybox:latest")


async def test_an_own_name_that_cannot_be_taken_off_stays_on_record(tmp_path: Path) -> None:
    """And is what its user means, as before."""
    async with proxy_world(tmp_path) as world:
        world_with(world, delete=409)
        pull, _ = transaction(Operation.IMAGE_CREATE, query={"fromImage": ("busybox",)})
        await makers(world).pulled(pull, "busybox:latest")
        assert world.owners.shadows(ALICE.uid, "busybox:latest")


async def test_a_tag_from_before_is_still_its_owners(tmp_path: Path) -> None:
    """A plain one that the record knows: a pull of it stays private, and no local name is looked for in vain."""
    async with proxy_world(tmp_path) as world:
        world.owners.set_tag("busybox:latest", ALICE.uid)
        world.answers["GET /images/busybox:latest/json"] = (
            200,
            {"Id": PULLED, "RepoTags": ["busybox:latest"]},
        )
        world.answers["GET /images/"] = (404, {"message": "no such image"})
        pull, _ = transaction(Operation.IMAGE_CREATE, query={"fromImage": ("busybox",)})
        await makers(world).pulled(pull, "busybox:latest")
        assert world.owners.tag_owner("busybox:latest") == ALICE.uid
        assert world.owners.makers(PULLED) == {ALICE.uid}
