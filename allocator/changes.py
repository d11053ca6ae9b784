"""Changes of leases written down and logged: those that are asked for, and those that evidence wants."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from allocator import reconcile
from allocator.ledger import Conflict
from allocator.model import Lease, LeaseState
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from allocator.granting import Durably
    from allocator.ledger import Ledger
    from allocator.model import Moment
    from allocator.reconcile import Change, Contradiction


class Changes:
    """Every method that writes runs under the service's lock."""

    def __init__(self, *, ledger: Ledger, durably: Durably, now: Callable[[], Moment]) -> None:
        """Args: durably: runs one transaction to its end."""
        self._ledger = ledger
        self._durably = durably
        self._now = now
        self._known: frozenset[Contradiction] = frozenset()

    async def apply(
        self, wanted: Iterable[Change | Contradiction], *, who: str
    ) -> tuple[Change | Contradiction, ...]:
        """Make each change. Returns: what was made, and what only a person can settle."""
        done: list[Change | Contradiction] = []
        for item in wanted:
            if isinstance(item, reconcile.Contradiction):
                done.append(item)
                continue
            try:
                await self.make(item, who=who)
                done.append(item)
            except Conflict:
                # A container still carries a released lease whose device was leased on: it is only reported.
                container = item.container
                if container is not None:
                    problem = "carries a released lease whose devices are another's now"
                    done.append(
                        reconcile.Contradiction(container=container, lease=item.lease, problem=problem)
                    )
        return tuple(done)

    async def make(self, change: Change, *, who: str) -> Lease | None:
        before = await self._durably(partial(self._ledger.find, change.lease))
        write = partial(
            self._ledger.change,
            change.lease,
            change.state,
            who=who,
            why=change.why,
            now=self._now(),
            container=change.container,
        )
        after: Lease | None = await self._durably(write)
        if before is not None and after is not None and before.state is not after.state:
            _log_change(after, change.why)
        return after

    def report(self, done: tuple[Change | Contradiction, ...]) -> None:
        """Log changes, and each contradiction once as long as it lasts."""
        conflicts = frozenset(item for item in done if isinstance(item, reconcile.Contradiction))
        changes = [item for item in done if item not in self._known]
        self._known = conflicts
        if changes:
            log(events.LEDGER_RECONCILED, changes=[str(item) for item in changes])


def _log_change(lease: Lease, why: str) -> None:
    if lease.state is LeaseState.RELEASED:
        log(events.LEASE_RELEASED, lease=lease.id, uid=lease.owner_uid, reason=why)
    elif lease.state is LeaseState.LOST:
        log(events.LEASE_LOST, lease=lease.id, uid=lease.owner_uid, devices=list(lease.devices), problem=why)
