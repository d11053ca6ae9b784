"""What must change so that the ledger agrees with dockerd and NVML: pure, the service carries it out.

INVARIANT: a lease that any container carries is never released, whoever owns that container: its devices may
be in use. Nothing is done about what has changed since dockerd was asked, for it knew nothing of that; what changed less
than the grace before may still have been under way in dockerd.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from allocator.model import DeviceState, LeaseState

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from allocator.model import Lease, Moment, Snapshot
    from policy.model import ContainerId, DeviceUuid, LeaseId, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrier:
    """A container that carries a lease, as dockerd has it now."""

    container: ContainerId
    lease: LeaseId
    owner_uid: Uid
    state: str | None = None  # dockerd's word, "running"; None: not told

    @property
    def stands_still(self) -> bool:
        """Whether nothing of it runs, for certain: a word that is not known, or none, is no proof."""
        return _STATES.get(self.state or "") in {LeaseState.BOUND, LeaseState.HELD}


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one proxy session says dockerd held, and which leases it worked on then (None: it does not say).

    boot_id, asked_ms: which boot, and CLOCK_BOOTTIME of before dockerd was asked.
    """

    session: str
    boot_id: str
    asked_ms: int
    carriers: tuple[Carrier, ...]
    pending: frozenset[LeaseId] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Times:
    """When dockerd was asked, by which graces are measured; now, by which promised times are; and the grace."""

    asked: Moment
    now: Moment
    grace_seconds: float

    def is_newer(self, lease: Lease) -> bool:
        """Whether a lease has changed since dockerd was asked, or may have: in the same millisecond."""
        return self.asked.seconds_since(lease.changed) <= 0

    def is_young(self, changed: Moment) -> bool:
        """Whether something may still have been under way when dockerd was asked."""
        return self.asked.seconds_since(changed) < self.grace_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Put a lease into a state."""

    lease: LeaseId
    state: LeaseState
    why: str
    container: ContainerId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """A container and the ledger disagree in a way that only a person can settle."""

    container: ContainerId
    lease: LeaseId
    problem: str


_STATES = {  # SOURCE: Engine API, ContainerSummary.State
    "created": LeaseState.BOUND,
    "running": LeaseState.ACTIVE,
    "paused": LeaseState.ACTIVE,
    "restarting": LeaseState.ACTIVE,
    "removing": LeaseState.HELD,
    "exited": LeaseState.HELD,
    "dead": LeaseState.HELD,
}


def settle(
    leases: Collection[Lease],
    evidence: Evidence,
    *,
    now: Moment,
    grace_seconds: float,
    unguarded: Collection[ContainerId] | None = frozenset(),
) -> Iterator[Change | Contradiction]:
    """Compare dockerd's containers with the ledger.

    Args:
        leases: every live one, and the released ones that a container still carries.
        evidence: of this boot.
        unguarded: containers whose starts nobody checks: those that ds01 did not make. None: not known, and no loss ends.
    """
    asked = replace(now, boot_id=evidence.boot_id, boottime_ms=evidence.asked_ms)
    times = _Times(asked=asked, now=now, grace_seconds=grace_seconds)
    by_id = {lease.id: lease for lease in leases}
    carried: dict[LeaseId, list[Carrier]] = {}
    for carrier in evidence.carriers:
        carried.setdefault(carrier.lease, []).append(carrier)
    for lease_id, carriers in carried.items():
        found = by_id.get(lease_id)
        if found is not None and times.is_newer(found):
            continue
        yield from _settle_carried(found, carriers, times)
        guarded = unguarded is not None and found is not None and found.container not in unguarded
        if found is not None and found.state is LeaseState.LOST and guarded:
            yield from _settle_lost(found, carriers, times)
    for lease in leases:
        carriers = carried.get(lease.id, [])
        alone = not any(lease.container in {None, item.container} for item in carriers)
        if lease.live and alone and not times.is_newer(lease):
            yield from _settle_alone(lease, evidence, times)


def _settle_carried(
    lease: Lease | None, carriers: list[Carrier], times: _Times
) -> Iterator[Change | Contradiction]:
    if lease is None:
        yield from (
            _contradiction(item, "carries a lease that the ledger does not have") for item in carriers
        )
        return
    own = [item for item in carriers if item.owner_uid == lease.owner_uid]
    yield from (_contradiction(item, "carries another user's lease") for item in carriers if item not in own)
    # SECURITY: an id is never used twice, so a lease that had a container is never another's. Labels can be copied.
    holder = next((item for item in own if lease.container in {None, item.container}), None)
    yield from (
        _contradiction(item, "carries another container's lease") for item in own if item is not holder
    )
    if holder is None:
        return
    seen = None if holder.state is None else _STATES.get(holder.state)
    if lease.state is LeaseState.RELEASED:
        # A stopped container whose lease is over stays without: the guard does not let it start.
        if seen in {None, LeaseState.ACTIVE}:
            yield _change(lease, LeaseState.ACTIVE, "a container still carries it", holder.container)
    elif lease.state is LeaseState.PENDING or lease.container is None:
        state = LeaseState.LOST if lease.state is LeaseState.LOST else seen or _bound(lease.state)
        yield _change(lease, state, "a container carries it", holder.container)
    elif lease.state is not LeaseState.LOST and seen is not None:
        yield from _settle_state(lease, seen, times)


def _settle_lost(lease: Lease, carriers: list[Carrier], times: _Times) -> Iterator[Change]:
    """End a lost lease once its container, and whatever else carries it, does not run.

    SECURITY: a running container may still open what it was handed. One that has stopped is not let start again, and evidence
    a grace younger than the loss shows every start that was let through before it.
    """
    known = any(item.container == lease.container for item in carriers)
    stopped = all(item.stands_still for item in carriers)
    if known and stopped and not times.is_young(lease.changed):
        yield _change(lease, LeaseState.RELEASED, "a device of it was lost, and its container does not run")


def _bound(state: LeaseState) -> LeaseState:
    return LeaseState.BOUND if state is LeaseState.PENDING else state


def _settle_state(lease: Lease, seen: LeaseState, times: _Times) -> Iterator[Change]:
    """Follow whether the container of a lease runs, and end the lease of one that does not when its time is over.

    INVARIANT: a lease ends so only after two looks a grace apart have found its container stopped. A start is noted before
    dockerd carries it out, and shows in the second look.
    """
    if seen is LeaseState.ACTIVE:
        if lease.state is not LeaseState.ACTIVE:
            yield _change(lease, LeaseState.ACTIVE, "its container runs")
    elif times.is_young(lease.changed):
        return
    elif lease.state is LeaseState.ACTIVE or (lease.state, seen) == (LeaseState.BOUND, LeaseState.HELD):
        yield _change(lease, LeaseState.HELD, "its container has stopped")
    elif (left := lease.seconds_left(times.now)) is not None and left <= 0:
        yield _change(lease, LeaseState.RELEASED, "its time is over and its container does not run")
    elif lease.hold_seconds is not None and times.now.elapsed_since(lease.changed) >= lease.hold_seconds:
        idle = "was never started" if lease.state is LeaseState.BOUND else "has been stopped"
        yield _change(
            lease, LeaseState.RELEASED, f"its container {idle} for longer than it keeps its devices"
        )


def _settle_alone(lease: Lease, evidence: Evidence, times: _Times) -> Iterator[Change]:
    """A live lease that no container carries."""
    if lease.container is not None:
        if not times.is_young(lease.changed):
            yield _change(lease, LeaseState.RELEASED, "its container is gone")
        return
    said_over = evidence.pending is not None and lease.id not in evidence.pending
    over = lease.session != evidence.session or said_over
    if over and not times.is_young(lease.created):
        yield _change(lease, LeaseState.RELEASED, "no container came of it")


def lost(leases: Collection[Lease], snapshot: Snapshot) -> Iterator[Change]:
    """Leases of which a device has gone, or has come back as another. They hold it until their container has stopped or is removed."""
    for lease in leases:
        generations = lease.generations or (0,) * len(lease.devices)
        held = zip(lease.devices, generations, strict=True)
        gone = [uuid for uuid, generation in held if not is_there(snapshot, uuid, generation)]
        if gone and lease.live and lease.state is not LeaseState.LOST:
            yield _change(lease, LeaseState.LOST, f"device lost: {', '.join(gone)}")


def is_there(snapshot: Snapshot, uuid: DeviceUuid, generation: int) -> bool:
    """Whether it is, or may be: a look that not every GPU answered says nothing of what is missing, nor of what is made again."""
    device = snapshot.devices.get(uuid)
    if device is None:
        return not snapshot.complete or uuid in snapshot.awaited
    if device.state is DeviceState.LOST:
        return False
    return not generation or not device.generation or device.generation == generation


def _change(lease: Lease, state: LeaseState, why: str, container: ContainerId | None = None) -> Change:
    return Change(lease=lease.id, state=state, why=why, container=container)


def _contradiction(carrier: Carrier, problem: str) -> Contradiction:
    return Contradiction(container=carrier.container, lease=carrier.lease, problem=problem)
