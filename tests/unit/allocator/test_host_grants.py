"""The record of grants: durable, one live grant for each user, time that nobody can stretch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from allocator import host_grants
from allocator.granted_devices import GrantedDevice
from allocator.host_grants import HostGrant, HostGrants
from allocator.model import LedgerUnavailable, Moment
from policy.model import DeviceUuid, Uid

ALICE, BOB = Uid(1000), Uid(1001)
NOON = 1_000_000.0
DEVICES = (
    GrantedDevice(uuid=DeviceUuid("GPU-1"), generation=1),
    GrantedDevice(uuid=DeviceUuid("MIG-2"), generation=4),
)
HOUR = 3600


def at(seconds: float, boot: str = "one") -> Moment:
    return Moment(utc=f"second {seconds:g} of {boot}", boottime_ms=int(seconds * 1000), boot_id=boot)


@pytest.fixture
def grants(tmp_path: Path) -> Iterator[HostGrants]:
    opened = HostGrants(tmp_path / "grants.sqlite")
    yield opened
    opened.close()


def give(grants: HostGrants, uid: Uid = ALICE, **changes: Any) -> HostGrant:
    given: dict[str, Any] = {
        "name": "alice",
        "devices": DEVICES,
        "seconds": HOUR,
        "by": "root",
        "reason": "profiling",
    }
    return grants.grant(uid=uid, **{**given, "now": at(100), "utc_seconds": NOON, **changes})


def test_a_grant_is_there_after_the_file_was_opened_again(tmp_path: Path) -> None:
    """All of it, devices with their generations and reason too."""
    first = HostGrants(tmp_path / "grants.sqlite")
    made = give(first)
    first.close()
    second = HostGrants(tmp_path / "grants.sqlite")
    assert second.live() == (made,)
    assert made.devices == DEVICES
    assert made.ends_utc == "1970-01-12T14:46:40Z"
    assert (made.ends_seconds, made.reason, made.granted_by) == (NOON + HOUR, "profiling", "root")
    second.close()


def test_a_user_has_one_live_grant(grants: HostGrants) -> None:
    """A second one takes the first one's place, and the first says so; the file itself refuses two."""
    first = give(grants)
    second = give(grants, by="carol")
    give(grants, BOB)
    assert [grant.number for grant in grants.live()] == [second.number, second.number + 1]
    (past,) = grants.past()
    assert (past.number, past.ended_by, past.ended_why) == (first.number, "carol", "replaced")
    with pytest.raises(sqlite3.IntegrityError):
        grants._base.execute("UPDATE grants SET ended_utc = NULL")


def test_what_is_over_stays_in_the_record(grants: HostGrants) -> None:
    """With who ended it and why, and the first end counts."""
    made = give(grants)
    grants.end(made.number, by="ds01", why="expired", now=at(4000))
    grants.end(made.number, by="root", why="again", now=at(5000))
    assert grants.live() == ()
    assert grants.of(ALICE) is None
    (past,) = grants.past()
    assert (past.ended_utc, past.ended_by, past.ended_why) == ("second 4000 of one", "ds01", "expired")


@pytest.mark.parametrize(
    ("now", "utc_seconds", "left"),
    [
        pytest.param(at(100), NOON, HOUR, id="at once"),
        pytest.param(at(700), NOON + 600, HOUR - 600, id="ten minutes later"),
        pytest.param(at(700), NOON + 10 * HOUR, HOUR - 600, id="the clock was set forward"),
        pytest.param(at(700), NOON - 10 * HOUR, HOUR - 600, id="the clock was set back"),
        pytest.param(at(100 + HOUR), NOON, 0, id="over"),
        pytest.param(at(5, "two"), NOON + 600, HOUR - 600, id="after a boot, the time of day"),
        pytest.param(at(5, "two"), NOON + 2 * HOUR, -HOUR, id="over while the machine was off"),
        pytest.param(at(5, "two"), NOON - 10 * HOUR, HOUR, id="a boot with a clock in the past"),
    ],
)
def test_how_long_a_grant_lasts(grants: HostGrants, now: Moment, utc_seconds: float, left: float) -> None:
    """By the clock of the boot; by the time of day only over a boot, and never more than there was."""
    assert give(grants).left(now=now, utc_seconds=utc_seconds) == left


def test_what_was_counted_is_not_given_back_by_a_boot(grants: HostGrants) -> None:
    """A machine whose clock stands still at every boot does not make a grant eternal."""
    made = give(grants)
    grants.count(made.number, 1200.0, now=at(2500))
    found = grants.of(ALICE)
    assert found is not None
    assert found.left(now=at(5, "two"), utc_seconds=NOON - HOUR) == 1200


def test_grants_by_file_of_an_earlier_ds01_are_over(tmp_path: Path) -> None:
    """A number of a file does not say for ever which GPU it is; a grant of everything goes on."""
    path = tmp_path / "grants.sqlite"
    with sqlite3.connect(path) as base:
        base.executescript(
            host_grants._SCHEMA.replace("devices TEXT", "nodes TEXT") + "PRAGMA user_version = 1;"
        )
        row = "INSERT INTO grants VALUES (?, ?, 'x', ?, 'root', 'why', 'then', 1003600, 3600, 100000, 'one', NULL, NULL, NULL)"
        base.executemany(row, [(1, ALICE, '[["/dev/nvidia1", "rw"]]'), (2, BOB, "[]")])
    base.close()
    opened = HostGrants(path)
    left = {grant.uid: grant.left(now=at(100), utc_seconds=NOON) for grant in opened.live()}
    assert left == {ALICE: 0, BOB: HOUR}
    give(opened, Uid(1002))
    assert [grant.devices for grant in opened.live()] == [(), (), DEVICES]
    opened.close()


def test_a_file_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """One of a newer ds01, one that is none, and one that went away under it."""
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as base:
        base.execute("PRAGMA user_version = 99")
    base.close()
    with pytest.raises(LedgerUnavailable, match="version 99"):
        HostGrants(newer)
    broken = tmp_path / "broken.sqlite"
    broken.write_bytes(b"no database at all, but long enough to be looked at" * 40)
    with pytest.raises(LedgerUnavailable, match="opened"):
        HostGrants(broken)
    closed = HostGrants(tmp_path / "closed.sqlite")
    closed.close()
    with pytest.raises(LedgerUnavailable, match="read"):
        closed.live()
    with pytest.raises(LedgerUnavailable, match="written"):
        closed.end(1, by="root", why="x", now=at(1))
