"""The record of shares: until when, how many, and gone with the container."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from policy.model import ContainerId, Share, Uid
from socket_proxy import container_shares
from socket_proxy.container_shares import ContainerShares, TooManyShares
from socket_proxy.lasting_clock import LastingClock
from socket_proxy.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE, BOB = Uid(1001), Uid(1002)
WEB, BOX = ContainerId("a" * 64), ContainerId("b" * 64)


class World:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0
        self.records = Records(path)
        self.shares = self.opened()

    def opened(self) -> ContainerShares:
        clock = LastingClock(
            self.records, boottime_ms=lambda: self.now, boot_id=lambda: "boot", utc_ms=lambda: self.now
        )
        return ContainerShares(self.records, clock)

    def grant(
        self,
        *grantees: str,
        container: ContainerId = WEB,
        share: Share = Share.VIEW,
        owner: Uid = ALICE,
        seconds: int = 60,
    ) -> None:
        self.shares.grant(container, list(grantees), share=share, owner=owner, login="alice", seconds=seconds)

    def who(self, container: ContainerId = WEB) -> list[str]:
        return [each.grantee for each in self.shares.of(container)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path / "records.sqlite")
    yield world
    world.records.close()


def test_a_share_ends_by_itself(world: World) -> None:
    """To the second, without anybody sweeping."""
    world.grant("user:1002")
    world.now = 59_999
    assert world.who() == ["user:1002"]
    assert world.shares.left_seconds(world.shares.of(WEB)[0]) == 0
    world.now = 60_000
    assert world.who() == []


def test_a_restart_keeps_what_is_live(world: World) -> None:
    """What is on record is what was granted: with whom, how much, until when, whose."""
    world.grant("user:1002", share=Share.USE)
    before = world.shares.of(WEB)
    world.now = 30_000
    world.shares = world.opened()
    assert world.shares.of(WEB) == before
    world.now = 60_000
    assert world.who() == []


def test_sharing_again_replaces(world: World) -> None:
    """Longer, shorter, more or less: the last word counts."""
    world.grant("user:1002", share=Share.USE, seconds=600)
    world.grant("user:1002", seconds=10)
    assert [(each.share, each.until_ms) for each in world.shares.of(WEB)] == [(Share.VIEW, 10_000)]


def test_it_is_over_when_it_is_ended(world: World) -> None:
    """For the named one, on record as well."""
    world.grant("user:1002", "group:lab")
    world.shares.end(WEB, "user:1002")
    assert world.who() == ["group:lab"]
    world.shares = world.opened()
    assert world.who() == ["group:lab"]


def test_what_is_over_or_gone_is_swept(world: World) -> None:
    """Off the record and out of memory; what lives stays."""
    world.grant("user:1002")
    world.grant("user:1003", seconds=10)
    world.grant("user:1002", container=BOX)
    world.now = 20_000
    over = world.shares.sweep(lambda container: container == WEB)
    assert sorted((each.container, each.grantee) for each in over) == [(WEB, "user:1003"), (BOX, "user:1002")]
    assert world.shares.containers() == (WEB,)
    assert len(world.records.container_shares()) == 1


def test_the_number_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each container and for each owner; what is over, replaced or another's does not count."""
    monkeypatch.setattr(container_shares, "MOST_OF_CONTAINER", 2)
    monkeypatch.setattr(container_shares, "MOST_OF_OWNER", 3)
    world.grant("user:1", "user:2")
    world.grant("user:2")
    with pytest.raises(TooManyShares):
        world.grant("user:3")
    world.grant("user:1", container=BOX, seconds=1)
    with pytest.raises(TooManyShares):
        world.grant("user:2", container=BOX)
    world.now = 1_000
    world.grant("user:2", container=BOX)
    world.grant("user:2", container=ContainerId("c" * 64), owner=BOB)
    assert world.who() == ["user:1", "user:2"]
