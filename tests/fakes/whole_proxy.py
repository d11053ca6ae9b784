"""The whole proxy, wired as `socket_proxy.app` wires it, between real Unix sockets and a dockerd that is scripted."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from host import listener
from host.policy_files import PolicyFiles
from host.tree import Tree
from host.users import Account, Users
from http1.client import Pool
from policy.build import build_policy
from policy.model import Actor, Gid, LeaseId, RequestId, Uid
from socket_proxy import app, doors, foundations
from socket_proxy.engine import Engine
from socket_proxy.keys import load_or_create
from socket_proxy.seal import Sealer
from socket_proxy.settings import DaemonSettings, Settings
from socket_proxy.stamp import Stamper
from tests.fakes.proxy_world import ENGINE
from tests.fakes.scripted_dockerd import Talk, scripted_dockerd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    import pytest

UIDS = {"alice": 1001, "bob": 1002, "carol": 1003}
POLICY = """
version: 1
defaults:
  role: user
  limits: {memory: 1GiB, cpus: 1, pids: 100, gpus: 2, containers: 5}
  allow: {registries: ["*"], default_network: shared}
groups:
  admins: {members: [carol], role: admin}
"""
SECONDS = 10


def account(uid: int) -> Account | None:
    """The three accounts of this server."""
    name = next((name for name, each in UIDS.items() if each == uid), None)
    if name is None:
        return None
    return Account(
        uid=Uid(uid),
        gid=Gid(uid),
        name=name,
        groups=frozenset(),
        gids=frozenset({uid}),
        home=f"/home/{name}",
    )


def actor(name: str) -> Actor:
    return Actor(uid=Uid(UIDS[name]), gid=Gid(UIDS[name]), name=name)


@dataclass
class WholeProxy:
    """One running proxy. `answers` as in ProxyWorld, by the start of a request line without its version."""

    tree: Tree
    sealer: Sealer
    answers: dict[str, tuple[int, Any] | Callable[[Talk], Awaitable[None]]] = field(default_factory=dict)
    containers: list[dict[str, Any]] = field(default_factory=list)
    networks: list[dict[str, Any]] = field(default_factory=list)
    volumes: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)  # what users' requests became
    events: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    proxy: app.Proxy | None = None

    def running(self) -> app.Proxy:
        assert self.proxy is not None
        return self.proxy

    def labels(self, name: str, lease: str | None = None) -> dict[str, str]:
        held = LeaseId(lease) if lease else None
        return self.sealer.labels(actor(name), lease=held, request_id=RequestId(f"create-by-{name}"))

    def own(self, name: str, what: str, letter: str) -> None:
        """`name` owns a container, a network and a volume, all called `what`; ids are of one letter."""
        labels = self.labels(name)
        self.containers.append({"Id": letter * 64, "Names": [f"/{what}"], "Labels": labels})
        self.networks.append({"Id": letter * 64, "Name": what, "Labels": labels})
        self.volumes.append({"Name": what, "Labels": labels})

    def audit(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.tree.audit.read_text().splitlines()]

    async def serve(self, talk: Talk) -> None:
        """One connection of the proxy to dockerd."""
        while True:
            head = (await talk.head()).decode()
            line = head.partition(" HTTP/")[0].replace("/v1.41", "", 1)
            length = next(
                (
                    int(each.split(":")[1])
                    for each in head.split("\r\n")
                    if each.lower().startswith("content-length:")
                ),
                0,
            )
            await talk.reader.readexactly(length)
            self.asked.append(line)
            found = next((self.answers[key] for key in self.answers if line.startswith(key)), None)
            if callable(found):
                await found(talk)
                return
            status, document = found or self._known(line)
            if document is None:
                await self._stream(talk)
            body = b"" if status == 204 else json.dumps(document).encode()
            await talk.answer(body, status=f"{status} X", headers="Content-Type: application/json\r\n")

    def _known(self, line: str) -> tuple[int, Any]:
        lists: dict[str, Any] = {
            "GET /_ping": "OK",
            "GET /containers/json": self.containers,
            "GET /networks": self.networks,
            "GET /volumes": {"Volumes": self.volumes},
            "GET /images/json": [],
            "GET /events": None,
        }
        path = line.partition("?")[0]
        if path in lists:
            return 200, lists[path]
        return 404, {"message": "no such thing"}

    async def _stream(self, talk: Talk) -> None:
        await talk.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        while True:
            event = await self.events.get() + b"\n"
            await talk.say(f"{len(event):x}\r\n".encode() + event + b"\r\n")

    async def connect(self, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(str(self.tree.user_socket(name)))

    async def ask(self, name: str, line: str, body: object = None, headers: str = "") -> bytes:
        """All bytes that `name` gets for one request on a connection of its own."""
        reader, writer = await self.connect(name)
        method, _, target = line.partition(" ")
        sent = b"" if body is None else json.dumps(body).encode()
        if body is not None:
            headers += f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n"
        writer.write(
            f"{method} {target} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n{headers}\r\n".encode() + sent
        )
        answer = await asyncio.wait_for(reader.read(), SECONDS)
        writer.close()
        await writer.wait_closed()
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def document_of(answer: bytes) -> Any:
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@asynccontextmanager
async def whole_proxy(
    root: Path,
    patch: pytest.MonkeyPatch,
    *,
    prepare: Callable[[WholeProxy], None] = lambda _: None,
    plugin_required: bool = False,
    policy: str = POLICY,
) -> AsyncIterator[WholeProxy]:
    """A proxy below `root` that serves its three users' sockets. Needs root: sockets are given to their users."""
    patch.setattr(doors, "look_up_name", lambda name: account(UIDS[name]))
    patch.setattr(foundations, "Users", lambda: Users(look_up=account, first_uid=1000))
    opened: list[socket.socket] = []

    def listen(*where: Any, **how: Any) -> socket.socket:
        opened.append(listener.listen(*where, **how))
        return opened[-1]

    patch.setattr(doors, "listener", SimpleNamespace(listen=listen))
    tree = Tree.under(root)
    for directory in (tree.run, tree.etc, tree.lib, tree.log):
        directory.mkdir(parents=True)
    tree.policy.write_text(policy)
    tree.policy.chmod(0o644)
    keys = load_or_create(tree)
    world = WholeProxy(tree=tree, sealer=Sealer(keys))
    prepare(world)
    policies = PolicyFiles(
        tree.etc,
        lambda texts: build_policy(texts, user_socket_template=str(tree.user_socket("{name}"))),
        on_loaded=lambda *_: None,
        on_rejected=lambda _: None,
        owners=frozenset({os.geteuid()}),
    )
    settings = Settings(tree=tree, daemon=DaemonSettings(users=tuple(UIDS), plugin_required=plugin_required))
    pool = Pool(str(tree.engine_socket))
    async with AsyncExitStack() as stack:
        stack.callback(pool.close)
        # The proxy leaves its listening sockets to the end of the process.
        stack.callback(_close, opened)
        await stack.enter_async_context(scripted_dockerd(tree.engine_socket, world.serve))
        world.proxy = app.Proxy(
            settings, keys, policies, Engine(pool, Stamper(keys), version=(1, 41)), ENGINE
        )
        # Two clocks of the proxy's own that would mix their questions to dockerd with the users'.
        patch.setattr(world.proxy, "_watch_engine", _forever)
        patch.setattr(world.proxy.watcher, "report", _forever)
        stack.push_async_callback(world.proxy.allocator.close)
        stop = asyncio.Event()
        tasks = await stack.enter_async_context(asyncio.TaskGroup())
        tasks.create_task(world.proxy.run(stop))
        stack.callback(stop.set)
        async with asyncio.timeout(SECONDS):
            while not tree.front_door.exists():  # noqa: ASYNC110  a file has no event
                await asyncio.sleep(0.002)
            await world.proxy.watcher.reconnected.wait()
        world.asked.clear()
        yield world


async def _forever(*_: object) -> None:
    await asyncio.Event().wait()


def _close(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()
