"""References resolved among what an actor may see; absent and another's are one answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import Kind, Reference, RequestId, Uid
from socket_proxy import facts
from socket_proxy.facts import normal_tag
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
    """Its owner finds it, another user nothing, an admin what it is; dockerd is asked once at most."""
    async with proxy_world(tmp_path) as world:
        world.index.put(Entry(kind=Kind.CONTAINER, id=CONTAINER, name="c", owner=ALICE.uid))
        if remembered:
            world.index.remember_exec("x1", CONTAINER)
        else:
            world.answers["GET /exec/x1/json"] = (200, {"ContainerID": CONTAINER})
        found = await fact(world, Kind.EXEC, "x1")
        assert found is not None
        assert (found.owner, found.container) == (ALICE.uid, CONTAINER)
        assert await fact(world, Kind.EXEC, "x1", BOB) is None
        assert await fact(world, Kind.EXEC, "x1", BOB, everything=True) == found
        assert len(world.asked) == (0 if remembered else 1)


async def test_an_exec_of_an_unknown_container_is_none(tmp_path: Path) -> None:
    """Not even an admin gets at what the index does not have."""
    async with proxy_world(tmp_path) as world:
        world.index.remember_exec("x1", "d" * 64)
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
    ("text", "tags", "owners", "owner"),
    [
        pytest.param("a:1", {"a:1": ALICE.uid, "b:1": BOB.uid}, (), ALICE.uid, id="by-its-tag"),
        pytest.param("sha256:1", {"a:1": ALICE.uid, "b:1": BOB.uid}, (), None, id="by-id-of-two"),
        pytest.param("sha256:1", {"a:1": ALICE.uid, "b:1": ALICE.uid}, (), ALICE.uid, id="by-id-of-one"),
        pytest.param("sha256:1", {"a:1": ALICE.uid, "b:1": None}, (), None, id="by-id-partly-nobodys"),
        pytest.param("sha256:1", {}, (ALICE.uid, BOB.uid), ALICE.uid, id="untagged-of-two-makers"),
        pytest.param("sha256:1", {}, (BOB.uid,), BOB.uid, id="untagged-of-another"),
        pytest.param("sha256:1", {}, (), None, id="untagged-of-nobody"),
        pytest.param("sha256:1", {"a:1": BOB.uid}, (ALICE.uid,), BOB.uid, id="tags-before-makers"),
    ],
)
async def test_who_may_move_an_image(
    tmp_path: Path, text: str, tags: dict[str, Uid | None], owners: tuple[Uid, ...], owner: Uid | None
) -> None:
    """A tag has one owner; an id needs all its tags, since removing by id takes them all."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /images/"] = (200, {"Id": "sha256:1", "RepoTags": list(tags)})
        for tag, uid in tags.items():
            if uid is not None:
                world.records.set_tag(tag, uid)
        for uid in owners:
            world.records.claim_image("sha256:1", uid)
        found = await fact(world, Kind.IMAGE, text)
        assert found is not None
        assert (found.owner, found.shared, found.id) == (owner, True, "sha256:1")


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox", "busybox:latest"),
        ("docker.io/alice/x:1", "alice/x:1"),
        ("index.docker.io/library/busybox:1", "busybox:1"),
        ("host:5000/x", "host:5000/x:latest"),
        ("host:5000/x:2", "host:5000/x:2"),
        ("x@sha256:1", "x@sha256:1"),
    ],
)
def test_one_image_has_one_spelling(text: str, tag: str) -> None:
    """Ownership by tag would be lost with a second spelling."""
    assert normal_tag(text) == tag
    assert normal_tag(tag) == tag
