"""The allocator over HTTP: who may ask (peer credentials), strict reading of every body, errors as {"message"}."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aiohttp import web

from allocator import api_devices
from allocator.ledger import Conflict
from allocator.model import GpuRequest, InventoryUnavailable, Lease, LedgerUnavailable, Refusal
from allocator.reconcile import Carrier, Contradiction, Evidence
from host.peercred import credentials
from observability import events
from observability.logging import log
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from allocator.reconcile import Change
    from allocator.service import Allocator

_BODY_BYTES = 8 << 20  # evidence of some 10,000 containers
_MOST_DEVICES = 1024
_MOST_WAIT_SECONDS = 24 * 3600
_TEXT = re.compile(r"[ -~]{1,128}")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_UID_MAX = 2**32 - 2


class BadInput(Exception):  # noqa: N818  the name says what is wrong
    """The request cannot be read: 400. The text names the field."""


class Api:
    """Routes of docs/architecture.md, over one service."""

    def __init__(self, service: Allocator, *, trusted_uids: frozenset[int]) -> None:
        """Serve `service`; only `trusted_uids` may lease and see what is not theirs."""
        self._service = service
        self._trusted = trusted_uids

    def application(self) -> web.Application:
        """The aiohttp application; run it with handler_cancellation, so that who leaves stops waiting."""
        application = web.Application(middlewares=[_errors], client_max_size=_BODY_BYTES)
        application.add_routes(
            [
                web.get("/v1/health", self._health),
                web.get("/v1/inventory", self._inventory),
                web.get("/v1/leases", self._leases),
                web.get("/v1/leases/{id}", self._find),
                web.post("/v1/leases", self._lease),
                web.post("/v1/leases/{id}/confirm", self._confirm),
                web.post("/v1/leases/{id}/release", self._release),
                web.post("/v1/evidence", self._evidence),
                web.post("/v1/devices/{uuid}/quarantine", self._quarantine),
                web.post("/v1/devices/{uuid}/unquarantine", self._unquarantine),
            ]
        )
        return application

    async def _health(self, _request: web.Request) -> web.Response:
        told = api_devices.health(self._service.watch, reconciled=self._service.reconciled)
        return web.json_response(told)

    async def _inventory(self, request: web.Request) -> web.Response:
        uid = _peer_uid(request)
        leases = await self._service.leases(None)
        holders = {device: lease for lease in leases for device in lease.devices}
        watch = self._service.watch
        devices = () if watch.snapshot is None else watch.snapshot.devices.values()
        sees_all = uid in self._trusted
        return web.json_response(
            {
                "state": "unavailable" if watch.problem else "ok",
                "age_seconds": watch.age_seconds(),
                "devices": [
                    api_devices.shown(device, holders.get(device.uuid), uid=uid, sees_all=sees_all)
                    for device in devices
                ],
                "links": api_devices.links(watch),
            }
        )

    async def _leases(self, request: web.Request) -> web.Response:
        uid = _peer_uid(request)
        text = request.query.get("owner_uid")
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) <= 10):
            raise BadInput("owner_uid: a number is needed")
        owner = None if text is None else Uid(int(text))
        if uid not in self._trusted and owner is None:
            owner = Uid(uid)
        if owner != uid:
            self._require_trusted(request)
        leases = await self._service.leases(owner)
        return web.json_response([_lease(lease, self._service.note(lease.id)) for lease in leases])

    async def _find(self, request: web.Request) -> web.Response:
        lease = await self._service.find(LeaseId(request.match_info["id"]))
        uid = _peer_uid(request)
        # SECURITY: another's lease and none at all are the same answer (I4).
        if lease is None or (lease.owner_uid != uid and uid not in self._trusted):
            raise _no_such_lease()
        return web.json_response(_lease(lease, self._service.note(lease.id)))

    async def _lease(self, request: web.Request) -> web.StreamResponse:
        self._require_trusted(request)
        outcome = await self._service.lease(parse_want(await _body(request)))
        if isinstance(outcome, Refusal):
            return web.json_response(
                {"message": f"ds01: {outcome.message}", "refusal": outcome.kind.value}, status=409
            )
        try:
            return await _sent(request, web.json_response(_lease(outcome), status=201))
        except (asyncio.CancelledError, OSError):
            # Nobody learned of this lease: it goes back. What is lost later is settled by evidence.
            await self._service.release(outcome.id, why="the client was gone")
            raise

    async def _confirm(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        body = _only(await _body(request), required={"container_id"})
        lease = await self._service.confirm(
            LeaseId(request.match_info["id"]), _container(body["container_id"], "container_id")
        )
        return _one(lease)

    async def _release(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        body = _only(await _body(request), required={"reason"})
        why = _text(body["reason"], "reason")
        return _one(await self._service.release(LeaseId(request.match_info["id"]), why=why))

    async def _evidence(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        done = await self._service.settle(parse_evidence(await _body(request)))
        changes = [item for item in done if not isinstance(item, Contradiction)]
        conflicts = [asdict(item) for item in done if isinstance(item, Contradiction)]
        return web.json_response({"changes": [_change(item) for item in changes], "conflicts": conflicts})

    async def _quarantine(self, request: web.Request) -> web.Response:
        device, who, why = await self._device_order(request)
        if not await self._service.quarantine(device, who=who, why=why):
            raise _answer(404, f"there is no device {device}; ds01 gpu lists them")
        return web.json_response({"device": device, "state": "quarantined"})

    async def _unquarantine(self, request: web.Request) -> web.Response:
        device, who, why = await self._device_order(request)
        if not await self._service.release_quarantine(device, who=who, why=why):
            raise _answer(404, f"device {device} is not in quarantine; ds01 gpu lists those that are")
        return web.json_response({"device": device, "state": "released"})

    async def _device_order(self, request: web.Request) -> tuple[DeviceUuid, str, str]:
        """Which device, by whom, and why."""
        self._require_trusted(request)
        body = _only(await _body(request), required={"who", "reason"})
        device = DeviceUuid(_text(request.match_info["uuid"], "uuid"))
        return device, _text(body["who"], "who"), _text(body["reason"], "reason")

    def _require_trusted(self, request: web.Request) -> None:
        """SECURITY: the kernel says who asks; no header does."""
        if _peer_uid(request) not in self._trusted:
            raise _answer(403, "only the ds01 proxy and root may do this; use docker as usual")


def parse_want(body: Mapping[str, Any]) -> GpuRequest:
    """What a create asks for. Raises: BadInput."""
    required = {"owner_uid", "owner_name", "limit", "wait_seconds", "request_id", "session"}
    _only(body, required=required, optional={"count", "device_ids"})
    if ("count" in body) == ("device_ids" in body):
        raise BadInput("count, device_ids: exactly one is needed")
    ids = _list(body.get("device_ids", []), "device_ids")
    if "device_ids" in body and not 0 < len(ids) <= _MOST_DEVICES:
        raise BadInput(f"device_ids: 1 to {_MOST_DEVICES} are needed")
    return GpuRequest(
        owner_uid=Uid(_number(body["owner_uid"], "owner_uid", most=_UID_MAX)),
        owner_name=_text(body["owner_name"], "owner_name"),
        limit=_number(body["limit"], "limit", most=_MOST_DEVICES),
        wait_seconds=_number(body["wait_seconds"], "wait_seconds", most=_MOST_WAIT_SECONDS),
        request_id=_text(body["request_id"], "request_id"),
        session=_text(body["session"], "session"),
        count=_number(body["count"], "count", least=1, most=_MOST_DEVICES) if "count" in body else None,
        device_ids=tuple(_text(item, "device_ids") for item in ids),
    )


def parse_evidence(body: Mapping[str, Any]) -> Evidence:
    """What a proxy says dockerd holds. Raises: BadInput."""
    _only(body, required={"session", "containers"}, optional={"pending"})
    pending = None
    if "pending" in body:
        pending = frozenset(LeaseId(_text(item, "pending")) for item in _list(body["pending"], "pending"))
    return Evidence(
        session=_text(body["session"], "session"),
        carriers=tuple(_carrier(item) for item in _list(body["containers"], "containers")),
        pending=pending,
    )


def _carrier(item: Any) -> Carrier:
    if not isinstance(item, dict):
        raise BadInput("containers: objects are needed")
    _only(item, required={"id", "lease", "owner_uid"})
    return Carrier(
        container=_container(item["id"], "containers.id"),
        lease=LeaseId(_text(item["lease"], "containers.lease")),
        owner_uid=Uid(_number(item["owner_uid"], "containers.owner_uid", most=_UID_MAX)),
    )


def _only(
    body: Mapping[str, Any], *, required: set[str], optional: set[str] | None = None
) -> Mapping[str, Any]:
    missing, unknown = required - body.keys(), body.keys() - required - (optional or set())
    if missing or unknown:
        raise BadInput(f"{min(missing or unknown)[:80]}: {'missing' if missing else 'unknown field'}")
    return body


def _number(value: Any, name: str, *, least: int = 0, most: int) -> int:
    # A bool is an int in Python, and no number here.
    if type(value) is not int or not least <= value <= most:
        raise BadInput(f"{name}: a whole number from {least} to {most} is needed")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise BadInput(f"{name}: 1 to 128 printable ASCII characters are needed")
    return value


def _container(value: Any, name: str) -> ContainerId:
    if not isinstance(value, str) or not _CONTAINER.fullmatch(value):
        raise BadInput(f"{name}: a full container id is needed")
    return ContainerId(value)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{name}: a list is needed")
    return value


async def _body(request: web.Request) -> Mapping[str, Any]:
    """One JSON object without duplicate keys. Raises: BadInput."""
    try:
        body = json.loads(await request.read(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadInput("the body is not one JSON object") from error
    if not isinstance(body, dict):
        raise BadInput("the body is not one JSON object")
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _peer_uid(request: web.Request) -> int:
    peer = None if request.transport is None else request.transport.get_extra_info("socket")
    if peer is None:
        raise ConnectionResetError("the peer is gone")
    return credentials(peer)[1]


async def _sent(request: web.Request, response: web.Response) -> web.Response:
    """Write the answer now. Raises: OSError: the peer is gone."""
    await response.prepare(request)
    await response.write_eof()
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the peer is gone")
    return response


@web.middleware
async def _errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The one place where an error becomes an answer."""
    try:
        return await handler(request)
    except BadInput as error:
        return _message(400, str(error))
    except Conflict as error:
        return _message(409, str(error))
    except (InventoryUnavailable, LedgerUnavailable) as error:
        return _message(503, f"{error}; no GPU can be leased now, tell the admin")
    except web.HTTPException as error:
        return _message(error.status, error.text or error.reason)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  the edge: a bug answers 500 and says nothing of itself
        log(events.DAEMON_FAILED, problem=repr(error))
        return _message(500, "the allocator failed; tell the admin")


def _message(status: int, text: str) -> web.Response:
    return web.json_response({"message": f"ds01: {text}"}, status=status)


def _answer(status: int, text: str) -> web.HTTPException:
    kinds = {403: web.HTTPForbidden, 404: web.HTTPNotFound}
    return kinds[status](text=text)


def _no_such_lease() -> web.HTTPException:
    return _answer(404, "there is no such lease; list yours with ds01 status")


def _one(lease: Lease | None) -> web.Response:
    if lease is None:
        raise _no_such_lease()
    return web.json_response(_lease(lease))


def _lease(lease: Lease, note: str | None = None) -> dict[str, Any]:
    return {
        "id": lease.id,
        "owner_uid": lease.owner_uid,
        "owner_name": lease.owner_name,
        "state": lease.state.value,
        "devices": list(lease.devices),
        "container_id": lease.container,
        "created_at": lease.created.utc,
        "note": note,
    }


def _change(change: Change | Contradiction) -> dict[str, Any]:
    return asdict(change)
