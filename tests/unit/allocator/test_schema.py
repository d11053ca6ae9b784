"""Bringing a ledger forward: step by step, whole or not at all."""

from __future__ import annotations

import sqlite3

import pytest

from allocator import schema
from allocator.model import LedgerUnavailable


def _version(base: sqlite3.Connection) -> int:
    return int(base.execute("PRAGMA user_version").fetchone()[0])


def test_an_empty_file_gets_every_table() -> None:
    """And the version that this ds01 writes; a second time changes nothing."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    for _ in range(2):
        schema.bring_forward(base)
        assert _version(base) == len(schema.STEPS)
    assert base.execute("SELECT count(*) FROM leases").fetchone() == (0,)


def test_only_missing_steps_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an older ds01 wrote is kept."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    schema.bring_forward(base)
    base.execute("INSERT INTO devices (uuid, generation, present) VALUES ('GPU-1', 3, 1)")
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, "CREATE TABLE more (number INTEGER) STRICT;"))
    schema.bring_forward(base)
    assert base.execute("SELECT generation FROM devices").fetchone() == (3,)
    assert base.execute("SELECT count(*) FROM more").fetchone() == (0,)


def test_leases_of_an_older_ledger_are_counted_from_now_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are live when the tables of usage are made have a cursor, at the moment they were granted."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    steps = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", steps[:1])
    schema.bring_forward(base)
    needed = [row for row in base.execute("PRAGMA table_info(leases)") if row[3] or row[5]]
    for name, live in (("a", 1), ("b", 0)):
        row = {column: 5 if kind == "INTEGER" else "boot" for _, column, kind, *_ in needed}
        row |= {"id": name, "state": "active" if live else "released"}
        names = ", ".join(row)
        base.execute(
            f"INSERT INTO leases ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values())
        )
        base.execute("INSERT INTO lease_devices (lease, device, live) VALUES (?, 'GPU-1', ?)", (name, live))
    monkeypatch.setattr(schema, "STEPS", steps)
    schema.bring_forward(base)
    cursors = base.execute("SELECT lease, device, boottime_ms, boot_id FROM lease_usage_cursors").fetchall()
    assert cursors == [("a", "GPU-1", 5, "boot")]


def test_gpus_of_an_older_ledger_are_known_as_far_as_their_names_tell(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A GPU is itself; a MIG device of drivers before 470 names its GPU; of another nothing is guessed."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    steps = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", steps[:3])
    schema.bring_forward(base)
    devices = ("GPU-1", "MIG-2", "MIG-GPU-3/1/0")
    base.executemany("INSERT INTO lease_devices (lease, device) VALUES ('a', ?)", [(one,) for one in devices])
    monkeypatch.setattr(schema, "STEPS", steps)
    schema.bring_forward(base)
    found = base.execute("SELECT device, gpu FROM lease_devices ORDER BY device").fetchall()
    assert found == [("GPU-1", "GPU-1"), ("MIG-2", None), ("MIG-GPU-3/1/0", "GPU-3")]


def test_a_change_of_mig_that_an_older_ds01_began_is_written_to_the_spec(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When it is finished; what that ds01 had done is in the spec."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    steps = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", steps[:4])
    schema.bring_forward(base)
    for state in ("done", "intended"):
        base.execute(
            "INSERT INTO mig_steps (kind, gpu, profile, devices, state, who, why, utc, boottime_ms, boot_id)"
            " VALUES ('create', 'GPU-1', '1g.5gb', '', ?, 'root', '', '', 0, '')",
            (state,),
        )
    monkeypatch.setattr(schema, "STEPS", steps)
    schema.bring_forward(base)
    found = base.execute("SELECT state, in_spec FROM mig_steps ORDER BY number").fetchall()
    assert found == [("done", 1), ("intended", 0)]


def test_a_step_that_fails_leaves_the_version_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a step is never kept."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    schema.bring_forward(base)
    before = _version(base)
    broken = "CREATE TABLE half (number INTEGER) STRICT; CREATE TABLE leases (id TEXT) STRICT;"
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, broken))
    with pytest.raises(sqlite3.Error):
        schema.bring_forward(base)
    base.rollback()
    assert _version(base) == before
    assert not base.execute("SELECT name FROM sqlite_master WHERE name = 'half'").fetchall()


def test_a_newer_ledger_is_refused() -> None:
    """Rather than read wrongly."""
    base = sqlite3.connect(":memory:", isolation_level=None)
    base.execute(f"PRAGMA user_version = {len(schema.STEPS) + 1}")
    with pytest.raises(LedgerUnavailable, match="has version"):
        schema.bring_forward(base)
