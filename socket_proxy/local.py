"""What ds01 says of itself on every socket it serves, below `/ds01/v1/`: GET `whoami`, `status`, `explain/<request id or container>`,
`images`, `containers/shares`; POST `images/share`, `images/unshare`, `containers/share`, `containers/unshare`,
and for admins POST `containers/adopt`, `containers/unadopt` and the looks of `socket_proxy.admin_looks`.

dockerd has no path of that prefix. The `ds01` command is the client.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec

from host.heartbeat import Heard
from http1.errors import UpstreamLost, UpstreamUnavailable
from http1.server import Exchange
from http1.writer import JSON
from observability.audit import AuditUnavailable
from policy.compile import Policy
from policy.grants import Grants, Role
from policy.model import Actor, EngineFacts, Json, Kind, Reference, RequestId
from socket_proxy import admin_looks
from socket_proxy.adoption_requests import AdoptionRequests
from socket_proxy.canary import Canary
from socket_proxy.discovery import shortcomings
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import Reader
from socket_proxy.index import Index
from socket_proxy.leases import AllocatorClient
from socket_proxy.records import RecordsUnavailable
from socket_proxy.refusals import EngineError, Refusal, Unavailable, of_error
from socket_proxy.share_requests import ShareRequests
from socket_proxy.sharing import ImageShares
from socket_proxy.trail import Trail

PREFIX = "/ds01/v1/"
_OF_USERS = ("images", "containers/shares")
_BODY_BYTES = 64 * 1024


class Local:
    """Answers about ds01, each to whom it concerns."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        index: Index,
        facts: FactSource,
        engine_facts: EngineFacts,
        allocator: AllocatorClient,
        lifecycle: Callable[[], Heard],
        canary: Canary | None,
        trail: Trail,
        shares: ImageShares,
        container_shares: ShareRequests,
        adoptions: AdoptionRequests,
    ) -> None:
        self._policy = policy
        self._index = index
        self._facts = facts
        self._engine_facts = engine_facts
        self._allocator = allocator
        self._lifecycle = lifecycle
        self._canary = canary
        self._trail = trail
        self._shares = shares
        self._container_shares = container_shares
        self._adoptions = adoptions

    async def answer(self, exchange: Exchange, actor: Actor) -> None:
        """Serve one request below PREFIX."""
        grants = self._policy().for_actor(actor)
        path = exchange.head.target.removeprefix(PREFIX)
        try:
            if grants.role is Role.NONE and (exchange.head.method == "POST" or path in _OF_USERS):
                found: Mapping[str, Any] | Refusal = _NOBODY
            elif exchange.head.method == "POST":
                found = await self._change(path, actor, grants, await exchange.read_body(_BODY_BYTES))
            else:
                found = await self._route(exchange.head.method, path, actor, grants)
        except (
            Unavailable,
            RecordsUnavailable,
            AuditUnavailable,
            UpstreamUnavailable,
            UpstreamLost,
            EngineError,
        ) as error:
            found = of_error(error, RequestId(""))
        if isinstance(found, Refusal):
            await exchange.respond(found.status, JSON, found.body())
        else:
            await exchange.respond(200, JSON, msgspec.json.encode(found) + b"\n")

    async def _route(
        self, method: str, path: str, actor: Actor, grants: Grants
    ) -> Mapping[str, Any] | Refusal:
        if method != "GET":
            return Refusal(status=405, message="ds01: only GET and POST are served here")
        match path.split("/"):
            case ["whoami"]:
                return await self._whoami(actor, grants)
            case ["status"]:
                return await self._status(actor, grants)
            case ["explain", request_id]:
                return await self._explain(request_id, actor, grants)
            case ["images"]:
                return await self._shares.listed(_reader(actor, grants))
            case ["containers", "shares"]:
                return await self._container_shares.listed(_reader(actor, grants))
            case _ if admin_looks.is_one(path):
                return await admin_looks.look(path, _reader(actor, grants), self._allocator)
        return Refusal(
            status=404,
            message="ds01: there are whoami, status, images, containers/shares and explain/<request id or container> here, "
            "and for admins gpu/inventory, gpu/processes, gpu/queue, gpu/host-access and containers/foreign",
        )

    async def _change(
        self, path: str, actor: Actor, grants: Grants, body: bytes
    ) -> Mapping[str, Any] | Refusal:
        match path:
            case "images/share":
                return await self._shares.share(actor, _reader(actor, grants), body)
            case "images/unshare":
                return await self._shares.unshare(actor, _reader(actor, grants), body)
            case "containers/share":
                return await self._container_shares.share(actor, _reader(actor, grants), body)
            case "containers/unshare":
                return await self._container_shares.unshare(actor, _reader(actor, grants), body)
            case "containers/adopt":
                return await self._adoptions.adopt(actor, _reader(actor, grants), body)
            case "containers/unadopt":
                return await self._adoptions.unadopt(actor, _reader(actor, grants), body)
        return Refusal(
            status=405,
            message="ds01: only GET is served here, and POST share and unshare below images/ and containers/, "
            "adopt and unadopt below containers/",
        )

    async def _whoami(self, actor: Actor, grants: Grants) -> Mapping[str, Any]:
        return {
            "name": actor.name,
            "uid": actor.uid,
            "role": grants.role,
            "groups": sorted(actor.groups),
            "policy_groups": list(grants.groups),
            "socket": grants.user_socket,
            "door": actor.door,
            "container": actor.peer_container,
            "limits": asdict(grants.limits) | {"gpu_equivalents": str(grants.limits.gpu_equivalents)},
            "usage": {
                "containers": self._index.count(Kind.CONTAINER, actor.uid)
                if self._facts.ready.is_set()
                else None,
                "gpus": await self._gpus_held(actor),
            },
        }

    async def _gpus_held(self, actor: Actor) -> int | None:
        """Devices leased to the actor; None when the allocator cannot say (I10: unknown is not 0)."""
        try:
            leases = await self._allocator.leases(actor.uid)
        except Unavailable:
            return None
        return sum(len(lease.devices) for lease in leases if lease.state != "released")

    async def _status(self, actor: Actor, grants: Grants) -> Mapping[str, Any]:
        try:
            allocator: Mapping[str, Any] = await self._allocator.health()
        except Unavailable as error:
            allocator = {"state": "unavailable", "problem": str(error)}
        lifecycle = self._lifecycle()
        status: dict[str, Any] = {
            "engine": {
                "state": "ready" if self._facts.ready.is_set() else "unavailable",
                "version": self._engine_facts.version,
                "api_version": "{}.{}".format(*self._engine_facts.api_version),
                "cgroup_driver": self._engine_facts.cgroup_driver,
            },
            "authz_plugin": _plugin_state(self._canary),
            "allocator": allocator,
            "lifecycle": {"state": lifecycle.pulse, "problem": lifecycle.problem},
            "gpus": await self._devices(actor, grants),
            "policy": {"digest": self._policy().digest},
        }
        if grants.role is Role.ADMIN:
            status["notices"] = shortcomings(self._engine_facts)
            status["objects"] = {str(kind): sum(1 for _ in self._index.all(kind)) for kind in _COUNTED}
        return status

    async def _devices(self, actor: Actor, grants: Grants) -> list[Mapping[str, Json]] | None:
        """Every device that can be leased, free or not; None when the allocator cannot say."""
        try:
            inventory = await self._allocator.inventory()
            leases = await self._allocator.leases(actor.uid)
        except Unavailable:
            return None
        devices = _listed(inventory)
        if devices is None:
            return None
        split = {device.get("parent") for device in devices}
        own = frozenset(uuid for lease in leases if lease.state != "released" for uuid in lease.devices)
        return [
            _device(device, own, admin=grants.role is Role.ADMIN)
            for device in devices
            if device.get("uuid") not in split
        ]

    async def _explain(self, text: str, actor: Actor, grants: Grants) -> Mapping[str, Any] | Refusal:
        """A decision by its request id, or the one that made a container, by what its owner calls it."""
        uid = None if grants.role is Role.ADMIN else actor.uid
        record = self._trail.find(text, uid=uid)
        if record is None:
            maker = await self._maker_of(text, actor, grants)
            record = self._trail.find(maker, uid=uid) if maker else None
        if record is None:
            return Refusal(
                status=404,
                message=f"ds01: there is no container {text} of yours, and no decision of that id on record; "
                "the id stands at the end of a denial, and in the label ds01.created-by of a container",
            )
        return record

    async def _maker_of(self, text: str, actor: Actor, grants: Grants) -> str | None:
        """The request id of the create that made this container, if it is one that the actor sees."""
        if grants.role is Role.NONE:
            return None
        reference = Reference(kind=Kind.CONTAINER, text=text)
        facts = await self._facts.gather(actor, [reference], everything=grants.admin)
        fact = facts.objects[reference]
        entry = self._index.get(Kind.CONTAINER, fact.id) if fact is not None else None
        return entry.created_by if entry is not None else None


_NOBODY = Refusal(
    status=403, message="ds01: your account is in no group of the policy; ask the admin to add it to one"
)


def _reader(actor: Actor, grants: Grants) -> Reader:
    return Reader.of(actor, groups=grants.groups, everything=grants.role is Role.ADMIN)


def _listed(inventory: Mapping[str, Json]) -> list[Mapping[str, Json]] | None:
    """All devices of the allocator; None before its first look, for that nothing is in the list says nothing then."""
    listed = inventory.get("devices")
    if not isinstance(listed, list) or inventory.get("age_seconds") is None:
        return None
    return [device for device in listed if isinstance(device, dict)]


_COUNTED = (Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME)


def _device(device: Mapping[str, Json], own: frozenset[str], *, admin: bool) -> Mapping[str, Json]:
    """One device as an actor may see it: who holds it is for the holder and admins alone (I4)."""
    shown = {key: device.get(key) for key in ("index", "uuid", "profile", "memory_mib")}
    shown["state"] = _device_state(device, own)
    if admin:
        shown["holder"] = device.get("holder")
    return shown


def _device_state(device: Mapping[str, Json], own: frozenset[str]) -> str:
    """yours, busy (leased, or used without a lease), unusable, reserved, unknown or free: unknown is never free (I10)."""
    if device.get("held"):
        return "yours" if device.get("uuid") in own else "busy"
    if device.get("state") != "ok":
        return "unusable"
    match device.get("in_use"):
        case True:
            return "busy"
        case False:
            return _unless(device["obstacle"]) if "obstacle" in device else "unknown"
    return "unknown"


def _unless(obstacle: Json) -> str:
    """free, unless the allocator knows something against it."""
    match obstacle:
        case None:
            return "free"
        case {"kind": "reserved"}:
            return "reserved"
        case {"kind": "unattributed" | "in_use" | "foreign" | "held"}:
            return "busy"
    return "unknown"


def _plugin_state(canary: Canary | None) -> str:
    if canary is None:
        return "not required"
    if canary.singing is None:
        return "unknown"
    return "guarding" if canary.singing else "missing"
