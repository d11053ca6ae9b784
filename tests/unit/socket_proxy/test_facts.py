"""References resolved among what an actor may see; absent and another's are one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import Kind, Reference, RequestId, Uid
from socket_proxy import facts
from socket_proxy.index import Entry
from socket_proxy.refusals import Unavailable
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

    from policy.model import Actor, ObjectFact

CONTAINER = "c" * 64


async def fact(
    world: ProxyWorld, kind: Kind, text: str, actor: Actor = ALICE, *, everything: bool = False
) -> ObjectFact | None:
    reference = Reference(kind=kind, text=text)
    world.facts.ready.set()
    return (await world.facts.gather(actor, (reference,), everything=everything)).objects[reference]


async def test_without_the_index_nothing_is_decided_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stale ownership is never used, and how much is in use is unknown rather than 0."""
    monkeypatch.setattr(facts, "_FIRST_READY_SECONDS", 0.01)
    async with proxy_world(tmp_path) as world:
        with pytest.raises(Unavailable):
            await world.facts.gather(ALICE, (Reference(kind=Kind.CONTAINER, text="x"),), everything=False)
        assert (await world.facts.gather(ALICE, (), everything=False)).usage.containers is None


async def test_a_container_being_made_counts_once(tmp_path: Path) -> None:
    """From the moment a create is let through, and no second time when dockerd has made the container."""
    async with proxy_world(tmp_path) as world:
        world.facts.ready.set()

        async def counted() -> int | None:
            return (await world.facts.gather(ALICE, (), everything=False)).usage.containers

        with world.facts.creating(ALICE, RequestId("r1")):
            assert await counted() == 1
            world.index.put(
                Entry(kind=Kind.CONTAINER, id=CONTAINER, name="c", owner=ALICE.uid, created_by="r1")
            )
            assert await counted() == 1
            with world.facts.creating(ALICE, RequestId("r2")):
                assert await counted() == 2
        assert await counted() == 1


@pytest.mark.parametrize("remembered", [True, False])
async def test_an_exec_is_its_containers_owners(tmp_path: Path, *, remembered: bool) -> None:
    """Its owner finds it, another user nothing, an admin what it is; dockerd is asked where the index does not tell."""
    async with proxy_world(tmp_path) as world:
        world.index.put(Entry(kind=Kind.CONTAINER, id=CONTAINER, name="c", owner=ALICE.uid))
        if remembered:
            world.index.remember_exec("x1", CONTAINER)
        world.answers["GET /exec/x1/json"] = (200, {"ContainerID": CONTAINER})
        found = await fact(world, Kind.EXEC, "x1")
        assert found is not None
        assert (found.owner, found.container) == (ALICE.uid, CONTAINER)
        assert await fact(world, Kind.EXEC, "x1", BOB) is None
        assert await fact(world, Kind.EXEC, "x1", BOB, everything=True) == found
        # One more than its owner needs: another's is asked for like one there is none of.
        assert len(world.asked) == (1 if remembered else 2)


async def test_an_exec_of_an_unknown_container_is_none(tmp_path: Path) -> None:
    """Not even an admin gets at what the index does not have."""
    async with proxy_world(tmp_path) as world:
        world.index.remember_exec("x1", "d" * 64)
        world.answers["GET /exec/x1/json"] = (200, {"ContainerID": "d" * 64})
        assert await fact(world, Kind.EXEC, "x1", everything=True) is None


@pytest.mark.parametrize(("kind", "path"), [(Kind.EXEC, "GET /exec/"), (Kind.IMAGE, "GET /images/")])
async def test_only_404_is_absent(tmp_path: Path, kind: Kind, path: str) -> None:
    """An engine that fails has not said that there is nothing."""
    async with proxy_world(tmp_path) as world:
        world.answers[path] = (404, {"message": "no such thing"})
        assert await fact(world, kind, "x1") is None
        world.answers[path] = (500, {"message": "broken"})
        with pytest.raises(Unavailable):
            await fact(world, kind, "x1")


@pytest.mark.parametrize(
    ("text", "tags", "makers", "owner", "shared"),
    [
        pytest.param("a:1", {"a:1": ALICE.uid, "b:1": BOB.uid}, (), ALICE.uid, True, id="by-its-tag"),
        pytest.param(
            "b:1", {"a:1": ALICE.uid, "b:1": BOB.uid}, (ALICE.uid,), BOB.uid, False, id="hidden-tag"
        ),
        pytest.param("sha256:1", {"a:1": ALICE.uid, "b:1": BOB.uid}, (), ALICE.uid, True, id="by-id-of-two"),
        pytest.param("sha256:1", {"b:1": BOB.uid}, (), BOB.uid, False, id="by-id-of-another"),
        pytest.param("n:1", {"a:1": ALICE.uid, "n:1": None}, (), None, True, id="nobodys-tag"),
        pytest.param("n:1", {"n:1": None}, (BOB.uid,), None, False, id="nobodys-tag-on-a-private-image"),
        pytest.param("sha256:1", {}, (ALICE.uid, BOB.uid), ALICE.uid, True, id="untagged-of-two-makers"),
        pytest.param("sha256:1", {}, (BOB.uid,), BOB.uid, False, id="untagged-of-another"),
        pytest.param("sha256:1", {}, (), None, False, id="untagged-of-nobody"),
    ],
)
async def test_whose_an_image_is(
    tmp_path: Path,
    text: str,
    tags: dict[str, Uid | None],
    makers: tuple[Uid, ...],
    owner: Uid | None,
    *,
    shared: bool,
) -> None:
    """A tag has one owner, an id everybody who has a part in it; what is another's is a fact, but not to read."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /images/"] = (200, {"Id": "sha256:1", "RepoTags": list(tags)})
        for tag, uid in tags.items():
            if uid is not None:
                world.owners.set_tag(tag, uid)
        for uid in makers:
            world.records.claim_image("sha256:1", uid)
        world.owners = world.facts._images = type(world.owners)(world.records)
        found = await fact(world, Kind.IMAGE, text)
        assert found is not None
        assert (found.owner, found.shared, found.id) == (owner, shared, "sha256:1")


@pytest.mark.parametrize(
    "text", ["../containers/x", "a//b", "a b", "a?b", "x\r\nHost: y", "", "a" * 600, "%41"]
)
async def test_no_reference_is_a_path_of_its_own(tmp_path: Path, text: str) -> None:
    """What could not be an image is absent without a question to dockerd."""
    async with proxy_world(tmp_path) as world:
        assert await fact(world, Kind.IMAGE, text) is None
        assert world.asked == []
