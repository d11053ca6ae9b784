"""A tag is one user's from before dockerd hears of it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from policy.dockerapi.model import Operation
from socket_proxy.image_tags import EVERY_TAG, Tags, Writing
from socket_proxy.refusals import Refusal
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

    from policy.model import Actor

ABSENT = (404, {"message": "no"})
THERE = (200, {"Id": "sha256:1", "RepoTags": ["a:1"]})


class Case:
    def __init__(self, world: ProxyWorld) -> None:
        self.tags = Tags(owners=world.owners, facts=world.facts)

    async def begin(
        self,
        stack: AsyncExitStack,
        actor: Actor,
        *names: str,
        pulling: bool = False,
        everything: bool = False,
    ) -> Writing | Refusal:
        asked, _ = transaction(Operation.IMAGE_TAG, actor=actor, everything=everything)
        return await stack.enter_async_context(self.tags.writing(asked, *names, pulling=pulling))


async def test_a_free_tag_is_owned_before_it_is_written(tmp_path: Path) -> None:
    """So nobody reads what it names in between; and it is free again when dockerd refuses."""
    async with proxy_world(tmp_path) as world, AsyncExitStack() as stack:
        world.answers["GET /images/"] = ABSENT
        writing = await Case(world).begin(stack, ALICE, "a:1", "b")
        assert isinstance(writing, Writing)
        assert [world.owners.tag_owner(tag) for tag in ("a:1", "b:latest")] == [ALICE.uid, ALICE.uid]
        world.answers["GET /images/"] = THERE  # half of it was written after all
        await writing.undo()
        assert world.owners.tag_owner("a:1") == ALICE.uid
        world.answers["GET /images/"] = ABSENT
        await writing.undo()
        assert world.owners.tag_owner("a:1") is None


@pytest.mark.parametrize(
    ("owner", "pulling", "permitted"),
    [(None, False, False), (None, True, True), (ALICE, False, True), (BOB, False, False), (BOB, True, False)],
)
async def test_what_is_there_is_looked_at_again(
    tmp_path: Path, owner: Actor | None, *, pulling: bool, permitted: bool
) -> None:
    """Between the decision and the write somebody else may have made it."""
    async with proxy_world(tmp_path) as world, AsyncExitStack() as stack:
        world.answers["GET /images/"] = THERE
        if owner is not None:
            world.owners.set_tag("a:1", owner.uid)
        writing = await Case(world).begin(stack, ALICE, "a:1", pulling=pulling)
        assert isinstance(writing, Writing) == permitted
        assert world.owners.tag_owner("a:1") == (owner.uid if owner else None)


async def test_a_stale_owner_holds_nothing(tmp_path: Path) -> None:
    """A tag that is not there is free, whoever had it, and what was shared by it is not."""
    async with proxy_world(tmp_path) as world, AsyncExitStack() as stack:
        world.answers["GET /images/"] = ABSENT
        world.owners.set_tag("a:1", BOB.uid)
        world.owners.share("a:1", "all")
        assert isinstance(await Case(world).begin(stack, ALICE, "a:1"), Writing)
        assert (world.owners.tag_owner("a:1"), world.owners.grantees("a:1")) == (ALICE.uid, ())


async def test_one_writes_at_a_time(tmp_path: Path) -> None:
    """Another's write of the same tag is refused while it lasts; the own, and two pulls, are not."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /images/"] = ABSENT
        case = Case(world)
        async with AsyncExitStack() as stack:
            assert isinstance(await case.begin(stack, ALICE, "a:1"), Writing)
            assert isinstance(await case.begin(stack, ALICE, "a:1"), Writing)
            assert isinstance(await case.begin(stack, BOB, "a:1"), Refusal)
            assert isinstance(await case.begin(stack, BOB, "a:1", pulling=True), Refusal)
            assert isinstance(await case.begin(stack, BOB, f"a{EVERY_TAG}", pulling=True), Refusal)
            assert isinstance(await case.begin(stack, BOB, "a:2"), Writing)
        async with AsyncExitStack() as stack:
            for actor in (ALICE, BOB):
                assert isinstance(await case.begin(stack, actor, f"a{EVERY_TAG}", pulling=True), Writing)
            assert isinstance(await case.begin(stack, BOB, "a:1"), Refusal)
        async with AsyncExitStack() as stack:
            assert isinstance(await case.begin(stack, BOB, "a:1"), Writing)


async def test_an_admin_writes_for_everybody(tmp_path: Path) -> None:
    """Over anybody's tag, and owns none."""
    async with proxy_world(tmp_path) as world, AsyncExitStack() as stack:
        world.answers["GET /images/"] = THERE
        world.owners.set_tag("a:1", BOB.uid)
        assert isinstance(await Case(world).begin(stack, ALICE, "a:1", everything=True), Writing)
