"""The record of what was given to whom: durable, by full id, and over with the container."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import Adopted, ContainerId, LeaseId, Uid
from socket_proxy.adoptions import Adoption, Adoptions
from socket_proxy.records import Records, RecordsUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OLD, OTHER = ContainerId("a" * 64), ContainerId("b" * 64)
CLOSED = Adoption(container=OLD, owner=Uid(1001), closed="HostConfig.Privileged=true", lease=LeaseId("L1"))
OPEN = Adoption(container=OTHER, owner=Uid(1002), started="2026-11-27T10:00:00Z")


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    one = Records(tmp_path / "records.sqlite")
    yield one
    one.close()


def test_it_outlives_the_proxy(records: Records) -> None:
    """With all that was found out when it was adopted."""
    first = Adoptions(records)
    first.add(CLOSED)
    first.add(OPEN)
    again = Adoptions(records)
    assert (again.of(OLD), again.of(OTHER), again.of("c" * 64)) == (CLOSED, OPEN, None)
    assert (CLOSED.fact(), OPEN.fact()) == (Adopted(closed="HostConfig.Privileged=true"), Adopted())


def test_it_ends_with_the_container(records: Records) -> None:
    """Or when it is taken back; what was never adopted ends without a word."""
    one = Adoptions(records)
    one.add(CLOSED)
    one.add(OPEN)
    one.sweep(lambda container: container == OTHER)
    one.end(ContainerId("c" * 64))
    assert (one.of(OLD), Adoptions(records).of(OLD)) == (None, None)
    one.end(OTHER)
    assert Adoptions(records).of(OTHER) is None


def test_what_cannot_be_written_does_not_hold(records: Records) -> None:
    """Neither a new one nor the end of one."""
    one = Adoptions(records)
    one.add(OPEN)
    records.close()
    with pytest.raises(RecordsUnavailable):
        one.add(CLOSED)
    with pytest.raises(RecordsUnavailable):
        one.end(OTHER)
    assert (one.of(OLD), one.of(OTHER)) == (None, OPEN)
