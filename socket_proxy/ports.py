"""What the proxy needs from other rooms, as values in and values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from policy.model import ContainerId, DeviceUuid, LeaseGpus, LeaseId, RequestId, Uid
from socket_proxy.refusals import Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A grant of devices. `container` None: the create it is for has not been confirmed."""

    id: LeaseId
    owner_uid: Uid
    state: str  # pending, bound, active, held, lost, released
    devices: tuple[DeviceUuid, ...]
    container: ContainerId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRefused:
    """Why there is no lease. `status` 409: wait or ask for less; 503: the allocator cannot say."""

    status: int
    message: str


class LeaseOver(Unavailable):
    """The allocator knows no such lease, or it is over or another container's. Asking again changes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A container that carries a lease, as the engine shows it now."""

    container: ContainerId
    lease: LeaseId
    owner_uid: Uid
    state: str = ""  # the engine's word, "running"; empty: not told


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """What has to be noted before the engine is asked what it holds.

    boot_id, at_ms: which boot, and its CLOCK_BOOTTIME.
    pending: leases that are worked on, whose containers may come only after the engine's answer.
    """

    boot_id: str
    at_ms: int
    pending: frozenset[LeaseId]


class Leaser(Protocol):
    """The allocator, as the proxy uses it."""

    async def reserve(
        self, *, uid: Uid, name: str, want: LeaseGpus, request_id: RequestId
    ) -> Lease | LeaseRefused: ...

    async def confirm(self, lease: LeaseId, container: ContainerId) -> None: ...

    async def start(self, lease: LeaseId, container: ContainerId) -> Lease | LeaseRefused: ...

    async def release(self, lease: LeaseId, reason: str) -> None: ...

    async def fetch(self, lease: LeaseId) -> Lease | LeaseRefused: ...

    def forget(self, lease: LeaseId) -> None: ...

    def asking(self) -> Asking: ...

    async def report(self, held: tuple[Held, ...], asked: Asking) -> None: ...
