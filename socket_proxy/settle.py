"""Leases whose create ended uncertainly: find out from the engine, then confirm or release.

A create whose answer never came may still succeed as long as dockerd may accept its stamp; after that the engine's list
tells. Until then the lease stays pending, and its devices are nobody else's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import msgspec

from host.clock import boottime_ms
from observability import events
from observability.logging import log
from policy import ownership
from policy.dockerapi.model import Operation
from policy.model import ContainerId, LeaseId
from socket_proxy.engine import Engine
from socket_proxy.ports import LeaseOver, Leaser
from socket_proxy.refusals import UNANSWERED
from socket_proxy.seal import SealedContainers
from socket_proxy.stamp import LIFETIME_MS

_MARGIN_MS = 5_000  # dockerd may have accepted the stamp at its last moment and still be creating
_TICK_SECONDS = 1
_MOST_TRIES = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class _Due:
    at_ms: int
    lease: LeaseId
    tries: int


class _Listed(msgspec.Struct):
    Id: str
    Created: int = 0
    State: str = ""
    Labels: dict[str, str] | None = None


class Settlements:
    """A queue of uncertain leases, worked off by one task."""

    def __init__(self, *, engine: Engine, leaser: Leaser, sealed: SealedContainers) -> None:
        self._engine = engine
        self._leaser = leaser
        self._sealed = sealed
        self._due: deque[_Due] = deque()

    def later(self, lease: LeaseId) -> None:
        """Settle `lease` once no create can bring its container any more."""
        self._again(lease, tries=0)

    def _again(self, lease: LeaseId, *, tries: int) -> None:
        self._due.append(_Due(at_ms=boottime_ms() + LIFETIME_MS + _MARGIN_MS, lease=lease, tries=tries))

    async def run(self) -> None:
        """Work until cancelled. What cannot be settled now comes round again, some times.

        Then it is left to evidence: the allocator takes back a pending lease that nobody works on and no container carries.
        """
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            while self._due and self._due[0].at_ms <= boottime_ms():
                due = self._due.popleft()
                lease = due.lease
                try:
                    await self._settle(lease)
                except UNANSWERED as error:
                    log(events.LEASE_UNSETTLED, lease=lease, problem=str(error))
                    if isinstance(error, LeaseOver) or due.tries + 1 >= _MOST_TRIES:
                        self._leaser.forget(lease)
                        continue
                    self._again(lease, tries=due.tries + 1)
                    break

    async def _settle(self, lease: LeaseId) -> None:
        container = await self._carrier(lease)
        if container is None:
            await self._leaser.release(lease, "the create brought no container")
            log(events.LEASE_RELEASED, lease=lease, uid=None, reason="the create brought no container")
        else:
            await self._leaser.confirm(lease, container)
            log(events.LEASE_GRANTED, lease=lease, uid=None, devices=None)

    async def _carrier(self, lease: LeaseId) -> ContainerId | None:
        filters = msgspec.json.encode({"label": {f"{ownership.LEASE}={lease}": True}}).decode()
        answer = await self._engine.ask(
            Operation.CONTAINER_LIST, query={"all": ("1",), "filters": (filters,)}
        )
        # SECURITY: a label that an image brought is no proof; a seal that a commit copied is younger than its original.
        sealed = [
            item
            for item in msgspec.json.decode(answer, type=list[_Listed])
            if self._sealed.owner(item.Id, item.Labels, state=item.State) is not None
        ]
        first = min(sealed, key=lambda item: item.Created, default=None)
        return ContainerId(first.Id) if first else None
