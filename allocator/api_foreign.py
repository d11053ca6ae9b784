"""Routes about containers that ds01 did not make: which there are and whose they may be, and a lease for one that was adopted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from allocator import shown
from allocator.answers import body_of, refusal, require_trusted
from allocator.bodies import parse_take_over
from allocator.json_values import container_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from allocator.foreign import Foreign
    from allocator.foreign_owners import ForeignOwners
    from allocator.model import Moment
    from allocator.service import Allocator
    from policy.model import DeviceUuid


class ForeignRoutes:
    """For the trusted alone."""

    def __init__(
        self,
        service: Allocator,
        owners: ForeignOwners,
        *,
        trusted_uids: frozenset[int],
        now: Callable[[], Moment],
    ) -> None:
        self._service = service
        self._owners = owners
        self._trusted = trusted_uids
        self._now = now

    def routes(self) -> tuple[web.RouteDef, ...]:
        """For `Api.application`."""
        return (
            web.get("/v1/foreign", self._listed),
            web.post("/v1/foreign/{id}/lease", self._take_over),
        )

    async def _listed(self, request: web.Request) -> web.Response:
        require_trusted(request, self._trusted)
        snapshot = self._service.watch.snapshot
        had = None if snapshot is None else self._service.foreign.by_device(snapshot)
        return web.json_response(
            {
                "containers": [
                    self._told(
                        one,
                        None if had is None else sorted(uuid for uuid, some in had.items() if one in some),
                    )
                    for one in self._service.foreign.all()
                ]
            }
        )

    async def _take_over(self, request: web.Request) -> web.Response:
        require_trusted(request, self._trusted)
        container = container_of(request.match_info["id"], "id")
        taken = await self._service.take_over(parse_take_over(await body_of(request), container=container))
        if taken is None:
            raise refusal(404, "no such container was told of; it may be new, try again in half a minute")
        leases = [] if taken.lease is None else [shown.lease(taken.lease, self._now(), None)]
        return web.json_response({"leases": leases, "left_out": list(taken.left_out)})

    def _told(self, one: Foreign, devices: Collection[DeviceUuid] | None) -> dict[str, Any]:
        """devices: None: nobody can say now."""
        found = self._owners.of(one.id)
        return {
            "container": one.name,
            "container_id": one.id,
            "runs": one.runs,
            "adopted_by": one.adopted_by,
            "probable_owner_uid": None if found is None else found.owner,
            "evidence": None if found is None or found.evidence is None else found.evidence.value,
            "why": None if found is None else found.why,
            "devices": None if devices is None else [*devices],
        }
