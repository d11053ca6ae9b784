"""A lease for a container that ds01 did not make, on the devices that it has: its owner's limits and accounts then know of them.

Nothing is decided here: the container has the devices already, and while it runs they are nobody else's, with a lease or without.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING

from allocator.ledger import Conflict
from allocator.model import Lease, LeaseState
from allocator.slices import equivalents
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from allocator.board import Board, Devices
    from allocator.foreign import ForeignContainers
    from allocator.granting import Durably
    from allocator.ledger import Ledger
    from allocator.model import Moment
    from policy.model import ContainerId, DeviceUuid, LeaseId, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """Whose the container is from now on.

    groups: policy groups of the owner whose limits count it.
    restarts: the engine may start it again by itself, past ds01; so it keeps the devices until it is removed.
    """

    container: ContainerId
    owner_uid: Uid
    owner_name: str
    groups: tuple[str, ...] = ()
    restarts: bool
    session: str
    request_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """lease: None where nothing could be leased. left_out: devices that it has and that are leased to another container."""

    lease: Lease | None
    left_out: tuple[DeviceUuid, ...] = ()


class TakingOver:
    """Runs under the service's lock."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        durably: Durably,
        foreign: ForeignContainers,
        now: Callable[[], Moment],
        new_id: Callable[[], LeaseId],
    ) -> None:
        """Args: durably: runs one transaction to its end."""
        self._ledger = ledger
        self._durably = durably
        self._foreign = foreign
        self._now = now
        self._new_id = new_id

    async def take_over(self, wish: TakeOver, board: Board) -> TakenOver | None:
        """Write the lease down; a second time gives the same. None: no such container was told of, or it is one of ds01's.

        Raises: LedgerUnavailable. Conflict: somebody else has a lease for it, until evidence says that it is theirs no more.
        """
        known = next((one for one in board.leases if one.container == wish.container), None)
        if known is not None and known.owner_uid != wish.owner_uid:
            raise Conflict(f"its devices are on a lease of {known.owner_name}'s; try again in a minute")
        if known is not None:
            return TakenOver(lease=known)
        one = self._foreign.find(wish.container)
        if one is None:
            return None
        has = self._leasable(one.id, board) if one.takes else frozenset()
        free = sorted(has - board.holders.keys())
        left_out = tuple(sorted(has & board.holders.keys()))
        if not free:
            return TakenOver(lease=None, left_out=left_out)
        lease = self._lease(wish, tuple(free), board)
        await self._durably(partial(self._ledger.grant, lease, limit=None))
        log(events.LEASE_GRANTED, lease=lease.id, uid=lease.owner_uid, devices=list(lease.devices))
        return TakenOver(lease=lease, left_out=left_out)

    def _leasable(self, container: ContainerId, board: Board) -> Devices:
        """What it has, without the GPUs of which MIG devices stand for the parts."""
        devices = board.snapshot.devices
        split = {device.parent for device in devices.values()}
        had = self._foreign.by_device(board.snapshot)
        return frozenset(
            uuid
            for uuid, some in had.items()
            if uuid not in split and any(one.id == container for one in some)
        )

    def _lease(self, wish: TakeOver, devices: tuple[DeviceUuid, ...], board: Board) -> Lease:
        now = self._now()
        known = [board.snapshot.devices[uuid] for uuid in devices]
        return Lease(
            id=self._new_id(),
            owner_uid=wish.owner_uid,
            owner_name=wish.owner_name,
            devices=devices,
            generations=tuple(device.generation for device in known),
            gpus=tuple(device.gpu for device in known),
            groups=tuple(sorted(wish.groups)),
            equivalents=sum(map(equivalents, known), start=Fraction(0)),
            hold_seconds=None if wish.restarts else 0,
            session=wish.session,
            request_id=wish.request_id,
            created=now,
            since=now,
            changed=now,
            state=LeaseState.ACTIVE,
            container=wish.container,
        )
