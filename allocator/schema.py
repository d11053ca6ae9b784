"""The ledger's tables, one step for each version: a ledger of an older ds01 is brought forward, one of a newer is refused."""

from __future__ import annotations

import sqlite3
from typing import Final

from allocator.model import LedgerUnavailable

_FIRST: Final = """
CREATE TABLE leases (
    id TEXT PRIMARY KEY,
    owner_uid INTEGER NOT NULL,
    owner_name TEXT NOT NULL,
    session TEXT NOT NULL,
    request_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'active', 'lost', 'released')),
    container TEXT,
    created_utc TEXT NOT NULL, created_ms INTEGER NOT NULL, created_boot TEXT NOT NULL,
    changed_utc TEXT NOT NULL, changed_ms INTEGER NOT NULL, changed_boot TEXT NOT NULL
) STRICT;
CREATE TABLE lease_devices (
    lease TEXT NOT NULL REFERENCES leases (id),
    device TEXT NOT NULL,
    live INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
    PRIMARY KEY (lease, device)
) STRICT;
CREATE UNIQUE INDEX one_live_lease_per_device ON lease_devices (device) WHERE live = 1;
CREATE TRIGGER device_lives_with_lease AFTER UPDATE OF state ON leases BEGIN
    UPDATE lease_devices SET live = (NEW.state <> 'released') WHERE lease = NEW.id;
END;
CREATE TABLE devices (uuid TEXT PRIMARY KEY, generation INTEGER NOT NULL, present INTEGER NOT NULL) STRICT;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    utc TEXT NOT NULL, boottime_ms INTEGER NOT NULL, boot_id TEXT NOT NULL,
    lease TEXT NOT NULL, what TEXT NOT NULL, why TEXT NOT NULL
) STRICT;
"""
_MIG: Final = """
CREATE TABLE mig_steps (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('destroy', 'create', 'set_mode')),
    gpu TEXT NOT NULL, profile TEXT NOT NULL, instance INTEGER, start INTEGER, enabled INTEGER,
    devices TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('intended', 'done', 'failed', 'abandoned')),
    who TEXT NOT NULL, why TEXT NOT NULL,
    utc TEXT NOT NULL, boottime_ms INTEGER NOT NULL, boot_id TEXT NOT NULL
) STRICT;
CREATE INDEX unfinished_mig_steps ON mig_steps (number) WHERE state = 'intended';
"""
STEPS: Final = (
    _FIRST,
    _MIG,
)  # step n makes version n of version n - 1; a step that was released is never changed


def bring_forward(base: sqlite3.Connection) -> None:
    """Make or update the tables. Raises: LedgerUnavailable: a newer ds01 wrote it. sqlite3.Error."""
    (version,) = base.execute("PRAGMA user_version").fetchone()
    if version > len(STEPS):
        raise LedgerUnavailable(f"the ledger has version {version}, this ds01 reads {len(STEPS)}")
    for number, step in enumerate(STEPS[version:], start=version + 1):
        # One script, one transaction: a ledger is whole or as it was.
        base.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
