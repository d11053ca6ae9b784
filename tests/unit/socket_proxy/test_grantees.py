"""With whom something is shared: each word means one user or one group, or is refused."""

from __future__ import annotations

import pytest

from host.users import Users
from policy.build import build_policy
from policy.model import Uid
from socket_proxy import grantees
from socket_proxy.grantees import Grantees
from socket_proxy.refusals import Refusal
from tests.fakes.whole_proxy import UIDS, account

POLICY = build_policy(
    {"policy.yaml": "version: 1\ngroups: {lab: {members: [alice]}, carol: {members: [bob]}}\n"}
)


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Grantees:
    monkeypatch.setattr(grantees, "look_up_name", lambda name: account(UIDS.get(name, -1)))
    return Grantees(users=Users(look_up=account, first_uid=1000), policy=lambda: POLICY)


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("bob", "user:1002"),
        ("user:carol", "user:1003"),
        ("group:carol", "group:carol"),
        ("lab", "group:lab"),
        ("group:lab", "group:lab"),
    ],
)
async def test_a_word_means_one_thing(found: Grantees, name: str, means: str) -> None:
    """A user by uid, a group by name."""
    assert await found.find(name) == means


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("carol", 400),
        ("nobody", 404),
        ("user:lab", 404),
        ("group:bob", 404),
        ("all:bob", 404),
        ("", 404),
        ("all", 404),
    ],
)
async def test_what_means_two_things_or_none_is_refused(found: Grantees, name: str, status: int) -> None:
    """Nobody is guessed at."""
    refusal = await found.find(name)
    assert isinstance(refusal, Refusal)
    assert refusal.status == status


async def test_they_are_shown_by_login(found: Grantees) -> None:
    """An account that has gone is shown by its number."""
    assert [await found.shown(each) for each in ("user:1002", "user:9", "group:lab", "all")] == [
        "bob",
        "uid 9",
        "group:lab",
        "all",
    ]
    assert await found.name(Uid(1001)) == "alice"
