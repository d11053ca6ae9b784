"""What one actor sees of the index."""

from __future__ import annotations

import pytest

from policy.model import Kind, Uid
from socket_proxy.index import Entry, Index
from socket_proxy.visibility import ActorVisibility

ALICE, BOB = Uid(1001), Uid(1002)


def view(uid: Uid, *, everything: bool = False) -> ActorVisibility:
    index = Index()
    for kind in (Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME):
        for owner, object_id in ((ALICE, "a"), (BOB, "b"), (None, "n")):
            index.put(Entry(kind=kind, id=object_id, name=object_id, owner=owner))
    index.put(Entry(kind=Kind.NETWORK, id="bridge-id", name="bridge", owner=None))
    return ActorVisibility(index, uid, everything=everything)


@pytest.mark.parametrize("method", ["sees_container", "sees_volume", "sees_network", "owns_network"])
def test_a_user_sees_the_own(method: str) -> None:
    """Not another's, not what has no owner, not what nobody knows."""
    sees = getattr(view(ALICE), method)
    assert [sees(each) for each in ("a", "b", "n", "unknown")] == [True, False, False, False]


@pytest.mark.parametrize("method", ["sees_container", "sees_volume", "sees_network", "owns_network"])
def test_an_admin_sees_everything(method: str) -> None:
    """Also what has no owner."""
    sees = getattr(view(ALICE, everything=True), method)
    assert all(sees(each) for each in ("a", "b", "n", "unknown"))


def test_a_predefined_network_is_seen_and_owned_by_nobody() -> None:
    """Everybody's containers are on it, so it is shown; its members are not."""
    assert view(ALICE).sees_network("bridge-id")
    assert not view(ALICE).owns_network("bridge-id")


def test_what_is_gone_is_still_seen_by_its_owner() -> None:
    """The last events of a removed container reach its owner and nobody else."""
    index = Index()
    index.put(Entry(kind=Kind.CONTAINER, id="a", name="a", owner=ALICE))
    index.drop(Kind.CONTAINER, "a")
    assert ActorVisibility(index, ALICE, everything=False).sees_container("a")
    assert not ActorVisibility(index, BOB, everything=False).sees_container("a")
