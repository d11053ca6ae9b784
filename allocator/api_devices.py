"""Devices and the state of NVML as the API tells them: what everybody may see, and what only the trusted may."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from allocator.shown import ends_at

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from allocator.adoption import Ownership
    from allocator.foreign import Foreign
    from allocator.model import Device, Lease, Moment
    from allocator.watch import Watch

_NO_GPUS: Final = "no_gpus"
# Pids name other users' programs, and a board's serial number is nobody's business but the admin's.
_TRUSTED_ONLY: Final = ("processes", "serial")


def health(watch: Watch, *, reconciled: bool, log_problem: str | None) -> dict[str, Any]:
    """Whether GPUs can be leased, and if not, which kind of outage it is; a server without any is none."""
    devices = () if watch.snapshot is None else tuple(watch.snapshot.devices.values())
    unidentified = {} if watch.snapshot is None else dict(watch.snapshot.unidentified)
    none = watch.problem is None and not devices and not unidentified
    found = "ok" if watch.kind is None else watch.kind.value
    return {
        "state": "unavailable" if watch.problem else "ok",
        "problem": watch.problem,
        "inventory": _NO_GPUS if none else found,
        "message": "the driver finds no GPU; containers without GPUs are as ever" if none else watch.problem,
        "driver": None if watch.snapshot is None else watch.snapshot.driver,
        "devices": dict(Counter(device.state.value for device in devices)),
        "unidentified": unidentified,
        "inventory_age_seconds": watch.age_seconds(),
        "reconciled": reconciled,
        "kernel_log_problem": log_problem,
    }


def links(watch: Watch) -> list[dict[str, Any]]:
    """How near each two GPUs are, each pair once, in a fixed order."""
    known = {} if watch.snapshot is None else watch.snapshot.links or {}
    return [{"gpus": list(pair), "link": known[pair].name.lower()} for pair in sorted(known)]


def shown(
    device: Device,
    lease: Lease | None,
    *,
    uid: int,
    sees_all: bool,
    now: Moment,
    foreign: Collection[tuple[Foreign, Ownership | None]] | None = (),
    note: str | None = None,
    obstacle: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """One device for one peer; since when it is held and until when, everybody may know who waits for it.

    Args:
        foreign: the containers that ds01 did not make and that have it, with whose they may be; None: not told yet.
        note: what its holder was told last.
        obstacle: as `allocator.obstacles` tells it to the same peer.
    SECURITY: another's lease shows as `held`, without a name (I4); what a foreign container has, as `in_use`.
    """
    told = asdict(device)
    if not sees_all:
        told = {name: value for name, value in told.items() if name not in _TRUSTED_ONLY}
    pids = device.pids
    visible = lease is not None and (sees_all or lease.owner_uid == uid)
    return told | {
        "held": lease is not None,
        "in_use": _in_use(pids, foreign),
        "holder": lease.owner_name if lease is not None and visible else None,
        "holder_uid": lease.owner_uid if lease is not None and visible else None,
        "since": None if lease is None else lease.created.utc,
        "ends_at": None if lease is None else ends_at(lease, now),
        "lease": lease.id if lease is not None and visible else None,
        "obstacle": obstacle,
        "note": note if visible else None,
        **({"pids": pids, **_foreign(foreign or (), lease)} if sees_all else {}),
    }


def _in_use(
    pids: tuple[int, ...] | None, foreign: Collection[tuple[Foreign, Ownership | None]] | None
) -> bool | None:
    """None: not known, by NVML or by what was told of containers."""
    if pids or any(one.takes for one, _ in foreign or ()):
        return True
    return None if pids is None or foreign is None else False


def _foreign(found: Collection[tuple[Foreign, Ownership | None]], lease: Lease | None) -> dict[str, Any]:
    """Those that take it, by name, but for the holder; and of those that nobody was given, whose they may be."""
    holder = None if lease is None else lease.container
    running = sorted(_called(one) for one, _ in found if one.takes and one.id != holder)
    return {
        "foreign": ", ".join(running) or None,
        "foreign_owners": [
            {
                "container": _called(one),
                "container_id": one.id,
                "runs": one.runs,
                "monitor": one.monitor,
                "owner_uid": None if owner is None else owner.owner,
                "evidence": None if owner is None or owner.evidence is None else owner.evidence.value,
                "why": None if owner is None else owner.why,
            }
            for one, owner in found
            if one.adopted_by is None
        ],
    }


def _called(container: Foreign) -> str:
    return container.name or container.id[:12]
