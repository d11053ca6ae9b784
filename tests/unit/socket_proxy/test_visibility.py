"""What one actor sees of the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import Kind, Uid
from socket_proxy.image_owners import ImageOwners, Reader
from socket_proxy.index import Entry, Index
from socket_proxy.records import Records
from socket_proxy.visibility import ActorVisibility

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE, BOB = Uid(1001), Uid(1002)


@pytest.fixture
def images(tmp_path: Path) -> Iterator[ImageOwners]:
    records = Records(tmp_path / "records.sqlite")
    yield ImageOwners(records)
    records.close()


def view(images: ImageOwners, uid: Uid, *, everything: bool = False) -> ActorVisibility:
    index = Index()
    for kind in (Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME):
        for owner, object_id in ((ALICE, "a"), (BOB, "b"), (None, "n")):
            index.put(Entry(kind=kind, id=object_id, name=object_id, owner=owner))
    index.put(Entry(kind=Kind.NETWORK, id="bridge-id", name="bridge", owner=None))
    return ActorVisibility(index, images, Reader(uid=uid, everything=everything))


@pytest.mark.parametrize("method", ["sees_container", "sees_volume", "sees_network", "owns_network"])
def test_a_user_sees_the_own(images: ImageOwners, method: str) -> None:
    """Not another's, not what has no owner, not what nobody knows."""
    sees = getattr(view(images, ALICE), method)
    assert [sees(each) for each in ("a", "b", "n", "unknown")] == [True, False, False, False]


@pytest.mark.parametrize("method", ["sees_container", "sees_volume", "sees_network", "owns_network"])
def test_an_admin_sees_everything(images: ImageOwners, method: str) -> None:
    """Also what has no owner."""
    sees = getattr(view(images, ALICE, everything=True), method)
    assert all(sees(each) for each in ("a", "b", "n", "unknown"))


def test_a_predefined_network_is_seen_and_owned_by_nobody(images: ImageOwners) -> None:
    """Everybody's containers are on it, so it is shown; its members are not."""
    assert view(images, ALICE).sees_network("bridge-id")
    assert not view(images, ALICE).owns_network("bridge-id")


def test_what_is_gone_is_still_seen_by_its_owner(images: ImageOwners) -> None:
    """The last events of a removed container reach its owner and nobody else."""
    index = Index()
    index.put(Entry(kind=Kind.CONTAINER, id="a", name="a", owner=ALICE))
    index.drop(Kind.CONTAINER, "a")
    assert ActorVisibility(index, images, Reader(uid=ALICE)).sees_container("a")
    assert not ActorVisibility(index, images, Reader(uid=BOB)).sees_container("a")


def test_an_image_is_its_makers_and_a_tag_its_owners(images: ImageOwners) -> None:
    """The record of images decides about both."""
    images.set_tag("a:1", ALICE)
    images.claim("sha256:1", ["a:1"], ALICE)
    alice, bob = view(images, ALICE), view(images, BOB)
    assert (alice.sees_image("sha256:1", ["a:1"]), bob.sees_image("sha256:1", ["a:1"])) == (True, False)
    assert (alice.sees_reference("a:1"), bob.sees_reference("a:1")) == (True, False)
    assert view(images, BOB, everything=True).sees_image("sha256:1", [])
