"""Sharing an image: who may, with whom, on record first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from host.users import Users
from observability.audit import AuditUnavailable
from policy.build import build_policy
from policy.model import Uid
from socket_proxy import grantees
from socket_proxy.image_owners import Reader
from socket_proxy.refusals import Refusal
from socket_proxy.sharing import ImageShares
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world
from tests.fakes.whole_proxy import UIDS, account

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

POLICY = build_policy(
    {
        "policy.yaml": "version: 1\ndefaults: {role: user}\ngroups:\n  lab: {members: [alice, bob]}\n  carol: {members: [bob]}\n"
    }
)
A = Reader(uid=ALICE.uid)


class Trail:
    """Remembers, or fails."""

    def __init__(self) -> None:
        self.noted: list[dict[str, Any]] = []
        self.full = False

    def note(self, record: dict[str, Any]) -> None:
        if self.full:
            raise AuditUnavailable("full")
        self.noted.append(record)


class Case:
    def __init__(self, world: ProxyWorld, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(grantees, "look_up_name", lambda name: account(UIDS.get(name, -1)))
        self.trail = Trail()
        self.world = world
        self.shares = ImageShares(
            owners=world.owners,
            facts=world.facts,
            users=Users(look_up=account, first_uid=1000),
            trail=cast("Any", self.trail),
            policy=lambda: POLICY,
        )
        world.owners.set_tag("a:1", ALICE.uid)
        world.owners.claim("sha256:1", ["a:1"], ALICE.uid)
        world.answers["GET /images/a:1/json"] = (200, {"Id": "sha256:1", "RepoTags": ["a:1"]})
        world.answers["GET /images/"] = (404, {"message": "no"})

    async def share(
        self, *grantees: str, image: str = "a:1", reader: Reader = A, ending: bool = False
    ) -> Mapping[str, Any] | Refusal:
        body = json.dumps({"image": image, "with": grantees}).encode()
        change = self.shares.unshare if ending else self.shares.share
        return await change(ALICE if reader is A else BOB, reader, body)


async def test_a_share_is_recorded_and_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Users and groups by name, everybody without one; and it ends for some or for all."""
    async with proxy_world(tmp_path) as world:
        case = Case(world, monkeypatch)
        assert await case.share("bob", "group:lab") == {"image": "a:1", "with": ["group:lab", "bob"]}
        assert world.owners.grantees("a:1") == ("group:lab", "user:1002")
        assert await case.share() == {"image": "a:1", "with": ["all", "group:lab", "bob"]}
        assert await case.share("bob", ending=True) == {"image": "a:1", "with": ["all", "group:lab"]}
        assert await case.share(ending=True) == {"image": "a:1", "with": []}
        events = [(each["event"], each["image"], each["with"]) for each in case.trail.noted]
        assert events[0] == ("image.shared", "a:1", ["user:1002", "group:lab"])
        assert events[-1] == ("image.unshared", "a:1", ["all", "group:lab"])


@pytest.mark.parametrize(
    ("grantee", "status", "words"),
    [("nobody-such", 404, "no user and no policy group"), ("carol", 400, "user:carol or group:carol"),
     ("user:lab", 404, "no user"), ("group:bob", 404, "no user"), ("uid:1", 404, "no user")],
)  # fmt: skip
async def test_a_grantee_must_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, grantee: str, status: int, words: str
) -> None:
    """Exactly one: nothing is shared with whoever comes to bear the name."""
    async with proxy_world(tmp_path) as world:
        case = Case(world, monkeypatch)
        refusal = await case.share("bob", grantee)
        assert isinstance(refusal, Refusal)
        assert refusal.status == status
        assert words in refusal.message
        assert world.owners.grantees("a:1") == ()
        assert case.trail.noted == []


async def test_only_a_makers_own_name_is_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another's image is absent; a shared one is not passed on, under whatever name."""
    async with proxy_world(tmp_path) as world:
        case = Case(world, monkeypatch)
        bob = Reader(uid=BOB.uid)
        absent = await case.share(reader=bob)
        assert isinstance(absent, Refusal)
        assert (absent.status, absent.message) == (404, "No such image: a:1")
        assert isinstance(await case.share(image="nothing"), Refusal)
        await case.share("bob")
        for tag in ("a:1", "b:1"):
            world.owners.set_tag("b:1", BOB.uid)
            tags = ["a:1", "b:1"]
            world.answers[f"GET /images/{tag}/json"] = (200, {"Id": "sha256:1", "RepoTags": tags})
            world.answers = dict(sorted(world.answers.items(), key=lambda item: -len(item[0])))
            refusal = await case.share(image=tag, reader=bob)
            assert isinstance(refusal, Refusal)
            assert (refusal.status, refusal.rules) == (403, ("image_shares",))


async def test_what_cannot_be_recorded_is_not_shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The audit line comes first."""
    async with proxy_world(tmp_path) as world:
        case = Case(world, monkeypatch)
        case.trail.full = True
        with pytest.raises(AuditUnavailable):
            await case.share()
        assert world.owners.grantees("a:1") == ()


async def test_both_sides_see_their_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Own names with readers; names of others with their owner; nothing for whom it is not."""
    async with proxy_world(tmp_path) as world:
        case = Case(world, monkeypatch)
        await case.share("group:lab")
        assert await case.shares.listed(A) == {"own": [{"image": "a:1", "with": ["group:lab"]}], "shared": []}
        lab = Reader(uid=BOB.uid, groups=frozenset({"lab"}))
        assert await case.shares.listed(lab) == {"own": [], "shared": [{"image": "a:1", "owner": "alice"}]}
        assert await case.shares.listed(Reader(uid=Uid(1003))) == {"own": [], "shared": []}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"image": 1}', b'{"image": "a:1", "for": ["x"]}'])
async def test_a_malformed_wish_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    """400, nothing recorded."""
    async with proxy_world(tmp_path) as world:
        case = Case(world, monkeypatch)
        refusal = await case.shares.share(ALICE, A, body)
        assert isinstance(refusal, Refusal)
        assert refusal.status == 400
