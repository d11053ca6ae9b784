"""Ownership by record: who owns what survives a restart, and a lost file is an outage."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

import pytest

from policy.model import Uid
from socket_proxy.records import Records, RecordsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE, BOB = Uid(1001), Uid(1002)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(tmp_path / "records.sqlite")
    yield opened
    opened.close()


def test_what_is_recorded_is_there_after_a_restart(tmp_path: Path, records: Records) -> None:
    """A second opening of the file, with the first never closed, reads all of it."""
    records.set_tag("a:1", ALICE)
    records.claim_image("sha256:1", BOB)
    records.publish_image("sha256:2")
    records.share_tag("a:1", "all")
    records.claim_volume("v", ALICE)
    again = Records(tmp_path / "records.sqlite")
    try:
        assert again.tags() == {"a:1": ALICE}
        assert again.makers() == [("sha256:1", BOB)]
        assert again.public_images() == ["sha256:2"]
        assert again.shares() == [("a:1", "all")]
        assert again.volume_owner("v") == ALICE
    finally:
        again.close()


def test_a_tag_is_its_last_writers(records: Records) -> None:
    """The rules decide who may write; the record follows."""
    records.set_tag("a:1", ALICE)
    records.set_tag("a:1", BOB)
    records.share_tag("a:1", "user:1001")
    assert records.tags() == {"a:1": BOB}
    records.drop_tag("a:1")
    assert (records.tags(), records.shares()) == ({}, [])


def test_an_image_has_every_maker(records: Records) -> None:
    """The same image made by two is both's, until it is gone."""
    for uid in (ALICE, BOB, ALICE):
        records.claim_image("sha256:1", uid)
    assert set(records.makers()) == {("sha256:1", ALICE), ("sha256:1", BOB)}
    records.disclaim_image("sha256:1", ALICE)
    assert records.makers() == [("sha256:1", BOB)]
    records.drop_image("sha256:1")
    assert records.makers() == []


def test_a_volume_stays_its_first_claimants(records: Records) -> None:
    """Nobody takes over a volume by claiming it again."""
    records.claim_volume("v", ALICE)
    records.claim_volume("v", BOB)
    assert records.volume_owner("v") == ALICE
    records.drop_volume("v")
    assert records.volume_owner("v") is None


def test_a_record_that_cannot_be_written_is_an_outage(tmp_path: Path, records: Records) -> None:
    """A table gone from under the proxy raises what becomes a 503."""
    database = sqlite3.connect(tmp_path / "records.sqlite")
    database.execute("DROP TABLE image_tags")
    database.close()
    with pytest.raises(RecordsUnavailable):
        records.set_tag("a:1", ALICE)
    with pytest.raises(RecordsUnavailable):
        records.tags()


def test_a_file_that_is_no_database_is_an_outage(tmp_path: Path) -> None:
    """It is never taken for an empty record, which would own nothing to anybody."""
    path = tmp_path / "broken.sqlite"
    path.write_bytes(b"not a database, " * 64)
    with pytest.raises(RecordsUnavailable):
        Records(path)
    assert path.read_bytes().startswith(b"not a database")
