"""The ledger: who holds which device, on disk before anybody is told of a grant. One writer, SQLite.

INVARIANT: the database itself refuses a second live lease on a device (`one_live_lease_per_device`), and a
trigger keeps a device's liveness equal to its lease's, so no bug above this file can lease one device twice.
INVARIANT: what takes a device, or gives one back, is synced before it is told. A confirm alone is not: evidence
repairs it when the power takes it back (ADR 0005).
What is asked often, the live leases and past usage, is kept in memory as well, and read again after any failure.
Leases that ended long ago move to a table of their own (`archive`), so that the others stay few however old the ledger.
"""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from allocator import rows
from allocator.model import Lease, LeaseState, LedgerUnavailable, Moment
from allocator.schema import bring_forward
from allocator.shares import HALF_LIFE_SECONDS, with_lease
from policy.model import LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from pathlib import Path

    from allocator.reservations import Reservation
    from allocator.shares import Usage
    from policy.model import ContainerId, DeviceUuid

_MOST_WAL_PAGES = 20_000  # 80 MiB; then a grant carries the log over, if `checkpoint` did not for so long
LONG_LOG_CHANGES = 200  # some 2,000 pages; see `checkpoint`
_NOTE = (
    "INSERT INTO events (utc, boottime_ms, boot_id, lease, who, before, what, why)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)


class Conflict(Exception):  # noqa: N818  the name says what is wrong
    """The change would hold a device twice or pass a limit; nothing was written."""


class Ledger:
    """One open ledger. Every method is one transaction and returns after it is on disk, but for a confirm.

    Not for two threads at once. Raises: LedgerUnavailable from every method.
    """

    def __init__(
        self,
        path: Path,
        *,
        half_life_seconds: float = HALF_LIFE_SECONDS,
        sync: Callable[[int], None] = os.fdatasync,
    ) -> None:
        """Open or make the file. Raises: LedgerUnavailable: unreadable, or written by a newer ds01.

        Args:
            half_life_seconds: after which past usage counts half.
            sync: puts the log of an open descriptor on disk. Raises: OSError.
        """
        self._sync = sync
        self._changes = 0  # since the log was carried over last
        self._doubtful = False  # whether a sync has failed since all was on disk for certain
        self._half_life_seconds = half_life_seconds
        self._live: dict[LeaseId, Lease] = {}
        self._usage: dict[Uid, Usage] = {}
        self._stale = True  # whether the two above must be read before they are used
        try:
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._prepare()
            self._log = os.open(f"{path.resolve()}-wal", os.O_RDONLY | os.O_CLOEXEC)
        except (sqlite3.Error, OSError) as error:
            raise LedgerUnavailable(f"the ledger cannot be opened: {error}") from error

    def _prepare(self) -> None:
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",  # SQLite syncs what keeps the file whole; commits are synced by `transaction`
            "foreign_keys = ON",
            "busy_timeout = 2000",
            f"wal_autocheckpoint = {_MOST_WAL_PAGES}",
        ):
            self._base.execute(f"PRAGMA {pragma}")
        bring_forward(self._base)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._log)
        self._base.close()

    def live(self) -> tuple[Lease, ...]:
        """Every lease that holds devices, oldest first."""
        self._freshen()
        return tuple(self._live.values())

    def of_owner(self, owner: Uid) -> tuple[Lease, ...]:
        """The live leases of one user, oldest first."""
        return tuple(lease for lease in self.live() if lease.owner_uid == owner)

    def at_hand(self) -> tuple[tuple[Lease, ...], Mapping[Uid, Usage]] | None:
        """What `books` says, without a look at the disk; None when that is needed."""
        return None if self._stale else (tuple(self._live.values()), self._usage)

    def books(self) -> tuple[tuple[Lease, ...], Mapping[Uid, Usage]]:
        """The live leases, and what each user has used in leases that are over."""
        return self.live(), self._usage

    def find(self, lease: LeaseId) -> Lease | None:
        """One lease in whatever state, however old; None when it was never granted."""
        self._freshen()
        if lease in self._live:
            return self._live[lease]
        found = self._select("id = ?", lease)
        if found:
            return found[0]
        old = self.read("SELECT lease FROM old_leases WHERE id = ?", lease)
        return rows.read_archived(old[0][0]) if old else None

    def grant(self, lease: Lease, *, limit: int | None) -> None:
        """Write a new lease. Raises: Conflict: a device is held, or the owner would pass `limit` (None: there is none)."""
        with self.transaction() as base:
            (held,) = base.execute(
                "SELECT count(*) FROM lease_devices JOIN leases ON id = lease WHERE live = 1 AND owner_uid = ?",
                (lease.owner_uid,),
            ).fetchone()
            if limit is not None and held + len(lease.devices) > limit:
                raise Conflict(
                    f"{lease.owner_name} would hold {held + len(lease.devices)} devices of {limit}"
                )
            base.execute(f"INSERT INTO leases ({rows.COLUMNS}) VALUES ({rows.PLACES})", rows.lease_row(lease))  # noqa: S608  constants
            base.executemany(
                "INSERT INTO lease_devices (lease, device, generation, gpu) VALUES (?, ?, ?, ?)",
                [(lease.id, *held) for held in rows.held_rows(lease)],
            )
            why = f"request {lease.request_id} of {lease.owner_name}"
            _note(base, lease.id, lease.created, who=lease.session, before=None, what="granted", why=why)
        self._live[lease.id] = lease

    def change(
        self,
        lease: LeaseId,
        state: LeaseState,
        *,
        who: str,
        why: str,
        now: Moment,
        container: ContainerId | None = None,
    ) -> Lease | None:
        """Put a lease into `state`, and on `container` if one is given; None when there is no such lease.

        Idempotent: nothing is written when nothing changes.
        Raises: Conflict: brought back to life although a device of it is held by another, or after so long that it
            was put away.
        """
        old = self.find(lease)
        if old is None:
            return None
        new = replace(old, state=state, container=container or old.container, changed=now)
        if (new.state, new.container) == (old.state, old.container):
            return old
        if not old.live and new.live:
            new = replace(new, since=now)
        usage = self._usage.get(old.owner_uid)
        if old.live and not new.live:
            usage = with_lease(usage, old, now, self._half_life_seconds)
        with self.transaction(synced=not _is_confirm(old, new)) as base:
            self._write(base, new)
            if usage is not None and old.live and not new.live:
                base.execute(
                    "INSERT OR REPLACE INTO usage (owner_uid, amount, utc, boottime_ms, boot_id) VALUES (?, ?, ?, ?, ?)",
                    (old.owner_uid, usage.amount, *rows.moment_row(usage.at)),
                )
            _note(base, lease, now, who=who, before=old.state, what=state, why=why)
        self._live.pop(lease, None)
        if new.live:
            self._live[lease] = new
        elif usage is not None:
            self._usage[old.owner_uid] = usage
        return new

    def learn_gpus(self, gpus: Mapping[DeviceUuid, DeviceUuid]) -> None:
        """Write down of which GPU each leased device is, where an older ds01 did not and this look has it."""
        unknown = self.read("SELECT DISTINCT device FROM lease_devices WHERE gpu IS NULL")
        found = [(gpus[uuid], uuid) for (uuid,) in unknown if uuid in gpus]
        if not found:
            return
        with self.transaction() as base:
            base.executemany("UPDATE lease_devices SET gpu = ? WHERE device = ? AND gpu IS NULL", found)
        self._stale = True

    def events(self, lease: LeaseId) -> tuple[tuple[str, str, str], ...]:
        """What happened to a lease, in order: (who, what, why)."""
        found = self.read("SELECT who, what, why FROM events WHERE lease = ? ORDER BY number", lease)
        if not found:
            old = self.read("SELECT events FROM old_leases WHERE id = ?", lease)
            found = [(event[4], event[6], event[7]) for event in json.loads(old[0][0])] if old else []
        return tuple((str(who), str(what), str(why)) for who, what, why in found)

    def archive(self, before_utc: str, *, most: int) -> int:
        """Put away at most `most` leases that ended before a time of day. Returns: how many."""
        over = self._select(
            "state = 'released' AND changed_utc < ?", before_utc, order="changed_utc", most=most
        )
        if not over:
            return 0
        with self.transaction() as base:
            for lease in over:
                events = base.execute(
                    "SELECT utc, boottime_ms, boot_id, lease, who, before, what, why FROM events"
                    " WHERE lease = ? ORDER BY number",
                    (lease.id,),
                ).fetchall()
                base.execute(
                    "INSERT INTO old_leases VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        *(lease.id, lease.owner_uid, lease.created.utc, lease.changed.utc),
                        *(rows.archived(lease), json.dumps(events)),
                    ),
                )
                for table, column in (("events", "lease"), ("lease_devices", "lease"), ("leases", "id")):
                    base.execute(f"DELETE FROM {table} WHERE {column} = ?", (lease.id,))  # noqa: S608  constants
        return len(over)

    def checkpoint(self, *, least_changes: int = 0) -> None:
        """Put all on disk, confirms too, and carry the log over into the file, so that no grant has to do it on its way.

        Args: least_changes: while fewer were made since the last time, the log goes on. The first change of one that is begun
            anew costs a second sync, of its header; leases are so few that it would often be a grant.
        """
        if self._changes < least_changes:
            with self.transaction():
                return
        self.read("PRAGMA wal_checkpoint(PASSIVE)")
        self._changes = 0

    def reservations(self) -> tuple[Reservation, ...]:
        """All of them, in the order of their ids."""
        found = self.read("SELECT reservation FROM reservations ORDER BY id")
        return tuple(rows.read_reservation(text) for (text,) in found)

    def reserve(self, added: Collection[Reservation]) -> None:
        """Write reservations; one with a known id replaces it."""
        with self.transaction() as base:
            _reserve(base, added)

    def replace_reservations(self, source: str, reservations: Collection[Reservation]) -> None:
        """Write all reservations of one source, and forget those it had before."""
        with self.transaction() as base:
            base.execute("DELETE FROM reservations WHERE source = ?", (source,))
            _reserve(base, reservations)

    def forget_reservation(self, number: str) -> bool:
        """Whether there was one."""
        with self.transaction() as base:
            return base.execute("DELETE FROM reservations WHERE id = ?", (number,)).rowcount > 0

    def _write(self, base: sqlite3.Connection, lease: Lease) -> None:
        done = base.execute(
            "UPDATE leases SET state = ?, container = ?, changed_utc = ?, changed_ms = ?, changed_boot = ?,"
            " since_utc = ?, since_ms = ?, since_boot = ? WHERE id = ?",
            (
                *(lease.state, lease.container, *rows.moment_row(lease.changed)),
                *(*rows.moment_row(lease.since), lease.id),
            ),
        )
        if done.rowcount != 1:
            raise Conflict(f"lease {lease.id} ended too long ago to come back")

    def _freshen(self) -> None:
        """Read again what is kept in memory, where a failure left open what is on disk."""
        if not self._stale:
            return
        self._live = {lease.id: lease for lease in self._select("state <> 'released'")}
        found = self.read("SELECT owner_uid, amount, utc, boottime_ms, boot_id FROM usage")
        self._usage = {Uid(uid): rows.read_usage(row) for uid, *row in found}
        self._stale = False

    def _select(
        self, condition: str, *values: object, order: str = "rowid", most: int = -1
    ) -> tuple[Lease, ...]:
        found = self.read(
            f"SELECT {rows.COLUMNS} FROM leases WHERE {condition} ORDER BY {order} LIMIT ?",  # noqa: S608  constants
            *values,
            most,
        )
        return tuple(rows.read_lease(row, self._devices(row[0])) for row in found)

    def _devices(self, lease: str) -> list[tuple[str, int, str | None]]:
        return self.read(
            "SELECT device, generation, gpu FROM lease_devices WHERE lease = ? ORDER BY device", lease
        )

    def read(self, query: str, *values: object) -> list[Any]:
        """Rows. For this file and for those that keep other tables in it."""
        try:
            return self._base.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the ledger cannot be read: {error}") from error

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """Write all of the body or nothing. Raises: Conflict: a constraint refuses it.

        Args: synced: on disk when this ends. Otherwise it outlives the process, and the power from the next synced one on,
            since the log is one sequence, or from the next `checkpoint`.
        SOURCE: sqlite.org/pragma.html, synchronous: FULL is NORMAL and a sync of the log after each commit.
        """
        try:
            if self._doubtful:
                self._write_again()
            self._base.execute("BEGIN IMMEDIATE")
            yield self._base
            self._base.execute("COMMIT")
            self._changes += 1
            if synced:
                self._doubtful = True  # until the sync has come back
                self._sync(self._log)
                self._doubtful = False
        except sqlite3.IntegrityError as error:
            raise Conflict(str(error)) from error
        except (sqlite3.Error, OSError) as error:
            self._stale = True  # the last statement may have reached the disk all the same
            raise LedgerUnavailable(f"the ledger cannot be written: {error}") from error
        finally:
            if self._base.in_transaction:
                self._base.execute("ROLLBACK")

    def _write_again(self) -> None:
        """Carry all of the log over and begin a new one: after a failed sync the kernel may take what it lost for written."""
        ((busy, _, _),) = self._base.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        if busy:
            raise sqlite3.OperationalError("the log is in use")
        self._doubtful = False


def _is_confirm(old: Lease, new: Lease) -> bool:
    return (old.state, new.state) == (LeaseState.PENDING, LeaseState.BOUND)


def _reserve(base: sqlite3.Connection, added: Collection[Reservation]) -> None:
    base.executemany(
        "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?)",
        [(item.id, item.source, rows.reservation_text(item)) for item in added],
    )


def _note(
    base: sqlite3.Connection,
    lease: LeaseId,
    now: Moment,
    *,
    who: str,
    before: str | None,
    what: str,
    why: str,
) -> None:
    base.execute(_NOTE, (*rows.moment_row(now), lease, who, before, what, why))
