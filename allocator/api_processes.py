"""Routes about processes: whose each is, what the proxy tells of containers and rules, and access outside containers."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiohttp import web

from allocator.access_requests import Malformed
from allocator.answers import body_of, peer_uid, require_trusted
from allocator.attribution import Kind
from allocator.json_values import BadInput
from allocator.tellings import parse_containers, parse_host_rules
from host.peercred import peer
from host.users import look_up_uid
from policy.model import Uid

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from allocator.access_requests import AccessRequests, Answer
    from allocator.attribution import Attribution
    from allocator.attributor import Attributed, OpenElsewhere
    from allocator.foreign import ForeignContainers
    from allocator.foreign_owners import ForeignOwners
    from allocator.ghosts import Ghost
    from allocator.model import Lease, Moment
    from allocator.tracking import Round, Scan, Told, Tracking
    from allocator.unlisted import Unlisted
    from policy.model import LeaseId

    _Found = TypeVar("_Found", Attributed, OpenElsewhere)

_NOTHING_KNOWN: Final[dict[str, Any]] = {
    "at": None,
    "age_seconds": None,
    "unlisted_devices": None,
    "processes": None,
    "elsewhere": None,
    "elsewhere_age_seconds": None,
    "unattributed_memory": None,
    "unread": None,
}


class ProcessRoutes:
    """Users see what is theirs; the trusted see everything."""

    def __init__(
        self,
        tracking: Tracking,
        told: Told,
        foreign: ForeignContainers,
        owners: ForeignOwners,
        access: AccessRequests,
        *,
        find: Callable[[LeaseId], Awaitable[Lease | None]],
        watched: Callable[[], None],
        now: Callable[[], Moment],
        trusted_uids: frozenset[int],
    ) -> None:
        """Args: find: a lease in whatever state; None when the ledger does not have it. watched: told of each look."""
        self._tracking = tracking
        self._told = told
        self._foreign = foreign
        self._owners = owners
        self._access = access
        self._find = find
        self._watched = watched
        self._now = now
        self._trusted = trusted_uids

    def routes(self) -> tuple[web.RouteDef, ...]:
        """For `Api.application`."""
        return (
            web.get("/v1/processes", self._processes),
            web.put("/v1/containers", self._containers),
            web.put("/v1/host-rules", self._rules),
            web.get("/v1/host-access", self._grants),
            web.post("/v1/host-access", self._grant),
            web.post("/v1/host-access/revoke", self._revoke),
        )

    async def _processes(self, request: web.Request) -> web.Response:
        self._watched()
        problem = self._tracking.problem
        if problem is None and not self._told.are_told:
            problem = "it was not told yet which containers run"
        told = shown(
            self._tracking.last,
            self._told,
            self._owners,
            owner=self._own(request),
            now=self._now(),
            problem=problem,
        )
        return web.json_response(told)

    async def _containers(self, request: web.Request) -> web.Response:
        require_trusted(request, self._trusted)
        told = parse_containers(await body_of(request))
        # After the loss of a ledger what its leases gave is in use all the same, by what is no lease of ours.
        lost = [one.has for one in told.carrying if await self._find(one.lease) is None]
        self._told.tell(told.running)
        self._foreign.tell((*told.foreign, *lost))
        self._owners.tell(self._foreign.inspected())
        return web.json_response({})

    async def _rules(self, request: web.Request) -> web.Response:
        require_trusted(request, self._trusted)
        self._tracking.rules = parse_host_rules(await body_of(request))
        return web.json_response({})

    async def _grants(self, request: web.Request) -> web.Response:
        return _answered(await self._access.grants(self._own(request)))

    async def _grant(self, request: web.Request) -> web.Response:
        require_trusted(request, self._trusted)
        body = await body_of(request)
        return await _read_well(self._access.grant(body, by=await asyncio.to_thread(_by, request)))

    async def _revoke(self, request: web.Request) -> web.Response:
        require_trusted(request, self._trusted)
        body = await body_of(request)
        return await _read_well(self._access.revoke(body, by=await asyncio.to_thread(_by, request)))

    def _own(self, request: web.Request) -> Uid | None:
        """Whose things this peer sees; None: everybody's."""
        uid = peer_uid(request)
        return None if uid in self._trusted else Uid(uid)


def _by(request: web.Request) -> str:
    """Who asks, by name: who logged in, through sudo. Blocks as long as NSS does."""
    connection = None if request.transport is None else request.transport.get_extra_info("socket")
    if connection is None:
        raise ConnectionResetError("the peer is gone")
    found = peer(connection)
    uid = found.uid if found.login_uid is None else found.login_uid
    account = look_up_uid(uid)
    return f"uid {uid}" if account is None else account.name


async def _read_well(asked: Awaitable[Answer]) -> web.Response:
    try:
        return _answered(await asked)
    except Malformed as error:
        raise BadInput(str(error)) from error


def _answered(answer: Answer) -> web.Response:
    status, body = answer
    return web.json_response(body, status=status)


def shown(
    last: Round | None,
    told: Told,
    owners: ForeignOwners,
    *,
    owner: Uid | None,
    now: Moment,
    problem: str | None,
) -> dict[str, Any]:
    """The last round as JSON; null is what is not known, or not for this user to know.

    Args:
        owners: by evidence, which proves nothing.
        owner: only what is this user's; None: everything.
        problem: why the round is not of now, or not there yet; None: it is of now.
    SECURITY: what is UNKNOWN is shown to the admin alone: it may be anybody's.
    """
    about = {"scope": "all" if owner is None else "own", "problem": problem}
    if last is None:
        return about | _NOTHING_KNOWN
    whose = partial(_whose, told=told, owners=owners)
    ghosts = None if owner is not None or last.ghosts is None else [_ghost(one) for one in last.ghosts]
    return {
        **about,
        "at": last.at.utc,
        "age_seconds": now.seconds_since(last.at),
        "unlisted_devices": [_unlisted(one, now) for one in last.unlisted],
        "processes": [
            _process(one, last) | whose(one.attribution) for one in _visible(last.processes, owner)
        ],
        "unattributed_memory": ghosts,
        **_scanned(last.scan, owner, now, whose),
    }


def _visible(found: Collection[_Found], owner: Uid | None) -> list[_Found]:
    return [one for one in found if owner is None or one.attribution.owner == owner]


def _scanned(
    scan: Scan | None, owner: Uid | None, now: Moment, whose: Callable[[Attribution], dict[str, Any]]
) -> dict[str, Any]:
    """Who only has a device file open."""
    if scan is None:
        return {"elsewhere": None, "elsewhere_age_seconds": None, "unread": None}
    return {
        "elsewhere": [_elsewhere(one) | whose(one.attribution) for one in _visible(scan.elsewhere, owner)],
        "elsewhere_age_seconds": now.seconds_since(scan.at),
        "unread": len(scan.unread) if owner is None else None,
    }


def _unlisted(one: Unlisted, now: Moment) -> dict[str, Any]:
    return {
        "device": one.device,
        "index": one.index,
        "why": one.why,
        "age_seconds": None if one.listed is None else now.seconds_since(one.listed),
    }


def _process(one: Attributed, of: Round) -> dict[str, Any]:
    return {
        "pid": one.seen.pid,
        "device": one.seen.device,
        "gpu_instance_id": one.seen.gpu_instance_id,
        "compute_instance_id": one.seen.compute_instance_id,
        "memory_mib": one.seen.memory_mib,
        "name": one.name,
        "leased": None if one.identity is None else of.leased.get((one.identity, one.seen.device)),
        "ended_at": None if one.ended is None else one.ended.utc,
    }


def _elsewhere(one: OpenElsewhere) -> dict[str, Any]:
    return {
        "pid": one.facts.identity.pid,
        "name": one.facts.name,
        "files": [f"{file.driver} {file.minor}" for file in sorted(one.files)],
    }


def _whose(found: Attribution, told: Told, owners: ForeignOwners) -> dict[str, Any]:
    foreign = None if found.container is None else owners.of(found.container)
    return {
        "kind": found.kind.value,
        "owner_uid": found.owner,
        "proof": None if found.proof is None else found.proof.value,
        "container_id": found.container,
        "container": told.name(found.container) if found.kind is Kind.CONTAINER else None,
        "step": found.step or None,
        "unit": found.unit or None,
        "why": found.why or None,
        "probable_owner_uid": None if foreign is None else foreign.owner,
        "evidence": None if foreign is None else foreign.why,
    }


def _ghost(one: Ghost) -> dict[str, Any]:
    return {"device": one.device, "used_mib": one.used_mib, "since": one.since.utc}
