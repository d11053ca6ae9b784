"""The listening sockets: whose each is, who is turned away, and that a connection stays one actor's."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from host import listener
from host.tree import Tree
from host.users import Account
from http1.limits import Limits
from http1.server import Server
from policy.build import build_policy
from policy.model import Actor, Gid, Uid
from socket_proxy import doors
from socket_proxy.doors import Doors
from socket_proxy.identity import DoorTo, UnknownPeer
from tests.fakes.proxy_world import ALICE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from http1.server import Exchange


class House:
    """Says who comes, and answers with the part of ds01 that was asked. `strangers`: everybody is refused."""

    def __init__(self) -> None:
        self.strangers = False
        self.came: list[DoorTo] = []

    async def of(self, _peer: object, entrance: DoorTo) -> Actor:
        self.came.append(entrance)
        if self.strangers:
            raise UnknownPeer("nobody knows you")
        return ALICE

    async def handle(self, exchange: Exchange, actor: Actor) -> None:
        await exchange.respond(200, (), f"pipeline {actor.name}".encode())

    async def answer(self, exchange: Exchange, actor: Actor) -> None:
        await exchange.respond(200, (), f"local {actor.name}".encode())


@asynccontextmanager
async def opened(
    root: Path, house: House, handed: Mapping[str, socket.socket] | None = None
) -> AsyncIterator[tuple[Doors, Tree]]:
    tree = Tree.under(root)
    tree.run.mkdir(parents=True, exist_ok=True)
    server = Server(limits=Limits(), on_error=lambda _exchange, error: (500, str(error)))
    this = cast("Any", house)
    policy = build_policy({"policy.yaml": "version: 1\ndefaults: {role: user}\n"})
    made = Doors(
        policy=lambda: policy,
        server=server,
        tree=tree,
        identities=this,
        pipeline=this,
        local=this,
        handed=handed or {},
    )
    try:
        yield made, tree
    finally:
        await server.stop()


@pytest.fixture(autouse=True)
def sockets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever has a login name has this process's ids; listening sockets are closed after each test."""
    made: list[socket.socket] = []
    listen = listener.listen

    def remembered(*where: Any, **how: Any) -> socket.socket:
        made.append(listen(*where, **how))
        return made[-1]

    def look_up(name: str) -> Account | None:
        if name != "alice":
            return None
        own = Uid(os.geteuid()), Gid(os.getegid())
        return Account(uid=own[0], gid=own[1], name=name, groups=frozenset(), gids=frozenset(), home="/")

    monkeypatch.setattr(listener, "listen", remembered)
    monkeypatch.setattr(doors, "look_up_name", look_up)
    yield
    for each in made:
        each.close()


async def ask(path: Path, *targets: str) -> bytes:
    """All answers to requests on one connection."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    for number, target in enumerate(targets):
        last = "Connection: close\r\n" if number == len(targets) - 1 else ""
        writer.write(f"GET {target} HTTP/1.1\r\nHost: d\r\n{last}\r\n".encode())
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    return answer


async def test_each_door_has_its_mode(tmp_path: Path) -> None:
    """The front is for everybody, root's and the users' own are for one; no directory can be listed."""
    async with opened(tmp_path, House()) as (made, tree):
        await made.open_front()
        await made.open_admin()
        await made.open_user("alice")
        paths = (tree.front_door, tree.admin_socket, tree.user_socket("alice"))
        assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o666, 0o600, 0o600]
        assert stat.S_IMODE(tree.user_socket("alice").parent.stat().st_mode) == 0o711


async def test_a_name_without_account_is_left_out(tmp_path: Path) -> None:
    """A typing error in the settings does not stop the others."""
    async with opened(tmp_path, House()) as (made, tree):
        await made.open_user("nobody-here")
        assert not tree.user_socket("nobody-here").exists()


async def test_a_connection_is_looked_at_once(tmp_path: Path) -> None:
    """Its actor is the one of connect(2); ds01's own paths and Docker's go to different parts."""
    house = House()
    async with opened(tmp_path, house) as (made, tree):
        await made.open_user("alice")
        answer = await ask(tree.user_socket("alice"), "/_ping", "/ds01/v1/whoami", "/ds01/v2/whoami")
        assert answer.count(b"pipeline alice") == 2
        assert answer.count(b"local alice") == 1
        assert [door.owner for door in house.came] == [os.geteuid()]


async def test_a_stranger_is_refused_each_time(tmp_path: Path) -> None:
    """403 with the rule, for Docker's paths and ds01's own."""
    house = House()
    house.strangers = True
    async with opened(tmp_path, house) as (made, tree):
        await made.open_front()
        answer = await ask(tree.front_door, "/_ping", "/ds01/v1/whoami")
        assert answer.count(b"403 Forbidden") == 2
        assert answer.count(b"nobody knows you (rule identity)") == 2


async def test_a_handed_socket_is_used(tmp_path: Path) -> None:
    """What systemd holds keeps its name and inode: containers have it mounted."""
    path = tmp_path / "handed.sock"
    with socket.socket(socket.AF_UNIX) as handed:
        handed.bind(str(path))
        handed.listen()
        async with opened(tmp_path, House(), {"front": handed}) as (made, tree):
            await made.open_front()
            assert b"pipeline alice" in await ask(path, "/_ping")
            assert not tree.front_door.exists()


async def test_silence_brings_nobody_more_connections(tmp_path: Path) -> None:
    """At the front door a uid that has asked for nothing yet has what policy gives everybody; root has more."""
    async with opened(tmp_path, House()) as (made, tree):
        await made.open_front()
        door = made._open[tree.front_door]
        assert door.most(4242) == 64
        assert door.most(0) == 512
