"""Sharing a container: who may, with whom, for how long, and on record first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from observability.audit import AuditUnavailable
from policy.model import Kind, Share
from socket_proxy import container_shares, grantees
from socket_proxy.grantees import Grantees
from socket_proxy.image_owners import Reader
from socket_proxy.refusals import Refusal
from socket_proxy.share_requests import ShareRequests
from tests.fakes.sharing_world import ALICE, BOB, CAROL, WEB, SharingWorld
from tests.fakes.whole_proxy import UIDS, account, actor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

NAMES = {uid: name for name, uid in UIDS.items()}


class Case:
    """The requests around a real record; the trail remembers, or fails."""

    def __init__(self, path: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(grantees, "look_up_name", lambda name: account(UIDS.get(name, -1)))
        self.world = SharingWorld(path)
        self.noted: list[dict[str, Any]] = []
        self.full = self.socket = False
        self.requests = ShareRequests(
            index=self.world.index,
            facts=cast("Any", self),
            granted=self.world.granted,
            shared=self.world.shared,
            execs=cast("Any", self),
            grantees=Grantees(users=self.world.users, policy=lambda: self.world.policy),
            trail=cast("Any", self),
        )

    async def wait_ready(self) -> None:
        """The index is."""

    async def leads_to_owner(self, *_: object) -> bool:
        return self.socket

    def note(self, record: dict[str, Any]) -> None:
        if self.full:
            raise AuditUnavailable("full")
        self.noted.append(record)

    async def change(
        self, verb: str, uid: int, everything: bool, **wish: object
    ) -> Mapping[str, Any] | Refusal:
        reader = await self.world.reader(cast("Any", uid), everything=everything)
        call = self.requests.share if verb == "share" else self.requests.unshare
        return await call(actor(NAMES[uid]), reader, json.dumps(wish).encode())

    async def share(
        self,
        *whom: str,
        uid: int = ALICE,
        container: str = "web",
        everything: bool = False,
        share: str = "view",
        seconds: int = 60,
    ) -> Mapping[str, Any] | Refusal:
        wish = {"container": container, "with": whom, "share": share, "seconds": seconds}
        return await self.change("share", uid, everything, **wish)

    async def unshare(
        self, *whom: str, uid: int = ALICE, container: str = "web", everything: bool = False
    ) -> Mapping[str, Any] | Refusal:
        return await self.change("unshare", uid, everything, container=container, **{"with": whom})

    def who(self) -> list[tuple[str, Share]]:
        return [(each.grantee, each.share) for each in self.world.granted.of(WEB)]


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    case = Case(tmp_path, monkeypatch)
    yield case
    case.world.records.close()


async def test_an_owner_shares_and_ends_it(case: Case) -> None:
    """With users and groups; each change is on record with who, what, with whom and for how long."""
    answer = await case.share("user:bob", "group:lab", share="use", seconds=3600)
    assert not isinstance(answer, Refusal)
    assert (answer["container"], answer["id"], answer["exec_refused"]) == ("web", WEB, False)
    assert [(each["who"], each["share"], each["left_seconds"]) for each in answer["with"]] == [
        ("group:lab", "use", 3600),
        ("bob", "use", 3600),
    ]
    assert case.who() == [("group:lab", Share.USE), ("user:1002", Share.USE)]
    assert case.noted == [
        {
            "event": "container.shared",
            "actor": "alice",
            "uid": ALICE,
            "container": WEB,
            "owner_uid": ALICE,
            "with": ["user:1002", "group:lab"],
            "share": "use",
            "seconds": 3600,
        }
    ]
    answer = await case.unshare("bob")
    assert not isinstance(answer, Refusal)
    assert [each["who"] for each in answer["with"]] == ["group:lab"]
    await case.unshare()
    assert case.who() == []
    assert [each["with"] for each in case.noted[1:]] == [["user:1002"], ["group:lab"]]


async def test_both_sides_see_their_list(case: Case) -> None:
    """The owner what is out; the grantee the name to use; a third nothing."""
    await case.share("bob")
    alice, bob, carol = [
        await case.requests.listed(await case.world.reader(uid)) for uid in (ALICE, BOB, CAROL)
    ]
    assert [each["container"] for each in alice["own"]] == ["web"]
    assert alice["shared"] == []
    assert bob == {
        "own": [],
        "shared": [{"container": "alice.web", "id": WEB, "owner": "alice", "share": "view"}],
    }
    assert carol == {"own": [], "shared": []}


@pytest.mark.parametrize("container", ["alice.web", WEB, WEB[:12]])
async def test_a_grantee_shares_nothing_on(case: Case, container: str) -> None:
    """Neither to a third nor for longer; the owner's alone, and so is its end."""
    await case.share("bob", share="use")
    for refusal in (
        await case.share("carol", uid=BOB, container=container),
        await case.share("alice", uid=BOB, container=container),
        await case.unshare(uid=BOB, container=container),
    ):
        assert isinstance(refusal, Refusal)
        assert (refusal.status, refusal.rules) == (403, ("share",))
    assert case.who() == [("user:1002", Share.USE)]


@pytest.mark.parametrize("container", ["alice.web", "web", WEB, "nosuchthing"])
async def test_what_is_not_shared_is_absent(case: Case, container: str) -> None:
    """For a third the container of another is none, in dockerd's words."""
    await case.share("bob")
    refusal = await case.share("alice", uid=CAROL, container=container)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.message) == (404, f"No such container: {container}")


async def test_an_admin_ends_shares_and_makes_none(case: Case) -> None:
    """What is another's to give is not an admin's; to take it away is."""
    await case.share("bob")
    refusal = await case.share("carol", uid=CAROL, container=WEB, everything=True)
    assert isinstance(refusal, Refusal)
    assert refusal.status in (400, 403)
    refusal = await case.share("bob", uid=CAROL, container=WEB, everything=True)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 403
    assert not isinstance(await case.unshare(uid=CAROL, container=WEB, everything=True), Refusal)
    assert case.who() == []


async def test_what_cannot_be_recorded_is_not_shared(case: Case) -> None:
    """The audit line comes first."""
    case.full = True
    with pytest.raises(AuditUnavailable):
        await case.share("bob")
    assert case.who() == []


async def test_a_bound_is_said_and_leaves_no_line(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 by the rule; the audit holds what was shared and nothing else."""
    monkeypatch.setattr(container_shares, "MOST_OF_CONTAINER", 1)
    await case.share("bob")
    refusal = await case.share("carol")
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.rules) == (403, ("share",))
    assert len(case.noted) == 1


async def test_the_owner_hears_that_exec_will_be_refused(case: Case) -> None:
    """When the container leads to the owner's Docker socket, and exec is what is shared."""
    case.socket = True
    told = [await case.share("bob", share=share) for share in ("view", "use")]
    assert [each["exec_refused"] for each in told if not isinstance(each, Refusal)] == [False, True]


@pytest.mark.parametrize(
    "wish",
    [
        b"",
        b"[]",
        b'{"container": 1}',
        b'{"container": "web", "with": ["bob"], "more": 1}',
        b'{"container": "web", "with": ["bob"], "share": "own"}',
        b'{"container": "web", "with": ["bob"], "share": "none"}',
        b'{"container": "web", "with": []}',
        b'{"container": "web", "with": ["alice"]}',
        b'{"container": "web", "with": ["bob"], "seconds": 0}',
        b'{"container": "web", "with": ["bob"], "seconds": -5}',
        b'{"container": "web", "with": ["bob"], "seconds": 2592001}',
        b'{"container": "web", "with": ["bob"], "seconds": 1e999}',
        b'{"container": "web", "with": [' + b",".join([b'"bob"'] * 33) + b"]}",
    ],
)
async def test_a_malformed_wish_is_refused(case: Case, wish: bytes) -> None:
    """400, nothing shared, nothing recorded."""
    refusal = await case.requests.share(actor("alice"), Reader(uid=ALICE), wish)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400
    assert case.noted == []
    assert case.who() == []


async def test_nothing_is_shared_with_everybody(case: Case) -> None:
    """`all` is for images; a container has names of users and groups."""
    refusal = await case.share("all")
    assert isinstance(refusal, Refusal)
    assert refusal.status == 404


async def test_the_end_goes_with_the_container(case: Case) -> None:
    """A new one of the same name is shared with nobody."""
    await case.share("bob")
    case.world.index.drop(Kind.CONTAINER, WEB)
    case.world.put("f" * 64, "web")
    assert (await case.requests.listed(await case.world.reader(ALICE)))["own"] == []
    assert (await case.requests.listed(await case.world.reader(BOB)))["shared"] == []
