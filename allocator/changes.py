"""Changes of leases written down and logged: those that are asked for, and those that evidence wants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from allocator import reconcile, starting
from allocator.ledger import Conflict
from allocator.model import Lease, LeaseState
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from allocator.granting import Durably
    from allocator.ledger import Ledger
    from allocator.model import Moment, Snapshot
    from allocator.reconcile import Change, Contradiction
    from policy.model import ContainerId, LeaseId


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
        """None when there is no such lease. Raises: Conflict."""
        return await self.decide(change.lease, lambda _: change, who=who)

    async def decide(self, lease: LeaseId, wanted: Callable[[Lease], Change], *, who: str) -> Lease | None:
        """Make what is wanted of a lease as it is now; None when there is no such lease.

        Raises: Conflict, also from `wanted`; nothing is written then.
        """
        now = self._now()

        def write() -> tuple[Lease, Lease | None, str] | None:
            # One turn of the writer: each costs two changes of thread, which is much on a busy machine.
            before = self._ledger.find(lease)
            if before is None:
                return None
            change = wanted(before)
            after = self._ledger.change(
                lease, change.state, who=who, why=change.why, now=now, container=change.container
            )
            return before, after, change.why

        done: tuple[Lease, Lease | None, str] | None = await self._durably(write)
        if done is None:
            return None
        before, after, why = done
        if after is not None and before.state is not after.state:
            _log_change(after, why)
        return after

    def report(self, done: tuple[Change | Contradiction, ...]) -> None:
        """Log changes, and each contradiction once as long as it lasts."""
        conflicts = frozenset(item for item in done if isinstance(item, reconcile.Contradiction))
        changes = [item for item in done if item not in self._known]
        self._known = conflicts
        if changes:
            log(events.LEDGER_RECONCILED, changes=[str(item) for item in changes])


def confirmed(old: Lease, container: ContainerId) -> Change:
    """What a create that succeeded makes of its lease. Raises: Conflict: released, or on another container."""
    if not old.live or old.container not in (None, container):
        raise Conflict(f"lease {old.id} is {old.state} and cannot be confirmed")
    state = LeaseState.BOUND if old.state is LeaseState.PENDING else old.state
    return reconcile.Change(lease=old.id, state=state, why="confirmed", container=container)


def started(old: Lease, container: ContainerId, now: Moment, look: Callable[[], Snapshot]) -> Change:
    """What a container that is about to start makes of its lease.

    A pending one becomes this container's: who asks has it in writing, sealed or signed, that it was made with this lease,
    and only the confirm is missing (it never came, or the power took it back).
    Args: look: the devices as they are; not asked where the lease itself is over. Raises: InventoryUnavailable.
    Raises: Conflict: the container does not hold its devices any more, or its time is over. InventoryUnavailable.
    """
    why = starting.is_over(old, container, now) or starting.is_gone(old, look())
    if why is not None:
        raise Conflict(why)
    return reconcile.Change(
        lease=old.id, state=LeaseState.ACTIVE, why="its container starts", container=container
    )


def _log_change(lease: Lease, why: str) -> None:
    if lease.state is LeaseState.RELEASED:
        log(events.LEASE_RELEASED, lease=lease.id, uid=lease.owner_uid, reason=why)
    elif lease.state is LeaseState.LOST:
        log(events.LEASE_LOST, lease=lease.id, uid=lease.owner_uid, devices=list(lease.devices), problem=why)
