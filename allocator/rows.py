"""Leases, usage and reservations as rows of the ledger, and back. Pure."""

from __future__ import annotations

import json
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from allocator.model import Lease, LeaseState, Moment
from allocator.reservations import Reservation
from allocator.shares import Usage
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from policy.when import parse_when

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_NAMES = (
    *("id", "owner_uid", "owner_name", "groups", "equivalents", "seconds", "hold_seconds"),
    *("session", "request_id", "state", "container"),
    *("created_utc", "created_ms", "created_boot"),
    *("since_utc", "since_ms", "since_boot"),
    *("changed_utc", "changed_ms", "changed_boot"),
)
COLUMNS = ", ".join(_NAMES)
PLACES = ", ".join("?" * len(_NAMES))


def lease_row(lease: Lease) -> tuple[object, ...]:
    """In the order of COLUMNS."""
    return (
        *(lease.id, lease.owner_uid, lease.owner_name, json.dumps(lease.groups), str(lease.equivalents)),
        *(lease.seconds, lease.hold_seconds),
        *(lease.session, lease.request_id, lease.state, lease.container),
        *moment_row(lease.created),
        *moment_row(lease.since),
        *moment_row(lease.changed),
    )


def held_rows(lease: Lease) -> list[tuple[str, int, str | None]]:
    """The devices of a lease: UUID, generation and GPU of each, in order of UUID."""
    gpus = lease.gpus or (None,) * len(lease.devices)
    return list(zip(lease.devices, lease.generations, gpus, strict=True))


def read_lease(row: Sequence[Any], devices: Iterable[tuple[str, int, str | None]]) -> Lease:
    """Args: devices: as `held_rows` has them."""
    held = tuple(devices)
    return Lease(
        id=LeaseId(row[0]),
        owner_uid=Uid(row[1]),
        owner_name=row[2],
        groups=tuple(json.loads(row[3])),
        equivalents=Fraction(row[4]),
        seconds=row[5],
        hold_seconds=row[6],
        session=row[7],
        request_id=row[8],
        state=LeaseState(row[9]),
        container=None if row[10] is None else ContainerId(row[10]),
        devices=tuple(DeviceUuid(uuid) for uuid, _, _ in held),
        generations=tuple(generation for _, generation, _ in held),
        gpus=tuple(None if gpu is None else DeviceUuid(gpu) for _, _, gpu in held),
        created=read_moment(row[11:14]),
        since=read_moment(row[14:17]),
        changed=read_moment(row[17:20]),
    )


def moment_row(moment: Moment) -> tuple[str, int, str]:
    """utc, boottime in ms, boot."""
    return (moment.utc, moment.boottime_ms, moment.boot_id)


def read_moment(row: Sequence[Any]) -> Moment:
    """From utc, boottime in ms, boot."""
    return Moment(utc=row[0], boottime_ms=row[1], boot_id=row[2])


def archived(lease: Lease) -> str:
    """A lease that is over, as one text."""
    return json.dumps([lease_row(lease), held_rows(lease)])


def read_archived(text: str) -> Lease:
    """From `archived`."""
    row, held = json.loads(text)
    # What was put away before GPUs were written down has pairs.
    return read_lease(row, [(uuid, generation, *(gpu or [None])) for uuid, generation, *gpu in held])


def read_usage(row: Sequence[Any]) -> Usage:
    """From amount, utc, boottime in ms, boot."""
    return Usage(amount=row[0], at=read_moment(row[1:]))


def reservation_text(reservation: Reservation) -> str:
    """A reservation as one text."""
    said = asdict(reservation)
    del said["when"]  # `when_text` says it
    return json.dumps(said)


def read_reservation(text: str) -> Reservation:
    """From `reservation_text`."""
    said = json.loads(text)
    return Reservation(**said, when=parse_when(said["when_text"]))
