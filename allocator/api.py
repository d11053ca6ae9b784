"""The allocator over HTTP: who may ask (peer credentials), strict reading of every body, errors as {"message"}."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING

from aiohttp import web

from allocator import api_devices, bodies, shown
from allocator.answers import body_of, errors, message, peer_uid, refusal, require_trusted, sent, who
from allocator.json_values import BadInput, text_of
from allocator.model import InventoryUnavailable, Lease, Refusal
from allocator.obstacles import obstacles, outage
from allocator.reach import left_with
from allocator.reconcile import Contradiction
from allocator.reserving import POLICY
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from allocator.adoption import Ownership
    from allocator.model import Moment
    from allocator.service import Allocator

_BODY_BYTES = 8 << 20  # evidence of some 10,000 containers


class Api:
    """Routes of docs/architecture.md, over one service."""

    def __init__(
        self,
        service: Allocator,
        *,
        trusted_uids: frozenset[int],
        now: Callable[[], Moment],
        new_id: Callable[[], LeaseId],
        foreign_owner: Callable[[ContainerId], Ownership | None] = lambda _container: None,
        log_problem: Callable[[], str | None] = lambda: "the kernel log is not read",
    ) -> None:
        """Serve `service`; only `trusted_uids` may lease and see what is not theirs.

        Args:
            foreign_owner: whose a container may be that ds01 did not make.
            log_problem: why XIDs are not heard in the kernel log; None: they are.
        """
        self._log_problem = log_problem
        self._foreign_owner = foreign_owner
        self._service = service
        self._trusted = trusted_uids
        self._now = now
        self._new_id = new_id

    def application(self, *more: web.RouteDef) -> web.Application:
        """The aiohttp application with `more` routes; run it with handler_cancellation, so that who leaves stops waiting."""
        application = web.Application(middlewares=[errors], client_max_size=_BODY_BYTES)
        application.add_routes(
            [
                web.get("/v1/health", self._health),
                web.get("/v1/inventory", self._inventory),
                web.get("/v1/leases", self._leases),
                web.get("/v1/leases/{id}", self._find),
                web.post("/v1/leases", self._lease),
                web.post("/v1/leases/{id}/confirm", self._confirm),
                web.post("/v1/leases/{id}/start", self._start),
                web.post("/v1/leases/{id}/release", self._release),
                web.post("/v1/evidence", self._evidence),
                web.get("/v1/queue", self._queue),
                web.get("/v1/reservations", self._reservations),
                web.post("/v1/reservations", self._reserve),
                web.put("/v1/reservations", self._declare),
                web.delete("/v1/reservations/{id}", self._unreserve),
                web.post("/v1/devices/{uuid}/quarantine", self._quarantine),
                web.post("/v1/devices/{uuid}/unquarantine", self._unquarantine),
                *more,
            ]
        )
        return application

    async def _health(self, _request: web.Request) -> web.Response:
        service = self._service
        log_problem = self._log_problem()
        return web.json_response(
            api_devices.health(service.watch, reconciled=service.reconciled, log_problem=log_problem)
        )

    async def _inventory(self, request: web.Request) -> web.Response:
        uid, watch = Uid(peer_uid(request)), self._service.watch
        leases = await self._service.leases(None)
        windows = await self._service.reserving.windows()
        board, _ = await self._service.queue()
        snapshot = watch.snapshot if board is None else board.snapshot
        devices = () if snapshot is None else snapshot.devices.values()
        told = self._service.foreign.are_told
        foreign = self._service.foreign.by_device(snapshot) if snapshot is not None and told else {}
        holders = {device: lease for lease in leases for device in lease.devices}
        if snapshot is not None:
            holders = {gpu: lease for lease in leases for gpu in left_with(lease, snapshot)} | holders
        sees_all, now = uid in self._trusted, self._now()
        known = None if board is None else obstacles(board, windows, uid=uid, now=now, sees_all=sees_all)
        return web.json_response(
            {
                "state": "unavailable" if watch.problem else "ok",
                "problem": watch.problem,
                "unidentified": {} if snapshot is None else dict(snapshot.unidentified),
                "age_seconds": watch.age_seconds(),
                "fresh": watch.is_fresh(),
                "devices": [
                    api_devices.shown(
                        device,
                        holders.get(device.uuid),
                        uid=uid,
                        sees_all=sees_all,
                        now=now,
                        obstacle=outage() if known is None else known[device.uuid],
                        foreign=[(one, self._foreign_owner(one.id)) for one in foreign.get(device.uuid, ())]
                        if told
                        else None,
                        note=self._service.upkeep.note(holders[device.uuid].id)
                        if device.uuid in holders
                        else None,
                    )
                    for device in devices
                ],
                "links": api_devices.links(watch),
            }
        )

    async def _leases(self, request: web.Request) -> web.Response:
        uid = peer_uid(request)
        text = request.query.get("owner_uid")
        if text is not None and not (text.isascii() and text.isdecimal() and len(text) <= 10):
            raise BadInput("owner_uid: a number is needed")
        owner = None if text is None else Uid(int(text))
        if uid not in self._trusted and owner is None:
            owner = Uid(uid)
        if owner != uid:
            self._require_trusted(request)
        return web.json_response([self._shown(lease) for lease in await self._service.leases(owner)])

    async def _find(self, request: web.Request) -> web.Response:
        lease = await self._service.find(_id(request))
        uid = peer_uid(request)
        # SECURITY: another's lease and none at all are the same answer (I4).
        if lease is None or (lease.owner_uid != uid and uid not in self._trusted):
            raise _no_such_lease()
        return web.json_response(self._shown(lease))

    async def _lease(self, request: web.Request) -> web.StreamResponse:
        self._require_trusted(request)
        outcome = await self._service.lease(bodies.parse_want(await body_of(request)))
        if isinstance(outcome, Refusal):
            return web.json_response(
                {"message": f"ds01: {outcome.message}", "refusal": outcome.kind.value}, status=409
            )
        try:
            return await sent(request, web.json_response(self._shown(outcome), status=201))
        except (asyncio.CancelledError, OSError):
            # Nobody learned of this lease: it goes back. What is lost later is settled by evidence.
            await self._service.release(outcome.id, who=outcome.session, why="the client was gone")
            raise

    async def _confirm(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        container = bodies.parse_container(await body_of(request))
        return self._one(await self._service.confirm(_id(request), container, who=who(request)))

    async def _start(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        container = bodies.parse_container(await body_of(request))
        try:
            return self._one(await self._service.start(_id(request), container, who=who(request)))
        except InventoryUnavailable as error:
            said = f"the GPU lease of this container cannot be checked now: {error} (rule gpu_lease)"
            return message(503, f"{said}; try again in a moment or tell the admin")

    async def _release(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        why = bodies.parse_reason(await body_of(request))
        return self._one(await self._service.release(_id(request), who=who(request), why=why))

    async def _queue(self, request: web.Request) -> web.Response:
        uid, now = peer_uid(request), self._now()
        sees_all = uid in self._trusted
        board, waiting = await self._service.queue()
        windows = await self._service.reserving.windows()
        return web.json_response(
            {
                "waiting": [
                    shown.waiter(item, position, now, uid, sees_all=sees_all)
                    for position, item in enumerate(waiting, start=1)
                ],
                "reservations": shown.windows(windows, now, board),
            }
        )

    async def _reservations(self, _request: web.Request) -> web.Response:
        reserving = self._service.reserving
        board, _ = await self._service.queue()
        items, times = await reserving.all(), await reserving.windows()
        return web.json_response({"reservations": shown.reservations(items, times, self._now(), board)})

    async def _reserve(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        item = bodies.parse_reservation(
            await body_of(request), number=str(self._new_id()), source=who(request)
        )
        if self._service.reserving.is_over(item):
            raise BadInput(f"when: {item.when_text} is over")
        await self._service.reserving.add(item)
        board, _ = await self._service.queue()
        answer = shown.reservation(item) | {"warning": shown.too_much(item, board)}
        return web.json_response(answer, status=201)

    async def _declare(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        declared = bodies.parse_declared(await body_of(request), source=POLICY)
        await self._service.reserving.declare(declared)
        return web.json_response([shown.reservation(item) for item in declared])

    async def _unreserve(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        number = request.match_info["id"]
        if number.startswith(f"{POLICY}-"):
            raise refusal(409, "the policy states this reservation; take it out of there")
        by = text_of(request.query.get("by", who(request)), "by")
        if not await self._service.reserving.remove(number, by=by):
            raise refusal(404, "there is no such reservation; list them with ds01 gpu reservations")
        return web.json_response({})

    async def _evidence(self, request: web.Request) -> web.Response:
        self._require_trusted(request)
        done = await self._service.settle(bodies.parse_evidence(await body_of(request)))
        changes = [item for item in done if not isinstance(item, Contradiction)]
        conflicts = [asdict(item) for item in done if isinstance(item, Contradiction)]
        return web.json_response({"changes": [asdict(item) for item in changes], "conflicts": conflicts})

    def _shown(self, lease: Lease) -> dict[str, Any]:
        return shown.lease(lease, self._now(), self._service.upkeep.note(lease.id))

    def _one(self, lease: Lease | None) -> web.Response:
        if lease is None:
            raise _no_such_lease()
        return web.json_response(self._shown(lease))

    async def _quarantine(self, request: web.Request) -> web.Response:
        device, who, why = await self._device_order(request)
        if not await self._service.upkeep.quarantine(device, who=who, why=why):
            raise refusal(404, f"there is no device {device}; ds01 gpu lists them")
        return web.json_response({"device": device, "state": "quarantined"})

    async def _unquarantine(self, request: web.Request) -> web.Response:
        device, who, why = await self._device_order(request)
        if not await self._service.upkeep.release(device, who=who, why=why):
            raise refusal(404, f"device {device} is not in quarantine; ds01 gpu lists those that are")
        return web.json_response({"device": device, "state": "released"})

    async def _device_order(self, request: web.Request) -> tuple[DeviceUuid, str, str]:
        """Which device, by whom, and why."""
        self._require_trusted(request)
        who, why = bodies.parse_order(await body_of(request))
        return DeviceUuid(text_of(request.match_info["uuid"], "uuid")), who, why

    def _require_trusted(self, request: web.Request) -> None:
        require_trusted(request, self._trusted)


def _id(request: web.Request) -> LeaseId:
    return LeaseId(request.match_info["id"])


def _no_such_lease() -> web.HTTPException:
    return refusal(404, "there is no such lease; list yours with ds01 status")
