"""Giving a container that ds01 did not make to its owner: `/ds01/v1/containers/adopt` and `unadopt`, for admins alone.

Each change is on the audit record before it holds. The order is audit, lease, record: what a crash cuts short leaves a lease
that no container carries, and reconciliation ends it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from host.binds import BindRefused, hold
from host.mount_table import mounts, origin
from host.users import look_up_name
from policy.adoption import judge, restarts
from policy.compile import Policy
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.fields import as_object, as_text, shown
from policy.grants import Role
from policy.model import Actor, CheckBind, ContainerId, DeviceUuid, EngineFacts, Json, Kind, LeaseId, Uid
from socket_proxy.adoptions import Adoption, Adoptions
from socket_proxy.engine import Engine
from socket_proxy.entries import Entries
from socket_proxy.facts import FactSource
from socket_proxy.fulfil import look_at
from socket_proxy.image_owners import Reader
from socket_proxy.index import Entry, Index
from socket_proxy.ports import Lease, LeaseOver, LeaseRefused
from socket_proxy.refusals import Refusal
from socket_proxy.trail import Trail

_MOST_REASONS = 8


class TakesOver(Protocol):
    """The allocator, as far as it leases what a container has already."""

    async def take_over(
        self,
        container: ContainerId,
        *,
        uid: Uid,
        name: str,
        groups: Sequence[str],
        restarts: bool,
        request_id: str,
    ) -> tuple[Lease | None, tuple[DeviceUuid, ...]] | LeaseRefused: ...

    async def release(self, lease: LeaseId, reason: str) -> None: ...


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    container: str
    owner: str = ""


class AdoptionRequests:
    """Adopts and unadopts."""

    def __init__(
        self,
        *,
        engine: Engine,
        engine_facts: EngineFacts,
        index: Index,
        facts: FactSource,
        adoptions: Adoptions,
        allocator: TakesOver,
        policy: Callable[[], Policy],
        trail: Trail,
        entries: Entries,
        moved: Callable[[str], None],
    ) -> None:
        """Args: moved: whose a container is has changed."""
        self._engine = engine
        self._engine_facts = engine_facts
        self._index = index
        self._facts = facts
        self._adoptions = adoptions
        self._allocator = allocator
        self._policy = policy
        self._trail = trail
        self._entries = entries
        self._one = asyncio.Lock()  # of two at once the second finds what the first has done
        self._moved = moved

    async def adopt(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        """Give one container to a user."""
        async with self._one:
            return await self._adopt(actor, reader, body)

    async def _adopt(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        found = await self._found(reader, body)
        if isinstance(found, Refusal):
            return found
        wish, entry = found
        if entry.owner is not None:
            return _refused(409, f"{shown(wish.container)} is a container of uid {entry.owner} already")
        account = await asyncio.to_thread(look_up_name, wish.owner)
        owner = None if account is None else account.actor()
        if owner is None or owner.uid == 0 or self._policy().for_actor(owner).role is Role.NONE:
            return _refused(
                404, f"owner={shown(wish.owner)} is no user of this server by its policy; name a login"
            )
        inspect = await self._inspect(entry)
        closed = await self._closed(owner, entry, inspect)
        self._note("container.adopted", actor, entry, owner_uid=owner.uid, owner=owner.name, closed=closed)
        leased = await self._lease(owner, entry, inspect)
        if isinstance(leased, Refusal):
            return leased
        lease, left_out = leased
        adoption = Adoption(
            container=ContainerId(entry.id),
            owner=owner.uid,
            closed="; ".join(closed),
            started=as_text(as_object(inspect.get("State")).get("StartedAt")),
            lease=lease.id if lease else None,
        )
        self._adoptions.add(adoption)
        self._take_in(entry, inspect)
        return {
            "container": entry.name,
            "id": entry.id,
            "owner": owner.name,
            "closed": closed,
            "devices": list(lease.devices) if lease else [],
            "left_out": list(left_out),
        }

    async def unadopt(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        """Take it back: it is nobody's again. What of its owner's is under way on it ends within seconds."""
        async with self._one:
            return await self._unadopt(actor, reader, body)

    async def _unadopt(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        found = await self._found(reader, body)
        if isinstance(found, Refusal):
            return found
        wish, entry = found
        adoption = self._adoptions.of(entry.id)
        if adoption is None:
            return _refused(409, f"{shown(wish.container)} was not adopted")
        self._note("container.unadopted", actor, entry, owner_uid=adoption.owner)
        inspect = await self._inspect(entry)
        if (
            adoption.lease is not None
        ):  # first: what fails from here on leaves it adopted, and evidence brings the lease back
            with suppress(LeaseOver):
                await self._allocator.release(adoption.lease, f"taken back by {actor.name}")
        self._adoptions.end(adoption.container)
        self._take_in(entry, inspect)
        return {"container": entry.name, "id": entry.id}

    async def _found(self, reader: Reader, body: bytes) -> tuple[_Wish, Entry] | Refusal:
        if not reader.everything:
            return _refused(403, "only admins give containers to their owners; ask one")
        try:
            wish = msgspec.json.decode(body, type=_Wish)
        except msgspec.DecodeError as error:
            return Refusal(status=400, message=f"ds01: malformed request: {error}")
        await self._facts.wait_ready()
        entry = self._index.find(Kind.CONTAINER, wish.container, reader.uid, everything=True)
        if entry is None:
            status, message = responses.not_found(Kind.CONTAINER, wish.container[:300])
            return Refusal(status=status, message=message, rules=("ownership",))
        return wish, entry

    async def _inspect(self, entry: Entry) -> Mapping[str, Json]:
        answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": entry.id})
        return msgspec.json.decode(answer, type=dict[str, Any])

    async def _closed(self, owner: Actor, entry: Entry, inspect: Mapping[str, Json]) -> list[str]:
        """Why the owner runs no programs in it; empty: they may."""
        judged = judge(self._policy(), owner, inspect, self._engine_facts)
        reasons = [*judged.closed]
        state = as_object(inspect.get("State"))
        if state.get("Running") is not True or state.get("Paused") is True:
            reasons.append("it does not run, so what it mounts cannot be looked at")
        elif not reasons:
            for bind in judged.binds:
                reasons.extend(await self._unlike(owner, bind, state))
            # SECURITY: had it ended meanwhile, its pid could be another process's, with mounts to its liking.
            again = as_object((await self._inspect(entry)).get("State"))
            if (again.get("Pid"), again.get("StartedAt")) != (state.get("Pid"), state.get("StartedAt")):
                reasons.append("it was started again while it was looked at; adopt it again")
        return reasons[:_MOST_REASONS]

    async def _unlike(self, owner: Actor, bind: CheckBind, state: Mapping[str, Json]) -> list[str]:
        """What keeps a bind source from being what its owner may mount, and is mounted."""
        seen = await look_at(owner, bind)
        if isinstance(seen, Refusal):
            return [seen.message.removeprefix("ds01: ")]
        pid = state.get("Pid")
        try:
            is_it = seen.source == bind.source and await asyncio.to_thread(_is_mounted, owner, bind, pid)
        except OSError as error:
            return [f"{bind.source} cannot be looked at: {error.strerror}"]
        return (
            []
            if is_it
            else [f"what is mounted at {shown(bind.target)} is not what is at {shown(bind.source)}"]
        )

    async def _lease(
        self, owner: Actor, entry: Entry, inspect: Mapping[str, Json]
    ) -> tuple[Lease | None, tuple[DeviceUuid, ...]] | Refusal:
        taken = await self._allocator.take_over(
            ContainerId(entry.id),
            uid=owner.uid,
            name=owner.name,
            groups=self._policy().for_actor(owner).groups,
            restarts=restarts(inspect),
            request_id=secrets.token_hex(6),
        )
        if isinstance(taken, LeaseRefused):
            return Refusal(status=taken.status, message=taken.message, rules=("gpu_lease",))
        return taken

    def _take_in(self, entry: Entry, inspect: Mapping[str, Json]) -> None:
        """Into the index as whose it is now; the allocator is told soon."""
        labels = as_object(as_object(inspect.get("Config")).get("Labels"))
        state = as_text(as_object(inspect.get("State")).get("Status"))
        texts = {name: as_text(value) for name, value in labels.items()}
        self._index.put(self._entries.container(entry.id, entry.name, texts, state=state))
        self._moved(entry.id)

    def _note(self, event: str, actor: Actor, entry: Entry, **more: object) -> None:
        self._trail.note(
            {
                "event": event,
                "actor": actor.name,
                "uid": actor.uid,
                "login_uid": actor.login_uid,
                "container": entry.id,
                "name": entry.name,
                **more,
            }
        )


def _is_mounted(owner: Actor, bind: CheckBind, pid: Json) -> bool:
    """Whether the very object that its owner can open is what a process has mounted there. Raises: OSError."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    held = hold(
        bind.source,
        owner_uid=owner.uid,
        owner_gid=owner.gid,
        owner_gids=owner.gids,
        read_only=bind.read_only,
        create=False,
    )
    if isinstance(held, BindRefused):
        return False
    try:
        there = {mount.point: mount.origin for mount in mounts(pid).values()}
        return there.get(bind.target) == origin(held)
    finally:
        os.close(held)


def _refused(status: int, text: str) -> Refusal:
    return Refusal(status=status, message=f"ds01: {text} (rule adopted)", rules=("adopted",))
