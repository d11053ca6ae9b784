"""Time limits of leases, carried out: warnings on terminals, reports, and which containers are to be stopped now."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from lifecycle.ending import Due, Step, Told, due
from lifecycle.ports import Unavailable
from observability import events
from observability.logging import log
from policy.names import plain
from policy.spoken import duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle.ports import Containers, Lease, Leases, Rules, Terminals
    from lifecycle.records import Records
    from policy.model import LeaseId

REASON = "its GPU time is over"
_ID_LETTERS = 12


class TimeLimits:
    """Looks at leases one by one. One task uses it; `still_over` may be called from others."""

    def __init__(
        self,
        *,
        leases: Leases,
        containers: Containers,
        rules: Rules,
        terminals: Terminals,
        records: Records,
        warn_seconds: tuple[int, ...],
        clock_ms: Callable[[], int],
    ) -> None:
        """Args: warn_seconds: how long before a stop its owner is warned. clock_ms: CLOCK_BOOTTIME."""
        self._leases = leases
        self._containers = containers
        self._rules = rules
        self._terminals = terminals
        self._records = records
        self._warn_seconds = warn_seconds
        self._clock_ms = clock_ms
        self._unknown: set[LeaseId] = set()  # nobody knows their owners, which was logged

    def keep(self, leases: frozenset[LeaseId]) -> None:
        """Forget what was said of every lease that is not among these."""
        self._records.keep(leases)
        self._unknown &= leases

    async def look(self, lease: Lease) -> Due:
        """Warn and report what is due of a lease read just now. Returns: what was due; a STOP is left to the caller."""
        try:
            found = await self._due(lease)
        except Unavailable as error:
            if lease.id not in self._unknown:
                log(events.OWNER_UNKNOWN, lease=lease.id, uid=lease.owner_uid, problem=str(error))
            self._unknown.add(lease.id)
            return Due(step=Step.NOTHING)
        self._unknown.discard(lease.id)
        match found.step:
            case Step.WARN:
                await self._warn(lease, found)
            case Step.REPORT:
                self._report(lease)
            case Step.STOP | Step.NOTHING:
                pass
        return found

    async def still_over(self, lease: Lease) -> bool:
        """Whether a lease, read anew, is the very one that was to be stopped, and still is. Raises: Unavailable."""
        now = await self._leases.find(lease.id)
        if now is None or (now.container, now.owner_uid) != (lease.container, lease.owner_uid):
            return False
        return (await self._due(now)).step is Step.STOP

    async def _due(self, lease: Lease) -> Due:
        if lease.seconds is None:
            return Due(step=Step.NOTHING)  # no account has to be looked up for it
        rule = await self._rules.time_over(lease.owner_uid)
        told = self._records.get(lease.id)
        return due(lease, told, rule, warn_seconds=self._warn_seconds, now_ms=self._clock_ms())

    async def _warn(self, lease: Lease, found: Due) -> None:
        """Tell, then write down: a crash between the two warns twice, never not at all."""
        name = await self._name(lease)
        if name is None:
            return
        terminals = await self._terminals.tell(lease.owner_uid, _message(name, found))
        told = _told(lease, self._records.get(lease.id))
        first_ms = self._clock_ms() if told.first_ms is None else told.first_ms
        self._records.put(lease.id, replace(told, first_ms=first_ms, least_seconds=found.warned_seconds))
        log(
            events.LEASE_WARNED,
            lease=lease.id,
            uid=lease.owner_uid,
            container=lease.container,
            seconds_left=round(found.stop_in_seconds),
            terminals=terminals,
        )

    def _report(self, lease: Lease) -> None:
        told = _told(lease, self._records.get(lease.id))
        self._records.put(lease.id, replace(told, reported=True))
        log(events.LEASE_OVERDUE, lease=lease.id, uid=lease.owner_uid, container=lease.container)

    async def _name(self, lease: Lease) -> str | None:
        """What the owner calls the container, its id where nobody can say; None: there is nothing to warn of."""
        if lease.container is None:
            return None
        try:
            container = await self._containers.look(lease.container)
        except Unavailable:
            return lease.container[:_ID_LETTERS]
        if container is None or not container.running:
            return None
        return plain(lease.owner_uid, container.name) or lease.container[:_ID_LETTERS]


def _told(lease: Lease, known: Told | None) -> Told:
    """What was said of this end; of another one nothing was."""
    seconds = lease.seconds or 0
    return known if known is not None and known.seconds == seconds else Told(seconds=seconds)


def _message(name: str, found: Due) -> str:
    return (
        f"ds01: your container {name} is stopped in {duration(found.stop_in_seconds)}, when the time of its GPU lease is over; "
        "save your work, the stopped container is kept (one started with --rm is not)"
    )
