"""Who may use GPUs outside containers, until when and why: durable, with its own small SQLite file.

Not the ledger's: it holds no device, and one writer each keeps both simple (ADR 0005, 0021). A grant's time is counted by the
clock that nobody can set; only what passes while the machine is off is told by the time of day.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from allocator.granted_devices import GrantedDevice
from allocator.model import LedgerUnavailable, Moment
from policy.model import DeviceUuid, Uid

SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE grants (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    uid INTEGER NOT NULL, name TEXT NOT NULL, devices TEXT NOT NULL,
    granted_by TEXT NOT NULL, reason TEXT NOT NULL, granted_utc TEXT NOT NULL,
    ends_seconds INTEGER NOT NULL,
    left_seconds REAL NOT NULL, left_ms INTEGER NOT NULL, left_boot TEXT NOT NULL,
    ended_utc TEXT, ended_by TEXT, ended_why TEXT
) STRICT;
CREATE UNIQUE INDEX one_live_grant_per_user ON grants (uid) WHERE ended_utc IS NULL;
"""
# A grant of before named files, which may be another GPU's by now: its time is up, so that the next sweep takes it back.
_FROM_1 = """
ALTER TABLE grants RENAME COLUMN nodes TO devices;
UPDATE grants SET left_seconds = 0 WHERE ended_utc IS NULL AND devices != '[]';
UPDATE grants SET devices = '[]';
"""
_COLUMNS = (
    "number, uid, name, devices, granted_by, reason, granted_utc, ends_seconds, left_seconds, left_ms, left_boot,"
    " ended_utc, ended_by, ended_why"
)
_INSERT = (
    "INSERT INTO grants (uid, name, devices, granted_by, reason, granted_utc, ends_seconds, left_seconds, left_ms, left_boot)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
_END = "UPDATE grants SET ended_utc = ?, ended_by = ?, ended_why = ? WHERE ended_utc IS NULL AND "


@dataclass(frozen=True, slots=True, kw_only=True)
class HostGrant:
    """One grant.

    devices: sorted; empty: all of NVIDIA's, whatever drivers there are.
    ends_seconds: when it ends by the time of day, in seconds since 1970. left_seconds: what was left at `counted`.
    ended_utc: None while it lives; ended_by and ended_why go with it.
    """

    number: int
    uid: Uid
    name: str
    devices: tuple[GrantedDevice, ...]
    granted_by: str
    reason: str
    granted_utc: str
    ends_seconds: int
    left_seconds: float
    counted: Moment
    ended_utc: str | None = None
    ended_by: str | None = None
    ended_why: str | None = None

    @property
    def ends_utc(self) -> str:
        """`ends_seconds` for people."""
        return (
            datetime.fromtimestamp(self.ends_seconds, UTC)
            .isoformat(timespec="seconds")
            .replace("+00:00", "Z")
        )

    def left(self, *, now: Moment, utc_seconds: float) -> float:
        """How long it lasts still, in seconds; 0 or less: it is over.

        INVARIANT: a clock that is set never lengthens it, and shortens it at most by a boot: within one boot the time of day does
        not count, and over a boot there is never more left than there was.
        """
        if now.boot_id == self.counted.boot_id:
            return self.left_seconds - now.seconds_since(self.counted)
        return min(self.left_seconds, self.ends_seconds - utc_seconds)


class HostGrants:
    """The open file. Every method is one transaction, on disk when it returns. Raises: LedgerUnavailable from each."""

    def __init__(self, path: Path) -> None:
        """Open or make the file. Raises: LedgerUnavailable: unreadable, or written by a newer ds01."""
        try:
            self._base = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"the record of grants cannot be opened: {error}") from error
        try:
            self._prepare()
        except sqlite3.Error as error:
            self._base.close()
            raise LedgerUnavailable(f"the record of grants cannot be opened: {error}") from error

    def _prepare(self) -> None:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "busy_timeout = 2000"):
            self._base.execute(f"PRAGMA {pragma}")
        (version,) = self._base.execute("PRAGMA user_version").fetchone()
        change = {0: _SCHEMA, 1: _FROM_1}.get(version)
        if change is not None:
            whole = f"BEGIN IMMEDIATE; {change} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            self._base.executescript(whole)
        elif version != SCHEMA_VERSION:
            raise sqlite3.NotSupportedError(f"it has version {version}, this ds01 reads {SCHEMA_VERSION}")

    def close(self) -> None:
        """Let go of the file."""
        self._base.close()

    def grant(
        self,
        *,
        uid: Uid,
        name: str,
        devices: tuple[GrantedDevice, ...],
        seconds: int,
        by: str,
        reason: str,
        now: Moment,
        utc_seconds: float,
    ) -> HostGrant:
        """Write a grant down; it takes the place of the user's earlier one."""
        written = json.dumps([[device.uuid, device.generation] for device in devices])
        row = (uid, name, written, by, reason, now.utc, int(utc_seconds) + seconds, float(seconds))
        self._write(
            (_END + "uid = ?", (now.utc, by, "replaced", uid)),
            (_INSERT, (*row, now.boottime_ms, now.boot_id)),
        )
        found = self.of(uid)
        if found is None:
            raise LedgerUnavailable("the record of grants lost what was written")
        return found

    def end(self, number: int, *, by: str, why: str, now: Moment) -> None:
        """Write down that a grant is over; one that is over already stays as it is."""
        self._write((_END + "number = ?", (now.utc, by, why, number)))

    def count(self, number: int, left_seconds: float, *, now: Moment) -> None:
        """Write down how much is left now."""
        self._write(
            (
                "UPDATE grants SET left_seconds = ?, left_ms = ?, left_boot = ? WHERE number = ? AND ended_utc IS NULL",
                (left_seconds, now.boottime_ms, now.boot_id, number),
            )
        )

    def of(self, uid: Uid) -> HostGrant | None:
        """The user's live grant."""
        found = self._select("ended_utc IS NULL AND uid = ?", uid)
        return found[0] if found else None

    def live(self) -> tuple[HostGrant, ...]:
        """All that are not over, oldest first; one whose time is up is among them until it was taken away."""
        return self._select("ended_utc IS NULL")

    def past(self, *, most: int = 100) -> tuple[HostGrant, ...]:
        """The last ones that are over, latest first."""
        return self._select("ended_utc IS NOT NULL", order="DESC", most=most)

    def _select(
        self, condition: str, *values: object, order: str = "ASC", most: int = -1
    ) -> tuple[HostGrant, ...]:
        query = f"SELECT {_COLUMNS} FROM grants WHERE {condition} ORDER BY number {order} LIMIT ?"  # noqa: S608  constants
        try:
            rows = self._base.execute(query, (*values, most)).fetchall()
            return tuple(map(_grant, rows))
        except (sqlite3.Error, ValueError) as error:
            raise LedgerUnavailable(f"the record of grants cannot be read: {error}") from error

    def _write(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        """All of them, or none."""
        try:
            self._base.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._base.execute(statement, values)
            self._base.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._base.rollback()
            raise LedgerUnavailable(f"the record of grants cannot be written: {error}") from error


def _grant(row: tuple[Any, ...]) -> HostGrant:
    number, uid, name, devices, by, reason, granted, ends, left, left_ms, left_boot, *ended = row
    return HostGrant(
        number=number,
        uid=Uid(uid),
        name=name,
        devices=tuple(
            GrantedDevice(uuid=DeviceUuid(uuid), generation=generation)
            for uuid, generation in json.loads(devices)
        ),
        granted_by=by,
        reason=reason,
        granted_utc=granted,
        ends_seconds=ends,
        left_seconds=left,
        counted=Moment(utc=granted, boottime_ms=left_ms, boot_id=left_boot),
        ended_utc=ended[0],
        ended_by=ended[1],
        ended_why=ended[2],
    )
