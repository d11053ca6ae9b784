"""Who is at the other end of a connection: decided by the socket and the kernel's word on the peer, by nothing it sends.

SO_PEERCRED names the process that called connect(2). Inside a container that process may be root or anything, so its cgroup
is looked at: a peer in a container is that container's owner, whatever its uid. Unknown is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from host.peercred import HasSocketOptions, Peer, Place, peer
from host.users import Users
from policy.model import Actor, ContainerId, Door, Kind, Uid
from socket_proxy.index import Index

ROOT = Uid(0)


class UnknownPeer(Exception):  # noqa: N818  what the peer is; the caller refuses it
    """The peer is nobody that this socket is for. The text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorTo:
    """A listening socket, and whose it is: `owner` is set exactly for a user's own socket."""

    door: Door
    owner: Uid | None = None


class Identities:
    """Turns a connected socket into an Actor."""

    def __init__(self, *, index: Index, users: Users) -> None:
        self._index = index
        self._users = users

    async def of(self, connection: HasSocketOptions, entrance: DoorTo) -> Actor:
        """The actor behind a connection. Raises: UnknownPeer: refuse whatever it sends."""
        caller = peer(connection)
        match caller.place:
            case Place.CONTAINER if caller.container is not None:
                return await self._in_container(caller, caller.container, entrance)
            case Place.HOST:
                return await self._on_host(caller, entrance)
            case _:
                raise UnknownPeer(
                    "the calling process cannot be identified (another namespace, or gone already)"
                )

    async def _on_host(self, caller: Peer, entrance: DoorTo) -> Actor:
        """On a user's socket the path decides; host root passes as that user, with its login uid on record."""
        if entrance.door is Door.ADMIN and caller.uid != ROOT:
            raise UnknownPeer("the admin socket is for root; use your own socket")
        if entrance.owner is None:
            return await self._actor(caller.uid, caller, entrance)
        if caller.uid not in (entrance.owner, ROOT):
            raise UnknownPeer("this socket belongs to another user; use your own")
        return await self._actor(entrance.owner, caller, entrance)

    async def _in_container(self, caller: Peer, container: ContainerId, entrance: DoorTo) -> Actor:
        """SECURITY: root in a container has uid 0 on the host too; only its container says whose process it is, and one that
        ds01 did not make says nothing: nobody knows who started what in it before it was given to its owner.
        """
        entry = self._index.get(Kind.CONTAINER, container)
        if entry is None or entry.owner is None or entry.adopted is not None or entrance.door is Door.ADMIN:
            raise UnknownPeer("the calling process runs in a container that ds01 does not know")
        if entrance.owner not in (None, entry.owner):
            raise UnknownPeer("this socket belongs to another user than the calling container does")
        return replace(await self._actor(entry.owner, caller, entrance), peer_container=container)

    async def _actor(self, uid: Uid, caller: Peer, entrance: DoorTo) -> Actor:
        account = await self._users.find(uid)
        if account is None:
            raise UnknownPeer(f"uid {uid} has no account on this server")
        return replace(account.actor(door=entrance.door), peer_pid=caller.pid, login_uid=caller.login_uid)
