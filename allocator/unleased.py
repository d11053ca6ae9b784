"""Whether a process in a container is on a device that its container leases: evidence in, an answer out. Pure.

INVARIANT: what cannot be told is None: neither leased nor unleased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from allocator.attribution import Attribution, Kind
from allocator.model import DeviceKind

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from allocator.attribution import Seen
    from allocator.foreign import Foreign
    from allocator.model import Lease, Snapshot
    from policy.model import ContainerId, DeviceUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Who has what now. leases: the live ones. foreign: containers that ds01 did not make, by id."""

    snapshot: Snapshot
    leases: Collection[Lease]
    foreign: Mapping[ContainerId, Foreign]


def is_leased(seen: Seen, found: Attribution, books: Books) -> bool | None:
    """Whether the lease of its container names the device that a process is on.

    A container that ds01 did not make and that has no lease takes what nobody leases, so only another's device is not its own.
    Returns: None too for what is in no container, and for monitors of the policy.
    """
    own = [
        lease for lease in books.leases if found.container is not None and lease.container == found.container
    ]
    match found.kind:
        case Kind.BUILD_STEP:
            return False
        case Kind.OTHER_CONTAINER:
            # It is told by a name in a path, which proves no lease; yet it may be one that the proxy has not told of.
            return None if own else False
        case Kind.CONTAINER if is_ours(found, books):
            return _are_of(seen, own, books.snapshot)
        case Kind.CONTAINER:
            return _of_foreign(seen, found, own, books)
    return None


def is_ours(found: Attribution, books: Books) -> bool:
    """Whether a process is in a container that ds01 made, by its seal."""
    return found.kind is Kind.CONTAINER and found.owner is not None and found.container not in books.foreign


def holder(seen: Seen, books: Books) -> Lease | None:
    """Whose lease names all that the process may be on; None: nobody's, or it cannot be told whose."""
    leases = (lease for lease in books.leases if _are_of(seen, [lease], books.snapshot))
    return next(leases, None)


def _of_foreign(seen: Seen, found: Attribution, own: Collection[Lease], books: Books) -> bool | None:
    known = None if found.container is None else books.foreign.get(found.container)
    if known is not None and known.monitor:
        return None
    if own:
        return _are_of(seen, own, books.snapshot)
    return False if _are_of(seen, books.leases, books.snapshot) else None


def _are_of(seen: Seen, leases: Collection[Lease], snapshot: Snapshot) -> bool | None:
    """Whether leases name what the process is on, itself or as a part of it."""
    if not leases:
        return False
    places = _places(seen, snapshot)
    if places is None:
        return None
    named = {uuid for lease in leases for uuid in lease.devices}
    reached = {uuid for uuid in places if uuid in named or snapshot.devices[uuid].parent in named}
    return True if reached == places else None if reached else False


def _places(seen: Seen, snapshot: Snapshot) -> frozenset[DeviceUuid] | None:
    """What the process may be on; None: an instance of a split GPU, and the look has no device for it."""
    device = snapshot.devices.get(seen.device)
    if device is None:
        return None
    parts = frozenset(uuid for uuid, one in snapshot.devices.items() if one.parent == seen.device)
    is_split = bool(parts) or (device.mig_mode is not None and device.mig_mode.current)
    if device.kind is DeviceKind.MIG or not is_split:
        return frozenset({seen.device})
    return parts or None if seen.gpu_instance_id is None else None
