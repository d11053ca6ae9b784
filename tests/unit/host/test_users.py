"""Accounts of the host, remembered for a moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from host.users import Account, Users, look_up_name, look_up_uid, uid_min
from policy.model import Door, Gid, Uid

if TYPE_CHECKING:
    from pathlib import Path

ALICE = Account(
    uid=Uid(1000),
    gid=Gid(1000),
    name="alice",
    groups=frozenset({"lab"}),
    gids=frozenset({1000, 50}),
    home="/h/a",
)


class Nss:
    """An account database that counts its questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 0.0
        self.account: Account | None = ALICE

    def look_up(self, uid: int) -> Account | None:
        self.asked += 1
        return self.account if uid == 1000 else None

    def users(self) -> Users:
        return Users(look_up=self.look_up, clock=lambda: self.now, first_uid=1000)


def test_root_is_found_by_uid_and_name() -> None:
    """With its primary group among the groups."""
    account = look_up_uid(0)
    assert account is not None
    assert (account.name, account.gid in account.gids) == ("root", True)
    assert look_up_name("root") == account


@pytest.mark.parametrize("name", ["", "no-such-user", "a\x00b"])
def test_unknown_names_are_none(name: str) -> None:
    """Nobody is made up."""
    assert look_up_name(name) is None
    assert look_up_uid(4_000_000_001) is None


def test_an_account_becomes_an_actor() -> None:
    """All that rules may ask of a person."""
    actor = ALICE.actor(door=Door.FRONT)
    assert (actor.uid, actor.name, actor.groups, actor.gids, actor.home) == (
        1000, "alice", ALICE.groups, ALICE.gids, "/h/a",
    )  # fmt: skip
    assert (actor.door, actor.peer_container, actor.login_uid) == (Door.FRONT, None, None)


def test_an_account_is_remembered_for_thirty_seconds() -> None:
    """One question to NSS, then memory, then NSS again."""
    nss = Nss()
    users = nss.users()
    assert users.known(1000) is None
    assert users.get(1000) == users.get(1000) == users.known(1000) == ALICE
    assert nss.asked == 1
    nss.now = 30.0
    nss.account = None
    assert users.known(1000) is None
    assert users.get(1000) is None


def test_nobody_is_not_remembered() -> None:
    """A new account works at once."""
    nss = Nss()
    users = nss.users()
    nss.account = None
    assert users.get(1000) is None
    nss.account = ALICE
    assert users.get(1000) == ALICE


async def test_finding_does_not_block() -> None:
    """The same answer, from a thread."""
    users = Nss().users()
    assert await users.find(1000) == ALICE
    assert await users.find(1001) is None
    users.forget()
    assert users.known(1000) is None


@pytest.mark.parametrize(
    ("uid", "system"), [(0, True), (999, True), (1000, False), (60000, False), (65534, True)]
)
def test_services_are_no_people(uid: int, system: bool) -> None:
    """Below UID_MIN, and nobody."""
    assert Nss().users().is_system(uid) is system


@pytest.mark.parametrize(
    ("text", "expected"),
    [("UID_MIN\t\t500\n", 500), ("#UID_MIN 5\nSYS_UID_MIN 7\n", 1000), ("UID_MIN x\n", 1000), (None, 1000)],
)
def test_the_first_uid_is_read_from_login_defs(tmp_path: Path, text: str | None, expected: int) -> None:
    """Comments and near names do not count; 1000 when it does not say."""
    path = tmp_path / "login.defs"
    if text is not None:
        path.write_text(text)
    assert uid_min(path) == expected
