"""Who may see or use which container of another's now, and by what name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import ContainerId, Share
from tests.fakes.sharing_world import ALICE, BOB, BOX, CAROL, NOTHING, WEB, SharingWorld, by_policy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SharingWorld]:
    world = SharingWorld(tmp_path)
    yield world
    world.records.close()


async def test_what_is_granted_is_shared_with_the_grantee_alone(world: SharingWorld) -> None:
    """One container, one user, as much as was granted."""
    world.grant(share=Share.USE)
    bob, carol, alice = [await world.reader(uid) for uid in (BOB, CAROL, ALICE)]
    assert world.shared.share(bob, WEB) is Share.USE
    assert [world.shared.share(each, WEB) for each in (carol, alice)] == [Share.NONE] * 2
    assert world.shared.share(bob, BOX) is Share.NONE
    assert [entry.id for entry, _ in world.shared.all(bob)] == [WEB]
    assert world.shared.name(bob, WEB) == "alice.web"
    assert world.shared.name(carol, WEB) is None


async def test_a_grant_to_a_group_is_for_its_members(world: SharingWorld) -> None:
    """As policy has them at the moment of the look: the grant stays, the membership need not."""
    world.grant("group:lab")
    bob, carol = await world.reader(BOB), await world.reader(CAROL)
    assert world.shared.share(bob, WEB) is Share.VIEW
    assert world.shared.share(carol, WEB) is Share.NONE
    world.reload(NOTHING.replace("alice, bob", "alice, carol"))
    assert world.shared.share(bob, WEB) is Share.NONE, "also for a stream that was opened as a member"


@pytest.mark.parametrize("share", [Share.VIEW, Share.USE])
async def test_policy_shares_among_members(world: SharingWorld, share: Share) -> None:
    """Every container of a member's, with every other member; a reload ends it at once."""
    world.reload(by_policy(share))
    bob, carol = await world.reader(BOB), await world.reader(CAROL)
    assert {entry.id: level for entry, level in world.shared.all(bob)} == {WEB: share, BOX: share}
    assert list(world.shared.all(carol)) == []
    world.reload(NOTHING)
    assert list(world.shared.all(bob)) == []
    assert world.shared.share(bob, WEB) is Share.NONE


async def test_the_larger_of_grant_and_policy_counts(world: SharingWorld) -> None:
    """A grant adds to what policy gives, and takes nothing away."""
    world.reload(by_policy(Share.VIEW))
    world.grant(share=Share.USE)
    bob = await world.reader(BOB)
    assert (world.shared.share(bob, WEB), world.shared.share(bob, BOX)) == (Share.USE, Share.VIEW)
    world.now_ms = 60_000
    assert world.shared.share(bob, WEB) is Share.VIEW


async def test_a_share_is_of_a_container_and_its_owner(world: SharingWorld) -> None:
    """Gone with the container, and void if the container is found to be another's."""
    world.grant()
    bob = await world.reader(BOB)
    world.put(WEB, "web", owner=CAROL)
    assert world.shared.share(bob, WEB) is Share.NONE
    assert list(world.shared.all(bob)) == []
    assert world.shared.share(bob, "f" * 64) is Share.NONE


async def test_nobody_is_somebody_whom_nobody_asked_about(world: SharingWorld) -> None:
    """An account that is unknown, or was not looked up yet, shares nothing by policy."""
    world.reload(by_policy(Share.USE))
    reader = await world.reader(BOB)
    world.shared._people.clear()
    assert world.shared.share(reader, WEB) is Share.NONE
    world.shared._people[BOB] = None
    world.shared._people[ALICE] = None
    assert world.shared.share(reader, WEB) is Share.NONE


@pytest.mark.parametrize("text", ["alice.web", "/alice.web", "u1001.web", WEB, WEB[:12], "aaa"])
async def test_every_name_of_it_finds_it(world: SharingWorld, text: str) -> None:
    """The name that lists show, the one inside dockerd, the id and a part of it."""
    world.grant()
    found = world.shared.find(await world.reader(BOB), text)
    assert found is not None
    assert (found[0].id, found[1]) == (WEB, Share.VIEW)


@pytest.mark.parametrize("text", ["", "/", "web", "alice.box", "u1001.box", BOX, "abab", "alice.", "bob.web"])
async def test_nothing_else_finds_anything(world: SharingWorld, text: str) -> None:
    """What is not shared has no name, and what is has no shorter one."""
    world.grant()
    assert world.shared.find(await world.reader(BOB), text) is None


async def test_a_prefix_of_two_finds_neither(world: SharingWorld) -> None:
    """As dockerd has it."""
    world.grant()
    world.grant(container=BOX)
    assert world.shared.find(await world.reader(BOB), "a") is None


async def test_a_shared_name_never_captures_an_own_one(world: SharingWorld) -> None:
    """Bob's own `alice.web` stays his; the shared one shows under another name, which works as well."""
    world.grant()
    world.put("b" * 64, "alice.web", owner=BOB)
    bob = await world.reader(BOB)
    assert world.shared.find(bob, "alice.web") is None
    assert world.shared.name(bob, WEB) == "u1001.web"
    world.put("c" * 64, "u1001.web", owner=BOB)
    assert world.shared.name(bob, WEB) == WEB
    found = world.shared.find(bob, WEB)
    assert found is not None
    world.put("aa" + "c" * 62, "x", owner=BOB)
    assert world.shared.find(bob, "aa") is None, "a prefix of an own id is an own id's"


async def test_an_owner_cannot_name_a_container_into_anothers_sight(world: SharingWorld) -> None:
    """Whatever alice calls hers, what bob is shown begins with her login or uid."""
    for number, name in enumerate(["bob.web", "u1002.web", "root.x", "ffff"]):
        container = ContainerId(f"{number:064x}")
        world.put(container, name)
        world.grant(container=container)
        assert world.shared.name(await world.reader(BOB), container) == f"alice.{name}"


async def test_a_name_of_dockerds_own_is_prefixed_too(world: SharingWorld) -> None:
    """A container that was given no name."""
    world.put("d" * 64, "eager_curie", plain=True)
    world.grant(container=ContainerId("d" * 64))
    bob = await world.reader(BOB)
    assert world.shared.name(bob, "d" * 64) == "alice.eager_curie"
    assert world.shared.find(bob, "eager_curie") is None


async def test_admins_and_owners_have_no_need(world: SharingWorld) -> None:
    """They see by other rights, under other names."""
    world.grant()
    world.reload(by_policy(Share.USE))
    for reader in (await world.reader(BOB, everything=True), await world.reader(ALICE)):
        assert world.shared.share(reader, WEB) is Share.NONE
        assert list(world.shared.all(reader)) == []


async def test_where_nothing_is_shared_nobody_is_looked_up(world: SharingWorld) -> None:
    """The host's accounts are asked only when there is something to share."""
    world.users._look_up = lambda _: pytest.fail("looked up")
    await world.shared.refresh(BOB)
    assert world.shared.known() == ()
