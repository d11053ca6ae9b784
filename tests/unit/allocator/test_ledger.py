"""The ledger on disk: what it refuses by itself, and what a killed writer leaves."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Conflict, Ledger
from allocator.model import LeaseState, LedgerUnavailable
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.leasing import Clock, lease

if TYPE_CHECKING:
    from pathlib import Path

NOW = Clock()()


def test_a_lease_reads_back_as_written(tmp_path: Path) -> None:
    """What was granted is the same after the ledger was closed and opened again."""
    granted = lease("a", "GPU-2", "GPU-1")
    ledger = Ledger(tmp_path / "l")
    ledger.grant(granted, limit=2)
    ledger.close()
    again = Ledger(tmp_path / "l")
    assert again.live() == again.of_owner(Uid(1000)) == (granted,)
    assert again.find(LeaseId("a")) == granted
    assert again.find(LeaseId("b")) is None
    again.close()


def test_the_database_refuses_a_second_live_lease(tmp_path: Path) -> None:
    """A held device cannot be granted again, not even by SQL; nothing of the refused lease is left."""
    ledger = Ledger(tmp_path / "l")
    ledger.grant(lease("a", "GPU-1"), limit=9)
    with pytest.raises(Conflict):
        ledger.grant(lease("b", "GPU-0", "GPU-1", owner=2), limit=9)
    assert [item.id for item in ledger.live()] == ["a"]
    other = sqlite3.connect(tmp_path / "l")
    with pytest.raises(sqlite3.IntegrityError):
        other.execute("INSERT INTO lease_devices VALUES ('a2', 'GPU-1', 1)")
    other.close()
    ledger.close()


def test_the_limit_holds_in_the_transaction(tmp_path: Path) -> None:
    """A grant past the owner's limit is refused whatever the caller computed."""
    ledger = Ledger(tmp_path / "l")
    ledger.grant(lease("a", "GPU-1"), limit=1)
    with pytest.raises(Conflict, match="2 devices of 1"):
        ledger.grant(lease("b", "GPU-2"), limit=1)
    ledger.close()


def test_release_frees_and_revival_takes_back(tmp_path: Path) -> None:
    """A released device can be leased again; then the old lease cannot come back to life."""
    ledger = Ledger(tmp_path / "l")
    ledger.grant(lease("a", "GPU-1"), limit=9)
    for _ in range(2):
        done = ledger.change(LeaseId("a"), LeaseState.RELEASED, why="removed", now=NOW)
        assert done is not None
        assert not done.live
    ledger.change(LeaseId("a"), LeaseState.ACTIVE, why="seen", now=NOW, container=ContainerId("c"))
    with pytest.raises(Conflict):
        ledger.grant(lease("b", "GPU-1"), limit=9)
    ledger.change(LeaseId("a"), LeaseState.RELEASED, why="removed", now=NOW)
    ledger.grant(lease("b", "GPU-1"), limit=9)
    with pytest.raises(Conflict):
        ledger.change(LeaseId("a"), LeaseState.ACTIVE, why="seen", now=NOW)
    assert [what for what, _ in ledger.events(LeaseId("a"))] == ["granted", "released", "active", "released"]
    assert ledger.change(LeaseId("never"), LeaseState.ACTIVE, why="", now=NOW) is None
    ledger.close()


def test_what_it_cannot_read_it_refuses(tmp_path: Path) -> None:
    """A newer schema, a file that is no database and a directory are LedgerUnavailable."""
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    (tmp_path / "text").write_text("not a database, but long enough to have a header" * 9)
    for name in ("newer", "text", "."):
        with pytest.raises(LedgerUnavailable):
            Ledger(tmp_path / name)


_WRITER = """
import sys
from pathlib import Path
from allocator.ledger import Ledger
from allocator.model import LeaseState
from tests.fakes.leasing import Clock, lease
ledger, now = Ledger(Path(sys.argv[1])), Clock()()
for number in range(10**6):
    item = lease(f"{sys.argv[2]}-{number}", "GPU-1", "GPU-2")
    for old in ledger.live():
        ledger.change(old.id, LeaseState.RELEASED, why="next", now=now)
    ledger.grant(item, limit=2)
    print(item.id, flush=True)
"""


def test_a_killed_writer_loses_nothing_it_told(tmp_path: Path) -> None:
    """After SIGKILL at any moment every lease that was told is in the ledger, whole, and no device is held twice."""
    for turn in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path / "l"), str(turn)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        told = [writer.stdout.readline().strip()]
        time.sleep(0.003 * turn)
        writer.send_signal(signal.SIGKILL)
        told += writer.stdout.read().split("\n")[:-1]
        writer.stdout.close()
        writer.wait()
        ledger = Ledger(tmp_path / "l")
        for name in told:
            found = ledger.find(LeaseId(name.strip()))
            assert found is not None
            assert found.devices == ("GPU-1", "GPU-2")
        assert len(ledger.live()) <= 1
        ledger.close()


class _FailsAt:
    """A connection whose n-th statement fails, as a full disk would make it."""

    def __init__(self, base: sqlite3.Connection, number: int) -> None:
        self._base = base
        self._left = number

    def __getattr__(self, name: str) -> object:
        found = getattr(self._base, name)
        if name not in ("execute", "executemany"):
            return found
        self._left -= 1
        if self._left == -1:
            raise sqlite3.OperationalError("disk full")
        return found


@pytest.mark.parametrize("number", range(9))
def test_a_statement_that_fails_leaves_all_or_nothing(tmp_path: Path, number: int) -> None:
    """Whichever statement of a grant or a release fails, the lease is there whole or not at all."""
    for act in ("grant", "release"):
        ledger = Ledger(tmp_path / act)
        before = () if act == "grant" else (lease("a", "GPU-1", "GPU-2"),)
        for item in before:
            ledger.grant(item, limit=2)
        real = ledger._base
        ledger._base = _FailsAt(real, number)  # type: ignore[assignment]  # stands in for a connection
        failed = False
        try:
            if act == "grant":
                ledger.grant(lease("a", "GPU-1", "GPU-2"), limit=2)
            else:
                ledger.change(LeaseId("a"), LeaseState.RELEASED, why="x", now=NOW)
        except LedgerUnavailable:
            failed = True
        ledger._base = real
        done = (lease("a", "GPU-1", "GPU-2"),) if act == "grant" else ()
        assert ledger.live() == (before if failed else done)
        assert not real.in_transaction
        ledger.close()
