"""The image names that BuildKit writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import Actor
from socket_proxy.build_tags import BuildTags
from socket_proxy.image_tags import Tags
from tests.fakes.policy_world import POLICY
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

IMAGE = "sha256:" + "1" * 64


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ProxyWorld]:
    """`x/taken` is there, other names are free."""
    async with proxy_world(tmp_path) as running:
        running.facts.ready.set()
        running.answers["GET /images/x/taken"] = (200, {"Id": IMAGE, "RepoTags": ["x/taken:latest"]})
        running.answers["GET /images/"] = (404, {"message": "no such image"})
        yield running


def build_tags(
    world: ProxyWorld, writing: Tags, actor: Actor = ALICE, *, everything: bool = False
) -> BuildTags:
    return BuildTags(
        actor=actor,
        everything=everything,
        policy=lambda: POLICY,
        facts=world.facts,
        owners=world.owners,
        tags=writing,
    )


async def test_a_free_name_is_taken_and_owned(world: ProxyWorld) -> None:
    """From the moment it may be written, so that nobody loses it who leaves as the build ends."""
    tags = build_tags(world, Tags(owners=world.owners, facts=world.facts))
    assert await tags.reserve(("docker.io/library/mine",)) is None
    assert list(world.owners.owned_tags(ALICE.uid)) == ["ds01.invalid/u1001/mine:latest"]
    tags.built(("mine",), (IMAGE,))
    tags.release(("docker.io/library/mine",))
    assert world.owners.makers(IMAGE) == {ALICE.uid}


async def test_no_name_is_no_question(world: ProxyWorld) -> None:
    """A build without tags."""
    tags = build_tags(world, Tags(owners=world.owners, facts=world.facts))
    assert await tags.reserve(()) is None
    tags.release(())
    assert world.asked == []


@pytest.mark.parametrize("owner", [BOB, None], ids=["anothers", "nobodys"])
async def test_a_taken_name_is_refused(world: ProxyWorld, owner: Actor | None) -> None:
    """Another's, and a pulled one, as for the classic builder; nothing of the others is taken."""
    if owner is not None:
        world.owners.set_tag("x/taken:latest", owner.uid)
    writing = Tags(owners=world.owners, facts=world.facts)
    refusal = await build_tags(world, writing).reserve(("x/mine", "x/taken"))
    assert refusal is not None
    assert (refusal.rule, refusal.asked) == ("ownership", "x/taken")
    assert world.owners.tag_owner("x/mine:latest") is None
    assert await build_tags(world, writing, BOB).reserve(("x/mine",)) is None


async def test_ones_own_name_is_moved(world: ProxyWorld) -> None:
    """Building again is what builds are for."""
    world.owners.set_tag("x/taken:latest", ALICE.uid)
    assert await build_tags(world, Tags(owners=world.owners, facts=world.facts)).reserve(("x/taken",)) is None


async def test_of_two_users_one_writes_a_free_name(world: ProxyWorld) -> None:
    """Until the other's build is over; one's own second build may go on beside the first."""
    writing = Tags(owners=world.owners, facts=world.facts)
    alice, bob = build_tags(world, writing), build_tags(world, writing, BOB)
    assert await alice.reserve(("a/new", "a/x")) is None
    assert await alice.reserve(("a/new",)) is None
    refusal = await bob.reserve(("a/y", "a/new"))
    assert refusal is not None
    assert refusal.asked == "a/new:latest"
    alice.release(("a/new", "a/x"))
    assert await bob.reserve(("a/new",)) is not None
    alice.release(("a/new",))
    assert await bob.reserve(("a/y", "a/new", "a/x")) is None


async def test_two_users_write_one_local_name_at_once(world: ProxyWorld) -> None:
    """Each the own; nobody writes into the other's space, and the refusal is one for what is there and what is not."""
    writing = Tags(owners=world.owners, facts=world.facts)
    alice, bob = build_tags(world, writing), build_tags(world, writing, BOB)
    assert await alice.reserve(("app:1",)) is None
    assert await bob.reserve(("app:1",)) is None
    bob.built(("app:1",), (IMAGE,))
    for name in ("ds01.invalid/u1001/app:1", "docker.io/ds01.invalid/u1001/app:1", "DS01.invalid/u1001/none"):
        refusal = await bob.reserve((name,))
        assert refusal is not None
        assert refusal.rule == "names"
    for each in (alice, bob):
        each.release(("app:1",))


async def test_what_an_admin_tags_is_everybodys(world: ProxyWorld) -> None:
    """As with `docker tag`."""
    world.owners.set_tag("x/taken:latest", BOB.uid)
    tags = build_tags(
        world,
        Tags(owners=world.owners, facts=world.facts),
        Actor(uid=ALICE.uid, gid=ALICE.gid, name="root2"),
        everything=True,
    )
    assert await tags.reserve(("new",)) is None
    tags.built(("x/taken",), ())
    assert world.owners.tag_owner("x/taken:latest") is None
    assert world.owners.tag_owner("new:latest") is None
