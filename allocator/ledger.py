"""The ledger: who holds which device, durable before anybody is told. One writer, SQLite.

INVARIANT: the database itself refuses a second live lease on a device (`one_live_lease_per_device`), and a
trigger keeps a device's liveness equal to its lease's, so no bug above this file can lease one device twice.
"""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from allocator.model import Lease, LeaseState, LedgerUnavailable, Moment
from allocator.schema import bring_forward
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_COLUMNS = (
    "id, owner_uid, owner_name, session, request_id, state, container,"
    " created_utc, created_ms, created_boot, changed_utc, changed_ms, changed_boot"
)
_Row = tuple[str, int, str, str, str, str, str | None, str, int, str, str, int, str]


class Conflict(Exception):  # noqa: N818  the name says what is wrong
    """The change would hold a device twice or pass a limit; nothing was written."""


class Ledger:
    """One open ledger. Every method is one transaction and returns after it is on disk.

    Not for two threads at once. Raises: LedgerUnavailable from every method.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises: LedgerUnavailable: unreadable, or written by a newer ds01."""
        try:
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger cannot be opened: {error}") from error

    def _prepare(self) -> None:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            "busy_timeout = 2000",
        ):
            self._base.execute(f"PRAGMA {pragma}")
        bring_forward(self._base)

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def live(self) -> tuple[Lease, ...]:
        """Every lease that holds devices, oldest first."""
        return self._select("state <> 'released'")

    def of_owner(self, owner: Uid) -> tuple[Lease, ...]:
        """The live leases of one user, oldest first."""
        return self._select("state <> 'released' AND owner_uid = ?", owner)

    def find(self, lease: LeaseId) -> Lease | None:
        """One lease in whatever state; None when it was never granted."""
        found = self._select("id = ?", lease)
        return found[0] if found else None

    def grant(self, lease: Lease, *, limit: int) -> None:
        """Write a new pending lease. Raises: Conflict: a device is held, or the owner would pass `limit`."""
        with self.transaction() as base:
            (held,) = base.execute(
                "SELECT count(*) FROM lease_devices JOIN leases ON id = lease WHERE live = 1 AND owner_uid = ?",
                (lease.owner_uid,),
            ).fetchone()
            if held + len(lease.devices) > limit:
                raise Conflict(
                    f"{lease.owner_name} would hold {held + len(lease.devices)} devices of {limit}"
                )
            base.execute(f"INSERT INTO leases ({_COLUMNS}) VALUES ({','.join('?' * 13)})", _row(lease))  # noqa: S608  constants
            base.executemany(
                "INSERT INTO lease_devices (lease, device) VALUES (?, ?)",
                [(lease.id, device) for device in lease.devices],
            )
            _note(
                base, lease.id, "granted", f"request {lease.request_id} of {lease.owner_name}", lease.created
            )

    def change(
        self,
        lease: LeaseId,
        state: LeaseState,
        *,
        why: str,
        now: Moment,
        container: ContainerId | None = None,
    ) -> Lease | None:
        """Put a lease into `state`, and on `container` if one is given; None when there is no such lease.

        Idempotent: nothing is written when nothing changes.
        Raises: Conflict: brought back to life although a device of it is held by another.
        """
        with self.transaction() as base:
            old = self.find(lease)
            if old is None:
                return None
            new = replace(old, state=state, container=container or old.container, changed=now)
            if (new.state, new.container) == (old.state, old.container):
                return old
            base.execute(
                "UPDATE leases SET state = ?, container = ?, changed_utc = ?, changed_ms = ?, changed_boot = ?"
                " WHERE id = ?",
                (new.state, new.container, now.utc, now.boottime_ms, now.boot_id, lease),
            )
            _note(base, lease, state, why, now)
            return new

    def events(self, lease: LeaseId) -> tuple[tuple[str, str], ...]:
        """What happened to a lease, in order: (what, why)."""
        rows = self.read("SELECT what, why FROM events WHERE lease = ? ORDER BY number", lease)
        return tuple((str(what), str(why)) for what, why in rows)

    def _select(self, condition: str, *values: object) -> tuple[Lease, ...]:
        rows = self.read(f"SELECT {_COLUMNS} FROM leases WHERE {condition} ORDER BY rowid", *values)  # noqa: S608  constants
        return tuple(self._lease(row) for row in rows)

    def _lease(self, row: _Row) -> Lease:
        lease, uid, name, session, request, state, container = row[:7]
        devices = self.read("SELECT device FROM lease_devices WHERE lease = ? ORDER BY device", lease)
        return Lease(
            id=LeaseId(lease),
            owner_uid=Uid(uid),
            owner_name=name,
            session=session,
            request_id=request,
            state=LeaseState(state),
            container=None if container is None else ContainerId(container),
            devices=tuple(DeviceUuid(device) for (device,) in devices),
            created=_moment(*row[7:10]),
            changed=_moment(*row[10:]),
        )

    def read(self, query: str, *values: object) -> list[Any]:
        """Rows. For this file and for those that keep other tables in it."""
        try:
            return self._base.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger cannot be read: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """On disk when the body has ended, or undone. Raises: Conflict: a constraint refuses it."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            yield self._base
            self._base.execute("COMMIT")
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger cannot be written: {error}") from error
        finally:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")


def _row(lease: Lease) -> _Row:
    created, changed = lease.created, lease.changed
    return (
        *(lease.id, lease.owner_uid, lease.owner_name, lease.session, lease.request_id),
        *(lease.state, lease.container),
        *(created.utc, created.boottime_ms, created.boot_id),
        *(changed.utc, changed.boottime_ms, changed.boot_id),
    )


def _moment(utc: str, boottime_ms: int, boot_id: str) -> Moment:
    return Moment(utc=utc, boottime_ms=boottime_ms, boot_id=boot_id)


def _note(base: sqlite3.Connection, lease: LeaseId, what: str, why: str, now: Moment) -> None:
    base.execute(
        "INSERT INTO events (utc, boottime_ms, boot_id, lease, what, why) VALUES (?, ?, ?, ?, ?, ?)",
        (now.utc, now.boottime_ms, now.boot_id, lease, what, why),
    )
