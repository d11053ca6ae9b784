"""Sharing a container on purpose: `/ds01/v1/containers/shares`, `containers/share`, `containers/unshare` on every socket.

Only a container's owner shares it, and for a time; admins can end shares as well. Each change is on the audit record before
it holds.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from policy.dockerapi import responses
from policy.model import Actor, ContainerId, Kind, Share, Uid
from policy.names import plain
from socket_proxy.container_shares import ContainerShares, Granted, TooManyShares
from socket_proxy.facts import FactSource
from socket_proxy.grantees import Grantees
from socket_proxy.image_owners import Reader, user_grantee
from socket_proxy.index import Entry, Index
from socket_proxy.refusals import Refusal
from socket_proxy.shared_containers import SharedContainers
from socket_proxy.shared_execs import SharedExecs
from socket_proxy.trail import Trail

LEAST_SECONDS, MOST_SECONDS = 1, 30 * 24 * 3600
_MOST_GRANTEES = 32


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    container: str
    with_: list[str] = msgspec.field(name="with", default_factory=list)
    share: Share = Share.VIEW
    seconds: int = 8 * 3600


class ShareRequests:
    """Lists, makes and ends shares of containers."""

    def __init__(
        self,
        *,
        index: Index,
        facts: FactSource,
        granted: ContainerShares,
        shared: SharedContainers,
        execs: SharedExecs,
        grantees: Grantees,
        trail: Trail,
    ) -> None:
        self._index = index
        self._facts = facts
        self._granted = granted
        self._shared = shared
        self._execs = execs
        self._grantees = grantees
        self._trail = trail

    async def listed(self, reader: Reader) -> Mapping[str, Any]:
        """The reader's own containers that are shared, and those of others that are shared with the reader."""
        await self._ready(reader)
        own = [
            await self._told(entry)
            for entry in self._index.owned(Kind.CONTAINER, reader.uid)
            if self._granted.of(ContainerId(entry.id))
        ]
        shared = [
            {
                "container": self._shared.name(reader, entry.id),
                "id": entry.id,
                "owner": await self._grantees.name(entry.owner or Uid(0)),
                "share": share,
            }
            for entry, share in list(self._shared.all(reader))
        ]
        return {"own": own, "shared": shared}

    async def share(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        """Let grantees see or use one container for a time."""
        wish = _read(body)
        if isinstance(wish, Refusal):
            return wish
        if not wish.with_ or wish.share is Share.NONE or not LEAST_SECONDS <= wish.seconds <= MOST_SECONDS:
            return _malformed(
                f"name users or groups, share view or use, and {LEAST_SECONDS} to {MOST_SECONDS} seconds"
            )
        entry = await self._own(wish.container, reader)
        if isinstance(entry, Refusal):
            return entry
        if entry.owner != actor.uid:
            return _NOT_THE_OWNER
        grantees = await self._grantees_of(wish, reader)
        if isinstance(grantees, Refusal):
            return grantees
        exec_refused = wish.share is Share.USE and await self._execs.leads_to_owner(
            ContainerId(entry.id), actor.uid
        )
        try:
            self._grant(actor, entry, grantees, wish)
        except TooManyShares as error:
            return Refusal(status=403, message=f"ds01: limit is {error} (rule share)", rules=("share",))
        return {**await self._told(entry), "exec_refused": exec_refused}

    def _grant(self, actor: Actor, entry: Entry, grantees: list[str], wish: _Wish) -> None:
        container = ContainerId(entry.id)
        self._granted.check_room(container, grantees, actor.uid)
        self._note("container.shared", actor, entry, grantees, share=wish.share, seconds=wish.seconds)
        self._granted.grant(
            container, grantees, share=wish.share, owner=actor.uid, login=actor.name, seconds=wish.seconds
        )

    async def unshare(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        """End shares of one container; without grantees all of them. What runs on them ends within seconds."""
        wish = _read(body)
        if isinstance(wish, Refusal):
            return wish
        entry = await self._own(wish.container, reader)
        if isinstance(entry, Refusal):
            return entry
        container = ContainerId(entry.id)
        ended = [each.grantee for each in self._granted.of(container)]
        if wish.with_:
            named = await self._grantees_of(wish, reader)
            if isinstance(named, Refusal):
                return named
            ended = [each for each in ended if each in named]
        self._note("container.unshared", actor, entry, ended)
        for grantee in ended:
            self._granted.end(container, grantee)
        return await self._told(entry)

    async def _ready(self, reader: Reader) -> None:
        await self._facts.wait_ready()
        await self._shared.refresh(reader.uid)

    async def _own(self, text: str, reader: Reader) -> Entry | Refusal:
        """The container that `text` means, one's own; for admins any."""
        await self._ready(reader)
        entry = self._index.find(Kind.CONTAINER, text, reader.uid, everything=reader.everything)
        if entry is None and self._shared.find(reader, text) is None:
            status, message = responses.not_found(Kind.CONTAINER, text[:300])
            return Refusal(status=status, message=message, rules=("ownership",))
        return _NOT_THE_OWNER if entry is None or entry.owner is None else entry

    async def _grantees_of(self, wish: _Wish, reader: Reader) -> list[str] | Refusal:
        if len(wish.with_) > _MOST_GRANTEES:
            return _malformed(f"more than {_MOST_GRANTEES} users and groups; name a group")
        found = [await self._grantees.find(name) for name in wish.with_]
        for each in found:
            if isinstance(each, Refusal):
                return each
            if each == user_grantee(reader.uid):
                return _malformed("it is yours already; name somebody else")
        return [each for each in found if isinstance(each, str)]

    def _note(self, event: str, actor: Actor, entry: Entry, grantees: list[str], **more: object) -> None:
        self._trail.note(
            {
                "event": event,
                "actor": actor.name,
                "uid": actor.uid,
                "container": entry.id,
                "owner_uid": entry.owner,
                "with": grantees,
                **more,
            }
        )

    async def _told(self, entry: Entry) -> Mapping[str, Any]:
        granted = self._granted.of(ContainerId(entry.id))
        return {
            "container": plain(entry.owner, entry.name),
            "id": entry.id,
            "with": [await self._told_of(each) for each in granted],
        }

    async def _told_of(self, granted: Granted) -> Mapping[str, Any]:
        left_seconds = self._granted.left_seconds(granted)
        until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + left_seconds))
        return {
            "who": await self._grantees.shown(granted.grantee),
            "share": granted.share,
            "left_seconds": left_seconds,
            "until": until,
        }


_NOT_THE_OWNER = Refusal(
    status=403,
    message="ds01: only a container's owner shares it (rule share); ask the owner",
    rules=("share",),
)


def _read(body: bytes) -> _Wish | Refusal:
    try:
        return msgspec.json.decode(body, type=_Wish)
    except msgspec.DecodeError as error:
        return _malformed(str(error))


def _malformed(problem: str) -> Refusal:
    return Refusal(status=400, message=f"ds01: malformed request: {problem}")
