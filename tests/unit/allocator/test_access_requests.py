"""Requests for access outside containers: what is read, what is refused, what is answered."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from allocator.access_requests import AccessRequests, Account, Malformed, read_user, read_wish
from allocator.model import Moment
from policy.model import Uid
from tests.fakes.fake_nvml import mig
from tests.fakes.host_access import ALICE, BOB, HOUR, World

ACCOUNTS = {
    "alice": Account(uid=ALICE, name="alice", is_person=True),
    "bob": Account(uid=BOB, name="bob", is_person=True),
    "daemon": Account(uid=Uid(1), name="daemon", is_person=False),
    "root": Account(uid=Uid(0), name="root", is_person=False),
}
WISH: dict[str, Any] = {"user": "alice", "seconds": HOUR, "reason": "profiling"}


class Asked(World):
    """A world with the requests in front of it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.accounts = dict(ACCOUNTS)
        self.requests = AccessRequests(
            self.access,
            account=self.account,
            now=lambda: Moment(utc="now", boottime_ms=int(self.seconds * 1000), boot_id=self.boot),
            utc_seconds=lambda: self.utc,
        )

    async def account(self, name: str) -> Account | None:
        return self.accounts.get(name)

    async def ask(self, **changes: Any) -> tuple[int, dict[str, Any]]:
        return await self.requests.grant({**WISH, **changes}, by="carol")


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    made = Asked(tmp_path)
    yield made
    await made.access.close()
    made.processes.close()


async def test_a_grant_is_given_shown_and_taken(asked: Asked) -> None:
    """With who gave it, why, and how long it lasts still; a user sees their own, an admin all."""
    status, given = await asked.ask()
    assert (status, given["user"], given["devices"], given["granted_by"]) == (201, "alice", [], "carol")
    await asked.ask(user="bob", devices=["2:1"])
    asked.pass_time(600)
    _, all_of_them = await asked.requests.grants(None)
    assert [one["user"] for one in all_of_them["grants"]] == ["alice", "bob"]
    _, own = await asked.requests.grants(BOB)
    (one,) = own["grants"]
    assert one["devices"] == [{"uuid": mig(2, 1).uuid, "index": "2:1"}]
    assert one["left_seconds"] == HOUR - 600
    assert (await asked.requests.revoke({"user": "bob"}, by="carol"))[0] == 200
    status, said = await asked.requests.revoke({"user": "bob"}, by="carol")
    assert status == 404
    assert "ds01 gpu grants" in said["message"]


@pytest.mark.parametrize(("user", "status"), [("nobody-here", 404), ("root", 409), ("daemon", 409)])
async def test_only_people_get_access(asked: Asked, user: str, status: int) -> None:
    """Slices of root and of system accounts are not closed, so there is nothing to give."""
    told, said = await asked.ask(user=user)
    assert told == status
    assert said["message"].startswith("ds01: ")
    assert asked.told() == []


async def test_where_sessions_are_open_there_is_nothing_to_grant(asked: Asked) -> None:
    """The admin is told what closes them."""
    (asked.directory / "closed").unlink()
    status, said = await asked.ask()
    assert status == 409
    assert "ds01 gpu sessions --close" in said["message"]
    assert asked.told() == []


async def test_systemds_words_reach_the_admin(asked: Asked) -> None:
    """503, with what failed: nothing was given, or it is not yet closed."""
    asked.fails = True
    status, said = await asked.ask()
    assert status == 503
    assert "no systemd" in said["message"]
    asked.fails = False
    await asked.ask()
    asked.fails = True
    status, said = await asked.requests.revoke({"user": "alice"}, by="carol")
    assert (status, "goes on trying" in said["message"]) == (503, True)


async def test_a_device_that_cannot_be_granted_is_named(asked: Asked) -> None:
    """409 with what there is, and 503 where its files cannot be told; an earlier grant stays."""
    await asked.ask(devices=["1"])
    for name, words in (("9", "no device is called '9'"), ("2", "name its MIG devices: 2:0, 2:1")):
        status, said = await asked.ask(devices=[name])
        assert (status, words in said["message"]) == (409, True)
    asked.table.missing = {7}
    status, said = await asked.ask(devices=["2:0"])
    assert (status, "no capability of instance 7" in said["message"]) == (503, True)
    _, left = await asked.requests.grants(None)
    assert [one["index"] for one in left["grants"][0]["devices"]] == ["1"]


async def test_a_device_that_has_gone_is_shown_without_an_index(asked: Asked) -> None:
    """So is every one while NVML does not answer."""
    await asked.ask(devices=["1"])
    asked.devices.problem = "no driver"
    _, told = await asked.requests.grants(None)
    (one,) = told["grants"]
    assert [device["index"] for device in one["devices"]] == [None]


async def test_access_of_an_account_that_is_gone_can_be_taken(asked: Asked) -> None:
    """By the name it was given to."""
    await asked.ask()
    del asked.accounts["alice"]
    assert (await asked.requests.revoke({"user": "alice"}, by="carol"))[0] == 200


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seconds": 59}, "seconds"),
        ({"seconds": True}, "seconds"),
        ({"seconds": 60.5}, "seconds"),
        ({"reason": ""}, "reason"),
        ({"reason": "  "}, "reason"),
        ({"reason": "two\nlines"}, "reason"),
        ({"user": "a b"}, "user"),
        ({"user": 1000}, "user"),
        ({"devices": [0]}, "devices"),
        ({"devices": ["2 1"]}, "devices"),
        ({"devices": [""]}, "devices"),
        ({"devices": "0"}, "devices"),
        ({"devices": ["0"] * 65}, "devices"),
        ({"by": "root"}, "by"),
    ],
)
def test_each_mistake_names_its_field(changes: dict[str, Any], field: str) -> None:
    """Nobody says in a body who they are."""
    with pytest.raises(Malformed, match=f"^{field}: "):
        read_wish({**WISH, **changes})


def test_a_field_that_is_missing_is_named() -> None:
    """Of a grant and of a revoke."""
    with pytest.raises(Malformed, match=r"^reason: missing"):
        read_wish({"user": "alice", "seconds": HOUR})
    with pytest.raises(Malformed, match=r"^user: missing"):
        read_user({})
    assert read_wish({**WISH, "devices": ["3", "2:1"]}).devices == ("3", "2:1")
