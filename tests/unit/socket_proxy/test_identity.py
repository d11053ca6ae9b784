"""Who a connection is: the table of peers and doors, from the kernel's word alone."""

from __future__ import annotations

import socket

import pytest

from host.peercred import Peer, Place
from host.users import Account, Users
from policy.model import Adopted, ContainerId, Door, Gid, Kind, Uid
from socket_proxy import identity
from socket_proxy.identity import DoorTo, Identities, UnknownPeer
from socket_proxy.index import Entry, Index

ALICE, BOB, ROOT, STRANGER = Uid(1001), Uid(1002), Uid(0), Uid(4242)
ALICES, UNMANAGED, ADOPTED = ContainerId("a" * 64), ContainerId("f" * 64), ContainerId("d" * 64)
FRONT, ADMIN, TO_ALICE = DoorTo(door=Door.FRONT), DoorTo(door=Door.ADMIN), DoorTo(door=Door.USER, owner=ALICE)


def account(uid: int) -> Account | None:
    name = {0: "root", 1001: "alice", 1002: "bob"}.get(uid)
    if name is None:
        return None
    return Account(uid=Uid(uid), gid=Gid(uid), name=name, groups=frozenset(), gids=frozenset(), home="/")


def on_host(uid: Uid, *, login_uid: Uid | None = None) -> Peer:
    return Peer(pid=7, uid=uid, gid=Gid(uid), place=Place.HOST, login_uid=login_uid)


def inside(container: ContainerId, uid: Uid = ROOT) -> Peer:
    return Peer(pid=7, uid=uid, gid=Gid(uid), place=Place.CONTAINER, container=container)


@pytest.fixture
def identities() -> Identities:
    index = Index()
    index.put(Entry(kind=Kind.CONTAINER, id=ALICES, name="a", owner=ALICE))
    index.put(Entry(kind=Kind.CONTAINER, id=UNMANAGED, name="f", owner=None))
    index.put(Entry(kind=Kind.CONTAINER, id=ADOPTED, name="d", owner=ALICE, adopted=Adopted()))
    return Identities(index=index, users=Users(look_up=account, first_uid=1000))


def comes(monkeypatch: pytest.MonkeyPatch, caller: Peer) -> socket.socket:
    """A connection whose other end is `caller`."""
    monkeypatch.setattr(identity, "peer", lambda _connection: caller)
    return socket.socket()


@pytest.mark.parametrize(
    ("caller", "entrance", "uid"),
    [
        pytest.param(on_host(ALICE), FRONT, ALICE, id="front"),
        pytest.param(on_host(ROOT), FRONT, ROOT, id="root-at-the-front"),
        pytest.param(on_host(ROOT), ADMIN, ROOT, id="admin"),
        pytest.param(on_host(ALICE), TO_ALICE, ALICE, id="own-socket"),
        pytest.param(on_host(ROOT), TO_ALICE, ALICE, id="root-at-a-users-socket"),
        pytest.param(inside(ALICES), FRONT, ALICE, id="root-in-a-container-at-the-front"),
        pytest.param(inside(ALICES, BOB), FRONT, ALICE, id="any-uid-in-a-container"),
        pytest.param(inside(ALICES), TO_ALICE, ALICE, id="own-container-at-own-socket"),
    ],
)
async def test_who_comes(
    monkeypatch: pytest.MonkeyPatch, identities: Identities, caller: Peer, entrance: DoorTo, uid: Uid
) -> None:
    """The door and the kernel decide; a process in a container is its container's owner."""
    with comes(monkeypatch, caller) as connection:
        actor = await identities.of(connection, entrance)
    assert (actor.uid, actor.door, actor.peer_pid) == (uid, entrance.door, 7)
    assert actor.peer_container == caller.container


@pytest.mark.parametrize(
    ("caller", "entrance"),
    [
        pytest.param(on_host(ALICE), ADMIN, id="user-at-the-admin-door"),
        pytest.param(on_host(BOB), TO_ALICE, id="anothers-socket"),
        pytest.param(on_host(STRANGER), FRONT, id="no-account"),
        pytest.param(inside(ContainerId("e" * 64)), FRONT, id="container-nobody-knows"),
        pytest.param(inside(UNMANAGED), FRONT, id="container-without-owner"),
        pytest.param(inside(ADOPTED), FRONT, id="container-from-before-ds01"),
        pytest.param(inside(ADOPTED, ALICE), TO_ALICE, id="owner-in-one-at-her-own-socket"),
        pytest.param(inside(ALICES), ADMIN, id="root-in-a-container-at-the-admin-door"),
        pytest.param(inside(ALICES), DoorTo(door=Door.USER, owner=BOB), id="container-at-anothers-socket"),
        pytest.param(Peer(pid=0, uid=ROOT, gid=Gid(0), place=Place.UNKNOWN), FRONT, id="root-from-nowhere"),
        pytest.param(Peer(pid=0, uid=ROOT, gid=Gid(0), place=Place.UNKNOWN), ADMIN, id="nowhere-at-admin"),
        pytest.param(Peer(pid=7, uid=ROOT, gid=Gid(0), place=Place.CONTAINER), FRONT, id="some-container"),
    ],
)
async def test_who_is_refused(
    monkeypatch: pytest.MonkeyPatch, identities: Identities, caller: Peer, entrance: DoorTo
) -> None:
    """Unknown is refused, and uid 0 of a container is never the host's root."""
    with comes(monkeypatch, caller) as connection, pytest.raises(UnknownPeer):
        await identities.of(connection, entrance)


async def test_root_as_a_user_keeps_its_name_on_record(
    monkeypatch: pytest.MonkeyPatch, identities: Identities
) -> None:
    """sudo on a user's socket acts as that user; who logged in goes with it."""
    with comes(monkeypatch, on_host(ROOT, login_uid=BOB)) as connection:
        actor = await identities.of(connection, TO_ALICE)
    assert (actor.uid, actor.login_uid) == (ALICE, BOB)
