"""Routes about MIG: what there is, what a layout would change, and changing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from allocator.answers import body_of, message, refusal, require_trusted, who
from allocator.mig import Create, Destroy, Layout, LayoutInvalid, SetMode
from allocator.mig_driver import MigRefused
from allocator.tellings import parse_layouts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from allocator.mig import Partition, Plan, Step
    from allocator.mig_apply import Outcome, Repartition
    from policy.model import DeviceUuid


class MigRoutes:
    """For the trusted alone."""

    def __init__(self, repartition: Repartition, *, trusted_uids: frozenset[int]) -> None:
        self._repartition = repartition
        self._trusted = trusted_uids

    def routes(self) -> tuple[web.RouteDef, ...]:
        """For `Api.application`."""
        return (
            web.get("/v1/mig", self._told(self._gpus)),
            web.post("/v1/mig/plan", self._told(self._plan)),
            web.post("/v1/mig/apply", self._told(self._apply)),
        )

    def _told(
        self, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def guarded(request: web.Request) -> web.Response:
            require_trusted(request, self._trusted)
            try:
                return await handler(request)
            except (LayoutInvalid, MigRefused) as error:
                return message(409, str(error))

        return guarded

    async def _gpus(self, _request: web.Request) -> web.Response:
        return web.json_response({"gpus": [_gpu(one) for one in await self._repartition.partitions()]})

    async def _plan(self, request: web.Request) -> web.Response:
        wanted, index = await self._wanted(request)
        plans = await self._repartition.plans(wanted)
        return web.json_response({"plans": [_planned(one, index) for one in plans]})

    async def _apply(self, request: web.Request) -> web.Response:
        wanted, index = await self._wanted(request)
        done = await self._repartition.apply(wanted, who=who(request))
        outcomes = [_outcome(one, index) for one in done.outcomes]
        return web.json_response({"outcomes": outcomes, "cdi_problem": done.cdi_problem})

    async def _wanted(
        self, request: web.Request
    ) -> tuple[Mapping[DeviceUuid, Layout], Mapping[DeviceUuid, str]]:
        """The layouts, and what nvidia-smi calls each GPU."""
        wanted = parse_layouts(await body_of(request))
        index = {one.gpu: one.index for one in await self._repartition.partitions()}
        unknown = sorted(wanted.keys() - index.keys())
        if unknown:
            raise refusal(409, f"there is no GPU {unknown[0]} that can do MIG; see nvidia-smi -L")
        return {gpu: Layout(profiles=profiles) for gpu, profiles in wanted.items()}, index


def _gpu(one: Partition) -> dict[str, Any]:
    return {
        "gpu": one.gpu,
        "index": one.index,
        "mig": one.mig_now,
        "mig_after_reset": one.mig_pending,
        "profiles": [profile.name for profile in one.profiles],
        "instances": [
            {"id": item.number, "profile": item.profile, "start": item.start, "devices": list(item.devices)}
            for item in one.instances
        ],
    }


def _planned(one: Plan, index: Mapping[DeviceUuid, str]) -> dict[str, Any]:
    return {
        "gpu": one.gpu,
        "index": index.get(one.gpu, "?"),
        "steps": [_step(step) for step in one.steps],
        "kept": list(one.kept),
        "missing": dict(one.missing),
    }


def _outcome(one: Outcome, index: Mapping[DeviceUuid, str]) -> dict[str, Any]:
    return {
        "plan": _planned(one.plan, index),
        "done": one.done,
        "problem": one.problem,
        "waits_for_reset": one.waits_for_reset,
    }


def _step(step: Step) -> dict[str, Any]:
    match step:
        case Destroy(instance=instance):
            return {
                "do": "destroy",
                "profile": instance.profile,
                "start": instance.start,
                "id": instance.number,
            }
        case Create(profile=profile, start=start):
            return {"do": "create", "profile": profile.name, "start": start}
        case SetMode(enabled=enabled):
            return {"do": "set_mode", "enabled": enabled}
