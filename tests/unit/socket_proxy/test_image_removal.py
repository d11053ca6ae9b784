"""docker rmi takes the user's part of an image, and dockerd the rest when nobody has one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from policy.dockerapi.model import Operation
from socket_proxy.image_removal import ImageRemoval
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world
from tests.fakes.transactions import Client, transaction

if TYPE_CHECKING:
    from pathlib import Path

    from socket_proxy.refusals import Refusal

ID = "sha256:" + "1" * 64


async def remove(world: ProxyWorld, text: str, *, force: bool = False) -> tuple[Refusal | None, Client]:
    removal = ImageRemoval(
        engine=world.engine, facts=world.facts, owners=world.owners, answers=world.answering
    )
    query = {"force": ("1",)} if force else {}
    asked, client = transaction(Operation.IMAGE_DELETE, image=text, query=query)
    return await removal.delete(asked), client


def image(world: ProxyWorld, tags: dict[str, Any], makers: tuple[Any, ...], **fields: Any) -> None:
    """One image with tags by owner, and its makers; deletes answer as dockerd does."""
    for tag, actor in tags.items():
        if actor is not None:
            world.owners.set_tag(tag, actor.uid)
    for actor in makers:
        world.owners.claim(ID, [], actor.uid)
    found = (200, {"Id": ID, "RepoTags": list(tags), **fields})
    for text in (ID, *tags):
        world.answers[f"GET /images/{text}/json"] = found
        world.answers[f"DELETE /images/{text}"] = (
            200,
            [{"Untagged": text}] if text != ID else [{"Deleted": ID}],
        )


def sent(world: ProxyWorld) -> list[str]:
    return [line for line in world.asked if not line.startswith("GET")]


@pytest.mark.parametrize("text", ["a:1", ID])
async def test_an_own_image_is_dockerds_to_remove(tmp_path: Path, text: str) -> None:
    """Nothing of it is another's; the record follows."""
    async with proxy_world(tmp_path) as world:
        image(world, {"a:1": ALICE}, (ALICE,))
        world.answers[f"DELETE /images/{text}"] = (200, [{"Untagged": "a:1"}, {"Deleted": ID}])
        assert (await remove(world, text))[1].status == 200
        assert sent(world) == [f"DELETE /images/{text}"]
        assert world.owners.tag_owner("a:1") is None


@pytest.mark.parametrize("text", ["a:1", ID])
async def test_what_is_also_anothers_stays(tmp_path: Path, text: str) -> None:
    """The own tag goes, the maker leaves, bob keeps both; the answer is that of a removal."""
    async with proxy_world(tmp_path) as world:
        image(world, {"a:1": ALICE, "b:1": BOB}, (ALICE, BOB))
        _, client = await remove(world, text)
        assert client.document == [{"Untagged": "a:1"}, {"Deleted": ID}]
        assert sent(world) == ["DELETE /images/a:1?noprune=1"]
        assert world.owners.makers(ID) == {BOB.uid}


async def test_the_last_name_is_replaced_by_one_of_the_other_maker(tmp_path: Path) -> None:
    """Else dockerd would remove what bob has without a name."""
    async with proxy_world(tmp_path) as world:
        image(world, {"a:1": ALICE}, (ALICE, BOB))
        world.answers[f"POST /images/{ID}/tag"] = (201, {})
        await remove(world, "a:1")
        assert [line.partition("?")[0] for line in sent(world)] == [
            f"POST /images/{ID}/tag",
            "DELETE /images/a:1",
        ]
        assert [tag.partition(":")[0] for tag in world.owners.owned_tags(BOB.uid)] == ["ds01/kept"]


async def test_one_of_two_own_names_is_just_taken_off(tmp_path: Path) -> None:
    """Alice still has it by the other."""
    async with proxy_world(tmp_path) as world:
        image(world, {"a:1": ALICE, "a:2": ALICE}, (ALICE, BOB))
        await remove(world, "a:1")
        assert sent(world) == ["DELETE /images/a:1"]
        assert world.owners.makers(ID) == {ALICE.uid, BOB.uid}


async def test_two_own_names_need_force(tmp_path: Path) -> None:
    """In dockerd's words, as it knows nothing of the third."""
    async with proxy_world(tmp_path) as world:
        image(world, {"a:1": ALICE, "c:1": ALICE, "b:1": BOB}, (ALICE, BOB))
        refusal, _ = await remove(world, ID)
        assert refusal is not None
        assert refusal.status == 409
        assert "must be forced" in refusal.message
        assert sent(world) == []
        _, client = await remove(world, ID, force=True)
        assert client.document == [{"Untagged": "a:1"}, {"Untagged": "c:1"}, {"Deleted": ID}]


@pytest.mark.parametrize(("maker", "noprune"), [(BOB, True), (ALICE, False), (None, False)])
async def test_a_parent_of_anothers_is_not_taken_along(tmp_path: Path, maker: Any, *, noprune: bool) -> None:
    """dockerd removes untagged parents with an image."""
    async with proxy_world(tmp_path) as world:
        image(world, {"a:1": ALICE}, (ALICE,), Parent="sha256:2")
        world.answers["GET /images/sha256:2/json"] = (200, {"Id": "sha256:2", "RepoTags": []})
        if maker is not None:
            world.owners.claim("sha256:2", [], maker.uid)
        await remove(world, "a:1")
        assert sent(world) == ["DELETE /images/a:1" + ("?noprune=1" if noprune else "")]


async def test_dockerds_no_is_passed_on(tmp_path: Path) -> None:
    """Without ids that are none of the user's business."""
    async with proxy_world(tmp_path) as world:
        image(world, {"a:1": ALICE, "b:1": BOB}, (ALICE, BOB))
        world.answers["DELETE /images/a:1"] = (409, {"message": "conflict: container " + "c" * 64})
        refusal, _ = await remove(world, "a:1")
        assert refusal is not None
        assert (refusal.status, refusal.message) == (409, "conflict: container (not yours)")
        assert world.owners.makers(ID) == {ALICE.uid, BOB.uid}
