"""The allocator's client: leases over its Unix socket (HTTP and JSON, docs/architecture.md)."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import aiohttp

from host.clock import boot_id, boottime_ms
from policy.model import ContainerId, DeviceUuid, GroupGpus, Json, LeaseGpus, LeaseId, RequestId, Uid
from socket_proxy.ports import Asking, Held, Lease, LeaseOver, LeaseRefused
from socket_proxy.refusals import UNANSWERED, Unavailable

_CONNECT_SECONDS = 2
_ANSWER_SECONDS = 10
_AGAIN_SECONDS = 1  # before an allocator that went away is asked again


_NOT_TOLD = "not_told"
_OVER = (
    404,
    409,
)  # there is no such lease, or it is released or another container's: asking again changes nothing


class AllocatorClient:
    """One session with the allocator; its id tells the allocator which pending leases are still ours.

    INVARIANT: `_working` holds each lease from its grant until it is confirmed or released. A pending lease of this session
    that is not among them was granted to an answer that never came, and evidence has the allocator take it back.
    """

    def __init__(self, socket: Path) -> None:
        self.session = secrets.token_hex(8)
        self._boot_id = boot_id()
        self._working: set[LeaseId] = set()
        self.tell_containers: Callable[[], Awaitable[None]] = (
            _nobody  # for one that was not told since its start
        )
        self._http = aiohttp.ClientSession(
            base_url="http://allocator",
            # No limit of its own: each connection is one client's create, start or end, and those are limited.
            # With one, creates that wait would hold up the releases for which they wait.
            connector=aiohttp.UnixConnector(path=str(socket), limit=0),
            timeout=aiohttp.ClientTimeout(total=_ANSWER_SECONDS, sock_connect=_CONNECT_SECONDS),
        )

    async def close(self) -> None:
        await self._http.close()

    async def reserve(
        self, *, uid: Uid, name: str, want: LeaseGpus, request_id: RequestId
    ) -> Lease | LeaseRefused:
        """Ask for devices; waits as long as `want.wait_seconds` and no longer than the allocator.

        If the allocator goes away meanwhile, it is asked again until that time is over, with the moment of the first
        asking: its line is in the order in which requests first came.
        """
        asked_ms = boottime_ms()
        body = _asked(want, uid=uid, name=name) | {"request_id": request_id, "session": self.session}
        while True:
            left = want.wait_seconds - (boottime_ms() - asked_ms) // 1000
            try:
                status, answer = await self._lease(body, seconds=max(0, left) + _ANSWER_SECONDS)
                break
            except Unavailable as error:
                if left <= _AGAIN_SECONDS:
                    return LeaseRefused(status=503, message=f"ds01: no GPU can be leased: {error}")
            await asyncio.sleep(_AGAIN_SECONDS)
            body |= {"asked_ms": asked_ms, "wait_seconds": left - _AGAIN_SECONDS}
        if status != 201:
            return _refused(status, answer)
        lease = _lease(answer)
        self._working.add(lease.id)
        return lease

    async def _lease(self, body: dict[str, Json], *, seconds: float) -> tuple[int, Mapping[str, Json]]:
        """One asking; an allocator that does not know yet which containers there are is told first. Raises: Unavailable."""
        status, answer = await self._call("POST", "/v1/leases", body, seconds=seconds)
        if (status, answer.get("problem")) != (503, _NOT_TOLD):
            return status, answer
        try:
            await self.tell_containers()
        except UNANSWERED as error:
            raise Unavailable(
                "it was not told yet which containers there are; try again in a moment"
            ) from error
        return await self._call("POST", "/v1/leases", body, seconds=seconds)

    async def confirm(self, lease: LeaseId, container: ContainerId) -> None:
        """Raises: Unavailable: not confirmed; reconciliation does it from the container's label."""
        await self._settled("confirm", lease, {"container_id": container})

    async def release(self, lease: LeaseId, reason: str) -> None:
        """Raises: Unavailable: not released; reconciliation does it once no container carries the lease."""
        await self._settled("release", lease, {"reason": reason})

    async def fetch(self, lease: LeaseId) -> Lease | LeaseRefused:
        return await self._checked("GET", f"/v1/leases/{lease}")

    async def start(self, lease: LeaseId, container: ContainerId) -> Lease | LeaseRefused:
        """Ask whether the container may start with its devices now; the allocator notes that it does."""
        return await self._checked("POST", f"/v1/leases/{lease}/start", {"container_id": container})

    async def take_over(
        self,
        container: ContainerId,
        *,
        uid: Uid,
        name: str,
        groups: Sequence[str],
        restarts: bool,
        request_id: str,
    ) -> tuple[Lease | None, tuple[DeviceUuid, ...]] | LeaseRefused:
        """A lease on what a container has that ds01 did not make; and what it has that another container leases.

        Args: restarts: the engine may start it again by itself. Raises: Unavailable.
        """
        said: dict[str, Json] = {
            "owner_uid": uid,
            "owner_name": name,
            "groups": [*groups],
            "restarts": restarts,
            "session": self.session,
            "request_id": request_id,
        }
        status, answer = await self._call("POST", f"/v1/foreign/{container}/lease", said)
        match answer:
            case {"leases": [*leases], "left_out": [*left_out]} if status == 200:
                taken = next((_lease(one) for one in leases if isinstance(one, dict)), None)
                return taken, tuple(DeviceUuid(str(uuid)) for uuid in left_out)
        return _refused(status, answer)

    def asking(self) -> Asking:
        """To be called before dockerd is asked what it holds, and given to `report`."""
        return Asking(boot_id=self._boot_id, at_ms=boottime_ms(), pending=frozenset(self._working))

    async def report(self, held: tuple[Held, ...], asked: Asking) -> None:
        """Tell the allocator what dockerd held, so that it can repair what a crash left. Raises: Unavailable."""
        said: dict[str, Json] = {
            "session": self.session,
            "boot_id": asked.boot_id,
            "asked_ms": asked.at_ms,
            "containers": [_told(item) for item in held],
            "pending": [*sorted(asked.pending)],
        }
        await self._done("POST", "/v1/evidence", said)

    async def declare(self, reservations: Sequence[Mapping[str, Json]]) -> None:
        """Tell the allocator all that policy reserves. Raises: Unavailable."""
        status, answer = await self._ask(
            "PUT", "/v1/reservations", {"reservations": [*map(dict, reservations)]}
        )
        if status != 200:
            raise Unavailable(_refused(status, answer if isinstance(answer, dict) else {}).message)

    async def tell_running(self, containers: Sequence[Mapping[str, Json]]) -> None:
        """Tell the allocator all containers that run. Raises: Unavailable."""
        await self._done("PUT", "/v1/containers", {"containers": [*map(dict, containers)]})

    async def tell_host_rules(self, rules: Mapping[str, Json]) -> None:
        """Tell the allocator what policy says of GPU processes outside containers and leases. Raises: Unavailable."""
        await self._done("PUT", "/v1/host-rules", dict(rules))

    def forget(self, lease: LeaseId) -> None:
        """Leave a lease to reconciliation: evidence no longer says that it is worked on."""
        self._working.discard(lease)

    async def leases(self, uid: Uid) -> tuple[Lease, ...]:
        """What one user holds or held. Raises: Unavailable."""
        status, listed = await self._ask("GET", f"/v1/leases?owner_uid={uid}")
        if status != 200 or not isinstance(listed, list):
            raise Unavailable("the GPU allocator cannot list leases; tell the admin")
        return tuple(_lease(item) for item in listed if isinstance(item, dict))

    async def health(self) -> Mapping[str, Json]:
        """How the allocator is. Raises: Unavailable."""
        return (await self._call("GET", "/v1/health"))[1]

    async def inventory(self) -> Mapping[str, Json]:
        """Devices as the allocator shows them to its admin."""
        return await self.look("/v1/inventory")

    async def look(self, path: str) -> Mapping[str, Json]:
        """What the allocator shows to its admin under `path`. Raises: Unavailable."""
        return await self._done("GET", path)

    async def has_devices(self) -> bool:
        """Whether there is anything to lease, free or not; not while nobody can say."""
        try:
            return bool((await self.inventory()).get("devices"))
        except Unavailable:
            return False

    async def _checked(self, method: str, path: str, body: Json = None) -> Lease | LeaseRefused:
        """A lease as it is now; why it is none, or that nobody can say, as a value."""
        try:
            status, answer = await self._call(method, path, body)
        except Unavailable as error:
            return LeaseRefused(
                status=503, message=f"ds01: the lease of this container cannot be checked: {error}"
            )
        return _lease(answer) if status == 200 else _refused(status, answer)

    async def _done(self, method: str, path: str, body: Json = None) -> Mapping[str, Json]:
        """The answer of a 200. Raises: Unavailable: any other, in the words of the allocator."""
        status, answer = await self._call(method, path, body)
        if status != 200:
            raise Unavailable(_refused(status, answer).message.removeprefix("ds01: "))
        return answer

    async def _settled(self, verb: str, lease: LeaseId, body: dict[str, Json]) -> None:
        status, answer = await self._call("POST", f"/v1/leases/{lease}/{verb}", body)
        if status in _OVER:
            self._working.discard(lease)
            raise LeaseOver(_refused(status, answer).message)
        if status >= 300:
            raise Unavailable(_refused(status, answer).message)
        self._working.discard(lease)

    async def _call(
        self, method: str, path: str, body: Json = None, *, seconds: float = _ANSWER_SECONDS
    ) -> tuple[int, Mapping[str, Json]]:
        status, answer = await self._ask(method, path, body, seconds=seconds)
        if not isinstance(answer, dict):
            raise Unavailable("the GPU allocator gave an unreadable answer; tell the admin")
        return status, answer

    async def _ask(
        self, method: str, path: str, body: Json = None, *, seconds: float = _ANSWER_SECONDS
    ) -> tuple[int, Json]:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._http.request(method, path, json=body, timeout=timeout) as response:
                return response.status, await response.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Unavailable(
                "the GPU allocator does not answer; try again in a moment or tell the admin"
            ) from error


async def _nobody() -> None:
    """There is nobody to tell."""


def _asked(want: LeaseGpus, *, uid: Uid, name: str) -> dict[str, Json]:
    """What a create asks for, as the allocator reads it; what is not said is left out."""
    said: dict[str, Json] = {
        "owner_uid": uid,
        "owner_name": name,
        "limit": want.limit,
        "classes": [*want.classes],
        "groups": [_group(group) for group in want.groups],
        "wait_seconds": want.wait_seconds,
        "wait_most_seconds": want.wait_most_seconds,
        "weight": want.weight,
        "priority": want.priority,
    }
    optional: dict[str, Json] = {
        "count": want.count,
        "device_ids": None if want.count is not None else [*want.device_ids],
        "profile": want.profile,
        "memory_mib": want.memory_mib,
        "equivalents": None if want.equivalents is None else str(want.equivalents),
        "seconds": want.seconds,
        "hold_seconds": want.hold_seconds,
    }
    return said | {key: value for key, value in optional.items() if value is not None}


def _group(group: GroupGpus) -> dict[str, Json]:
    said: dict[str, Json] = {"name": group.name}
    if group.devices is not None:
        said["devices"] = group.devices
    if group.equivalents is not None:
        said["equivalents"] = str(group.equivalents)
    return said


def _told(held: Held) -> dict[str, Json]:
    said: dict[str, Json] = {"id": held.container, "lease": held.lease, "owner_uid": held.owner_uid}
    return said | {"state": held.state} if held.state else said


def _lease(answer: Mapping[str, Json]) -> Lease:
    match answer:
        case {"id": str(lease), "owner_uid": int(uid), "state": str(state), "devices": [*devices], **rest}:
            container = rest.get("container_id")
            return Lease(
                id=LeaseId(lease),
                owner_uid=Uid(uid),
                state=state,
                devices=tuple(DeviceUuid(str(device)) for device in devices),
                container=ContainerId(container) if isinstance(container, str) else None,
            )
    raise Unavailable("the GPU allocator gave an unreadable lease; tell the admin")


def _refused(status: int, answer: Mapping[str, Json]) -> LeaseRefused:
    message = answer.get("message")
    text = (
        message
        if isinstance(message, str)
        else "the GPU allocator refused without saying why; tell the admin"
    )
    return LeaseRefused(status=status if status in (404, 409, 503) else 503, message=text)
