"""A ledger of ten years: those leases of the last weeks as they are, the others put away."""

from __future__ import annotations

import json
import sqlite3
from datetime import timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from allocator import rows
from allocator.ledger import Ledger
from allocator.model import Lease, LeaseState
from bench.leasing import GPUS, PARTS, START, USERS, YEARS, device, moment
from policy.model import ContainerId, LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def fill(path: Path, leases: int) -> None:
    """Ten years of leases: those of the last weeks as they are, the others put away."""
    Ledger(path).close()
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA journal_mode = OFF")  # half the writing; opening it for use brings WAL back
    base.execute("PRAGMA synchronous = OFF")
    recent = int(leases / (365 * YEARS) * 45)
    base.execute("BEGIN")
    base.executemany("INSERT INTO old_leases VALUES (?, ?, ?, ?, ?, ?)", _old(leases - recent, leases))
    for item in _recent(leases - recent, leases):
        base.execute(f"INSERT INTO leases ({rows.COLUMNS}) VALUES ({rows.PLACES})", rows.lease_row(item))
        base.execute(
            "INSERT INTO lease_devices (lease, device, live) VALUES (?, ?, 0)", (item.id, item.devices[0])
        )
        for what in ("granted", "bound", "active", "released"):
            base.execute(
                "INSERT INTO events (utc, boottime_ms, boot_id, lease, who, before, what, why)"
                " VALUES (?, 0, 'bench', ?, 'uid 0', NULL, ?, 'because')",
                (item.changed.utc, item.id, what),
            )
    base.executemany(
        "INSERT INTO usage VALUES (?, ?, '2035-12-01T00:00:00Z', 0, 'old')",
        [(1000 + at, 100.0 * at) for at in range(USERS)],
    )
    base.execute("COMMIT")
    base.close()


def _over(number: int, leases: int) -> Lease:
    at = START + timedelta(days=365 * YEARS * number / leases)
    uid = 1000 + number % USERS
    name = f"{hash((number, 'bench')) & (1 << 64) - 1:016x}"
    one = device(number % GPUS, number % PARTS)
    return Lease(
        id=LeaseId(name),
        owner_uid=Uid(uid),
        owner_name=f"user{uid}",
        devices=(one.uuid,),
        generations=(1,),
        groups=(f"group{uid % 10}",),
        equivalents=Fraction(1, 7),
        session="0123456789abcdef",
        request_id=f"{number:012x}",
        created=moment(at, 0),
        since=moment(at, 0),
        changed=moment(at + timedelta(hours=2), 7200),
        state=LeaseState.RELEASED,
        container=ContainerId(f"{number:064x}"),
    )


def _old(count: int, leases: int) -> Iterator[tuple[object, ...]]:
    events = json.dumps([["2030-01-01T00:00:00Z", 0, "bench", "x", "uid 0", None, "granted", "because"]] * 4)
    template = rows.archived(_over(0, leases))
    for number in range(count):
        at = (START + timedelta(days=365 * YEARS * number / leases)).isoformat(timespec="seconds")
        yield (
            f"{hash((number, 'old')) & (1 << 64) - 1:016x}",
            1000 + number % USERS,
            at,
            at,
            template,
            events,
        )


def _recent(first: int, leases: int) -> Iterator[Lease]:
    return (_over(number, leases) for number in range(first, leases))
