"""How a container is stopped by ds01 itself: for a reason that still holds, on record, and again later if it does not stop.

Whatever ends containers (their time today, idleness later) decides in a module of its own and acts through this one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lifecycle.ports import NotStopped, Unavailable
from observability import events
from observability.audit import AuditUnavailable
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from lifecycle.ports import Container, Containers, Lease
    from policy.model import LeaseId

_FIRST_AGAIN_SECONDS = 30
_LONGEST_AGAIN_SECONDS = 600
_AT_ONCE = 8  # a container may take five minutes to stop, and holds up only some others


@dataclass(frozen=True, slots=True, kw_only=True)
class _Attempt:
    """The last attempt at one lease. again_ms: CLOCK_BOOTTIME, not before; None: under way."""

    number: int
    again_ms: int | None


class Stopping:
    """Stops the containers of leases: each in one attempt at a time, with growing pauses between two."""

    def __init__(
        self,
        *,
        containers: Containers,
        audit: Callable[[Mapping[str, object]], None],
        clock_ms: Callable[[], int],
    ) -> None:
        """Args: audit: writes one record; raises AuditUnavailable, and then nothing is stopped."""
        self._containers = containers
        self._audit = audit
        self._clock_ms = clock_ms
        self._attempts: dict[LeaseId, _Attempt] = {}
        self._room = asyncio.Semaphore(_AT_ONCE)

    def keep(self, leases: Collection[LeaseId]) -> None:
        """Forget the attempts at every lease that is not among these."""
        live = set(leases)
        self._attempts = {
            lease: one for lease, one in self._attempts.items() if lease in live or one.again_ms is None
        }

    def in_seconds(self, lease: LeaseId) -> float | None:
        """How long to leave it alone yet; 0: it may be tried now; None: it is being tried."""
        attempt = self._attempts.get(lease)
        if attempt is None:
            return 0.0
        if attempt.again_ms is None:
            return None
        return max(0.0, (attempt.again_ms - self._clock_ms()) / 1000)

    def begin(self, lease: Lease) -> None:
        """Claim the next attempt; `stop` has to follow, in whatever task."""
        last = self._attempts.get(lease.id)
        self._attempts[lease.id] = _Attempt(number=1 if last is None else last.number + 1, again_ms=None)

    async def stop(self, lease: Lease, *, holds: Callable[[], Awaitable[bool]], reason: str) -> None:
        """Stop the container of a lease, if `holds` says at the last moment that it still is to be.

        INVARIANT: a container is stopped only while it carries this very lease, whatever the ledger says.
        """
        problem: str | None = None
        try:
            async with self._room:
                problem = await self._stop(lease, holds, reason)
        except (Unavailable, NotStopped, AuditUnavailable) as error:
            problem = str(error)
        finally:
            self._settle(lease, problem)

    async def _stop(self, lease: Lease, holds: Callable[[], Awaitable[bool]], reason: str) -> str | None:
        """Returns: why it was not stopped and ought to be; None: it was, or there was nothing to stop."""
        if lease.container is None or not await holds():
            return None
        container = await self._containers.look(lease.container)
        if container is None or not container.running:
            return None
        if container.lease != lease.id:
            return f"it carries another lease: {container.lease}"
        self._audit(_record(lease, container, reason))
        begun_ms = self._clock_ms()
        await self._containers.stop(container)
        left = await self._containers.look(container.id)
        if left is not None and left.running:
            return "the engine says that it has stopped, and it runs"
        log(
            events.CONTAINER_STOPPED,
            container=container.id,
            uid=lease.owner_uid,
            lease=lease.id,
            reason=reason,
            duration_ms=self._clock_ms() - begun_ms,
        )
        return None

    def _settle(self, lease: Lease, problem: str | None) -> None:
        number = self._attempts[lease.id].number if lease.id in self._attempts else 1
        pause = min(_FIRST_AGAIN_SECONDS * 2 ** min(number - 1, 10), _LONGEST_AGAIN_SECONDS)
        self._attempts[lease.id] = _Attempt(number=number, again_ms=self._clock_ms() + pause * 1000)
        if problem is not None:
            log(
                events.CONTAINER_UNSTOPPED,
                container=lease.container,
                uid=lease.owner_uid,
                lease=lease.id,
                attempt=number,
                again_seconds=pause,
                problem=problem,
            )


def _record(lease: Lease, container: Container, reason: str) -> dict[str, object]:
    return {
        "event": "container.stopping",
        "by": "ds01-lifecycle",
        "container": container.id,
        "owner": lease.owner_name,
        "owner_uid": lease.owner_uid,
        "lease": lease.id,
        "reason": reason,
    }
