"""The listening sockets: one for each user, the front door for everybody, one for root.

A connection's actor is found once, at its first request, and stays: credentials are those of connect(2).
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from host import listener
from host.tree import Tree
from host.users import look_up_name
from http1.server import Exchange, Listener, MostPerUid, Server
from http1.writer import JSON
from observability import events
from observability.logging import log
from policy.compile import Policy
from policy.model import Actor, Door, Gid, Uid
from socket_proxy.identity import DoorTo, Identities, UnknownPeer
from socket_proxy.local import PREFIX, Local
from socket_proxy.pipeline import Pipeline
from socket_proxy.refusals import Refusal

_SOCKET_DIRECTORY_MODE = 0o711


class Doors:
    """Opens and serves the sockets."""

    def __init__(
        self,
        *,
        server: Server,
        tree: Tree,
        identities: Identities,
        pipeline: Pipeline,
        local: Local,
        policy: Callable[[], Policy],
        handed: Mapping[str, socket.socket],
    ) -> None:
        """Serve through `server`. handed: sockets that listen already: `front`, `admin`, `user-<name>`.

        A handed socket stays open, under the same name in the file system, while the proxy restarts: containers that
        have it mounted keep it.
        """
        self._server = server
        self._tree = tree
        self._identities = identities
        self._pipeline = pipeline
        self._local = local
        self._policy = policy
        self._handed = handed
        self._known: dict[int, Actor] = {}  # who came by the front door, by uid
        self._open: dict[Path, Listener] = {}

    async def open_front(self) -> None:
        """Everybody may connect; the peer's credentials decide who it is."""
        entrance = DoorTo(door=Door.FRONT)

        def most(uid: int) -> int:
            # SECURITY: a uid that has asked for nothing yet has no groups, so that silence brings no more than a request.
            stranger = Actor(uid=Uid(uid), gid=Gid(uid), name="", door=Door.FRONT)
            return self._most(self._known.get(uid, stranger))

        await self._listen(self._tree.front_door, entrance, handed="front", mode=0o666, most=most)

    async def open_admin(self) -> None:
        await self._listen(self._tree.admin_socket, DoorTo(door=Door.ADMIN), handed="admin")

    async def open_user(self, name: str) -> None:
        """The user's own socket. A name without an account is logged and left out."""
        account = look_up_name(name)
        if account is None:
            log(
                events.PEER_REFUSED,
                uid=None,
                pid=None,
                door="user",
                problem=f"daemon.yaml names {name}: no such account",
            )
            return
        path = self._tree.user_socket(name)
        path.parent.parent.mkdir(mode=_SOCKET_DIRECTORY_MODE, exist_ok=True)
        path.parent.mkdir(mode=_SOCKET_DIRECTORY_MODE, exist_ok=True)
        entrance = DoorTo(door=Door.USER, owner=Uid(account.uid))
        actor = account.actor(door=Door.USER)

        def most(_uid: int) -> int:
            return self._most(actor)  # root in a container counts as well: it is the owner's

        await self._listen(path, entrance, handed=f"user-{name}", owner=(account.uid, account.gid), most=most)

    def _most(self, actor: Actor) -> int:
        """Connections that policy permits; admins get what the daemon permits to each."""
        grants = self._policy().for_actor(actor)
        return sys.maxsize if grants.admin else grants.limits.connections

    async def _listen(
        self,
        path: Path,
        entrance: DoorTo,
        *,
        handed: str,
        mode: int = 0o600,
        owner: tuple[int, int] | None = None,
        most: MostPerUid | None = None,
    ) -> None:
        async def handle(exchange: Exchange) -> None:
            await self._handle(exchange, entrance)

        listening = self._handed.get(handed) or listener.listen(path, mode=mode, owner=owner)
        self._open[path] = await self._server.listen(
            listening, handle, most_per_uid=most, shared=entrance.owner is None
        )

    async def _handle(self, exchange: Exchange, entrance: DoorTo) -> None:
        actor = exchange.context
        if not isinstance(actor, Actor):
            try:
                actor = exchange.context = await self._identities.of(exchange.peer, entrance)
            except UnknownPeer as refused:
                log(events.PEER_REFUSED, uid=None, pid=None, door=entrance.door, problem=str(refused))
                refusal = Refusal(status=403, message=f"ds01: {refused} (rule identity)", rules=("identity",))
                await exchange.respond(refusal.status, JSON, refusal.body())
                return
            if entrance.door is Door.FRONT:
                self._known[actor.uid] = actor
        if exchange.head.target.startswith(PREFIX):
            await self._local.answer(exchange, actor)
        else:
            await self._pipeline.handle(exchange, actor)
