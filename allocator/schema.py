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
    groups TEXT NOT NULL,
    equivalents TEXT NOT NULL,
    seconds INTEGER, hold_seconds INTEGER,
    session TEXT NOT NULL,
    request_id TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'bound', 'active', 'held', 'lost', 'released')),
    container TEXT,
    created_utc TEXT NOT NULL, created_ms INTEGER NOT NULL, created_boot TEXT NOT NULL,
    since_utc TEXT NOT NULL, since_ms INTEGER NOT NULL, since_boot TEXT NOT NULL,
    changed_utc TEXT NOT NULL, changed_ms INTEGER NOT NULL, changed_boot TEXT NOT NULL
) STRICT;
CREATE INDEX live_leases ON leases (owner_uid) WHERE state <> 'released';
CREATE INDEX leases_to_archive ON leases (changed_utc) WHERE state = 'released';
CREATE TABLE lease_devices (
    lease TEXT NOT NULL REFERENCES leases (id),
    device TEXT NOT NULL,
    generation INTEGER NOT NULL DEFAULT 0,
    live INTEGER NOT NULL DEFAULT 1 CHECK (live IN (0, 1)),
    PRIMARY KEY (lease, device)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX one_live_lease_per_device ON lease_devices (device) WHERE live = 1;
CREATE TRIGGER device_lives_with_lease AFTER UPDATE OF state ON leases BEGIN
    UPDATE lease_devices SET live = (NEW.state <> 'released') WHERE lease = NEW.id;
END;
CREATE TABLE devices (uuid TEXT PRIMARY KEY, generation INTEGER NOT NULL, present INTEGER NOT NULL) STRICT;
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    utc TEXT NOT NULL, boottime_ms INTEGER NOT NULL, boot_id TEXT NOT NULL,
    lease TEXT NOT NULL, who TEXT NOT NULL, before TEXT, what TEXT NOT NULL, why TEXT NOT NULL
) STRICT;
CREATE INDEX events_of_lease ON events (lease);
CREATE TABLE usage (
    owner_uid INTEGER PRIMARY KEY,
    amount REAL NOT NULL,
    utc TEXT NOT NULL, boottime_ms INTEGER NOT NULL, boot_id TEXT NOT NULL
) STRICT;
CREATE TABLE old_leases (
    id TEXT PRIMARY KEY,
    owner_uid INTEGER NOT NULL,
    created_utc TEXT NOT NULL,
    changed_utc TEXT NOT NULL,
    lease TEXT NOT NULL,
    events TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE reservations (
    id TEXT PRIMARY KEY,
    source TEXT NOT NULL,
    reservation TEXT NOT NULL
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
# What is known of devices beside who holds them, and what leases used of them.
# Cursors say up to when a lease's use of a device is written down; a trigger makes one whenever a device begins to
# be held, so that no lease is too short to be counted, and no crash loses one.
_HEALTH_AND_USAGE: Final = """
ALTER TABLE devices ADD COLUMN shape TEXT;
CREATE TABLE quarantines (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    device TEXT NOT NULL,
    fitness TEXT NOT NULL CHECK (fitness IN ('drain', 'quarantine')),
    began_utc TEXT NOT NULL, began_ms INTEGER NOT NULL, began_boot TEXT NOT NULL,
    began_by TEXT NOT NULL, automatic INTEGER NOT NULL CHECK (automatic IN (0, 1)), why TEXT NOT NULL,
    ended_utc TEXT, ended_ms INTEGER, ended_boot TEXT, ended_by TEXT, ended_why TEXT
) STRICT;
CREATE UNIQUE INDEX one_open_quarantine_per_device ON quarantines (device) WHERE ended_utc IS NULL;
CREATE TABLE device_errors (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    utc TEXT NOT NULL, boottime_ms INTEGER NOT NULL, boot_id TEXT NOT NULL,
    device TEXT NOT NULL, xid INTEGER NOT NULL, kind TEXT NOT NULL, owner_uid INTEGER
) STRICT;
CREATE INDEX device_errors_by_device ON device_errors (device, number);
CREATE TABLE lease_notes (lease TEXT PRIMARY KEY, utc TEXT NOT NULL, note TEXT NOT NULL) STRICT;
CREATE TABLE lease_usage (
    lease TEXT NOT NULL, device TEXT NOT NULL, hour TEXT NOT NULL, boot_id TEXT NOT NULL,
    owner_uid INTEGER NOT NULL,
    begin_utc TEXT NOT NULL, begin_ms INTEGER NOT NULL, end_utc TEXT NOT NULL, end_ms INTEGER NOT NULL,
    held_ms INTEGER NOT NULL, measured_ms INTEGER NOT NULL, percent_ms REAL NOT NULL,
    memory_max_mib INTEGER, energy_mj INTEGER,
    PRIMARY KEY (lease, device, hour, boot_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX lease_usage_by_hour ON lease_usage (hour);
CREATE TABLE lease_usage_cursors (
    lease TEXT NOT NULL, device TEXT NOT NULL, boottime_ms INTEGER NOT NULL, boot_id TEXT NOT NULL,
    energy_mj INTEGER,
    PRIMARY KEY (lease, device)
) STRICT, WITHOUT ROWID;
CREATE TRIGGER usage_begins AFTER INSERT ON lease_devices WHEN NEW.live = 1 BEGIN
    INSERT OR IGNORE INTO lease_usage_cursors
    SELECT NEW.lease, NEW.device, changed_ms, changed_boot, NULL FROM leases WHERE id = NEW.lease;
END;
CREATE TRIGGER usage_begins_again AFTER UPDATE OF live ON lease_devices WHEN NEW.live = 1 AND OLD.live = 0 BEGIN
    INSERT OR IGNORE INTO lease_usage_cursors
    SELECT NEW.lease, NEW.device, changed_ms, changed_boot, NULL FROM leases WHERE id = NEW.lease;
END;
INSERT INTO lease_usage_cursors
SELECT lease, device, created_ms, created_boot, NULL FROM lease_devices JOIN leases ON id = lease WHERE live = 1;
"""
# Of which GPU each leased device is, or is a part: the file of that GPU stays with a container when its MIG device has gone.
# NULL: an older ds01 did not write it down; a look that finds the device does. The two triggers refuse what would hold a GPU
# as a whole beside a part of it, whatever a bug above does.
_GPUS_OF_LEASES: Final = """
ALTER TABLE lease_devices ADD COLUMN gpu TEXT;
UPDATE lease_devices SET gpu = device WHERE device LIKE 'GPU-%';
UPDATE lease_devices SET gpu = substr(device, 5, instr(device, '/') - 5) WHERE device LIKE 'MIG-GPU-%/%';
CREATE INDEX devices_of_unknown_gpus ON lease_devices (device) WHERE gpu IS NULL;
CREATE INDEX live_devices_by_gpu ON lease_devices (gpu) WHERE live = 1;
CREATE TRIGGER whole_or_parts BEFORE INSERT ON lease_devices WHEN NEW.live = 1 AND EXISTS (
    SELECT 1 FROM lease_devices
    WHERE live = 1 AND gpu = NEW.gpu AND lease <> NEW.lease AND (device = gpu) <> (NEW.device = NEW.gpu)
) BEGIN SELECT RAISE(ABORT, 'a GPU would be held beside a part of it'); END;
CREATE TRIGGER whole_or_parts_again BEFORE UPDATE OF live ON lease_devices
WHEN NEW.live = 1 AND OLD.live = 0 AND EXISTS (
    SELECT 1 FROM lease_devices
    WHERE live = 1 AND gpu = NEW.gpu AND lease <> NEW.lease AND (device = gpu) <> (NEW.device = NEW.gpu)
) BEGIN SELECT RAISE(ABORT, 'a GPU would be held beside a part of it'); END;
"""
# How each GPU in MIG mode was split when it was last seen, and in which boot: the next one makes it again. `number` is the profile's
# id, `enabled` whether MIG mode was to be on after a reset. And which steps the CDI spec does not show yet.
_MIG_OVER_REBOOTS: Final = """
CREATE TABLE mig_instances (
    gpu TEXT NOT NULL, start INTEGER NOT NULL, size INTEGER NOT NULL,
    profile TEXT NOT NULL, number INTEGER NOT NULL,
    devices TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    boot_id TEXT NOT NULL,
    PRIMARY KEY (gpu, start)
) STRICT, WITHOUT ROWID;
ALTER TABLE mig_steps ADD COLUMN in_spec INTEGER NOT NULL DEFAULT 1 CHECK (in_spec IN (0, 1));
UPDATE mig_steps SET in_spec = 0 WHERE state = 'intended';
CREATE INDEX unwritten_mig_steps ON mig_steps (number) WHERE state = 'done' AND in_spec = 0;
"""
STEPS: Final = (
    _FIRST,
    _MIG,
    _HEALTH_AND_USAGE,
    _GPUS_OF_LEASES,
    _MIG_OVER_REBOOTS,
)  # step n makes version n of version n - 1; a step that was released is never changed


def bring_forward(base: sqlite3.Connection) -> None:
    """Make or update the tables. Raises: LedgerUnavailable: a newer ds01 wrote it. sqlite3.Error."""
    (version,) = base.execute("PRAGMA user_version").fetchone()
    if version > len(STEPS):
        raise LedgerUnavailable(f"the ledger has version {version}, this ds01 reads {len(STEPS)}")
    for number, step in enumerate(STEPS[version:], start=version + 1):
        # One script, one transaction: a ledger is whole or as it was.
        base.executescript(f"BEGIN IMMEDIATE; {step} PRAGMA user_version = {number}; COMMIT;")
