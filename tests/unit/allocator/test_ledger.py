"""The ledger on disk: what it refuses by itself, and what a killed writer leaves."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Conflict, Ledger
from allocator.model import Lease, LeaseState, LedgerUnavailable
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from tests.fakes.disk import Disk, Lost
from tests.fakes.leasing import Clock, lease

if TYPE_CHECKING:
    from collections.abc import Callable
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
        other.execute("INSERT INTO lease_devices VALUES ('a2', 'GPU-1', 0, 1, 'GPU-1')")
    other.close()
    ledger.close()


def part(name: str, uuid: str, gpu: str | None = "GPU-1") -> Lease:
    """A lease of one MIG device."""
    return replace(lease(name, uuid), gpus=(None if gpu is None else DeviceUuid(gpu),))


def test_the_database_refuses_a_gpu_beside_a_part_of_it(tmp_path: Path) -> None:
    """Either way round, and when a lease comes back to life; parts stand beside each other."""
    ledger = Ledger(tmp_path / "l")
    for name in ("a", "b"):
        ledger.grant(part(name, f"MIG-{name}"), limit=9)
    with pytest.raises(Conflict, match="a GPU would be held beside a part of it"):
        ledger.grant(lease("c", "GPU-1"), limit=9)
    now = Clock()()
    for name in ("a", "b"):
        ledger.change(LeaseId(name), LeaseState.RELEASED, who="x", why="x", now=now)
    ledger.grant(lease("d", "GPU-1"), limit=9)
    with pytest.raises(Conflict, match="a GPU would be held beside a part of it"):
        ledger.change(LeaseId("a"), LeaseState.ACTIVE, who="x", why="x", now=now)
    with pytest.raises(Conflict):
        ledger.grant(part("e", "MIG-e"), limit=9)
    assert [item.id for item in ledger.live()] == ["d"]
    ledger.close()


def test_the_gpu_of_an_older_row_is_learnt(tmp_path: Path) -> None:
    """From the first look that finds the device, and for good; of others it stays unknown."""
    ledger = Ledger(tmp_path / "l")
    ledger.grant(part("a", "MIG-a", None), limit=9)
    ledger.grant(part("b", "MIG-b", None), limit=9)
    ledger.learn_gpus({DeviceUuid("MIG-a"): DeviceUuid("GPU-1"), DeviceUuid("GPU-1"): DeviceUuid("GPU-1")})
    assert [item.gpus for item in ledger.live()] == [("GPU-1",), (None,)]
    ledger.close()
    ledger = Ledger(tmp_path / "l")
    assert [item.gpus for item in ledger.live()] == [("GPU-1",), (None,)]
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
        done = ledger.change(LeaseId("a"), LeaseState.RELEASED, who="x", why="removed", now=NOW)
        assert done is not None
        assert not done.live
    ledger.change(LeaseId("a"), LeaseState.ACTIVE, who="x", why="seen", now=NOW, container=ContainerId("c"))
    with pytest.raises(Conflict):
        ledger.grant(lease("b", "GPU-1"), limit=9)
    ledger.change(LeaseId("a"), LeaseState.RELEASED, who="x", why="removed", now=NOW)
    ledger.grant(lease("b", "GPU-1"), limit=9)
    with pytest.raises(Conflict):
        ledger.change(LeaseId("a"), LeaseState.ACTIVE, who="x", why="seen", now=NOW)
    assert [what for _, what, _ in ledger.events(LeaseId("a"))] == [
        "granted",
        "released",
        "active",
        "released",
    ]
    assert ledger.change(LeaseId("never"), LeaseState.ACTIVE, who="x", why="", now=NOW) is None
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
from tests.fakes.disk import Disk, Lost
from tests.fakes.leasing import Clock, lease
ledger, now = Ledger(Path(sys.argv[1])), Clock()()
for number in range(10**6):
    item = lease(f"{sys.argv[2]}-{number}", "GPU-1", "GPU-2")
    for old in ledger.live():
        ledger.change(old.id, LeaseState.RELEASED, who="x", why="next", now=now)
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


def after_power_loss(disk: Disk, path: Path) -> dict[str, LeaseState]:
    """What the next boot finds live."""
    disk.after_power_loss(path, Lost.ALL)
    ledger = Ledger(path)
    found = {str(item.id): item.state for item in ledger.live()}
    ledger.close()
    return found


def confirm(ledger: Ledger, name: str) -> Lease | None:
    return ledger.change(
        LeaseId(name), LeaseState.BOUND, who="x", why="confirmed", now=NOW, container=ContainerId(name)
    )


def test_only_a_confirm_is_told_before_it_is_on_disk(tmp_path: Path) -> None:
    """A power loss takes back confirms until the next change that is synced, and nothing else that was told."""
    disk = Disk(tmp_path / "l")
    ledger = Ledger(tmp_path / "l", sync=disk.sync)
    told = [{}, {"a": "pending"}, {"a": "pending"}, {"a": "active"}, {"a": "active", "b": "pending"}]
    told += [{"a": "active", "b": "pending"}, {"b": "bound"}]
    steps: list[Callable[[], object]] = [
        lambda: ledger.reserve(()),
        lambda: ledger.grant(lease("a", "GPU-1"), limit=1),
        lambda: confirm(ledger, "a"),
        lambda: ledger.change(LeaseId("a"), LeaseState.ACTIVE, who="x", why="starts", now=NOW),
        lambda: ledger.grant(lease("b", "GPU-2", owner=2), limit=1),
        lambda: confirm(ledger, "b"),
        lambda: ledger.change(LeaseId("a"), LeaseState.RELEASED, who="x", why="removed", now=NOW),
    ]
    for number, (step, left) in enumerate(zip(steps, told, strict=True)):
        step()
        assert after_power_loss(disk, tmp_path / f"boot-{number}") == left
    ledger.close()


def test_a_killed_process_loses_no_confirm(tmp_path: Path) -> None:
    """What was not synced is the kernel's, and there for the next process."""
    path = tmp_path / "l"
    code = (
        "import os, sys; from pathlib import Path\n"
        "from tests.unit.allocator.test_ledger import Ledger, confirm, lease\n"
        "ledger = Ledger(Path(sys.argv[1]), sync=lambda _: None)\n"
        "ledger.grant(lease('a', 'GPU-1'), limit=1); confirm(ledger, 'a'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode == -signal.SIGKILL
    ledger = Ledger(path)
    assert [item.state for item in ledger.live()] == [LeaseState.BOUND]
    ledger.close()


def test_the_log_is_what_is_synced(tmp_path: Path) -> None:
    """The descriptor is that of SQLite's own log, also after it was carried over and begun anew."""
    synced = list[int]()
    ledger = Ledger(tmp_path / "l", sync=lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    for number in range(3):
        ledger.grant(lease(f"a{number}", f"GPU-{number}"), limit=9)
        assert synced == [(tmp_path / "l-wal").stat().st_ino] * (number + 1)
        ledger.checkpoint()
    ledger.close()


def test_after_a_failed_sync_everything_is_written_again(tmp_path: Path) -> None:
    """The kernel may take what it could not write for written: the next change first puts all before it into the file."""
    failing = [False]

    def sync(descriptor: int) -> None:
        if failing[0]:
            raise OSError(5, "Input/output error")
        os.fdatasync(descriptor)

    ledger = Ledger(tmp_path / "l", sync=sync)
    ledger.grant(lease("a", "GPU-1"), limit=1)
    confirm(ledger, "a")
    failing[0] = True
    with pytest.raises(LedgerUnavailable, match="Input/output"):
        ledger.grant(lease("b", "GPU-2", owner=2), limit=1)
    failing[0] = False
    reader = sqlite3.connect(tmp_path / "l", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM leases").fetchone()
    ledger._base.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(LedgerUnavailable, match="in use"):
        ledger.grant(lease("c", "GPU-3", owner=3), limit=1)
    reader.close()
    ledger.grant(lease("c", "GPU-3", owner=3), limit=1)
    (tmp_path / "alone").write_bytes((tmp_path / "l").read_bytes())  # without the log
    ledger.close()
    alone = Ledger(tmp_path / "alone")
    # Whether `b` was held is unknown to who asked, so it is held until evidence frees it.
    assert [(item.id, item.state) for item in alone.live()] == [("a", "bound"), ("b", "pending")]
    alone.close()


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
                ledger.change(LeaseId("a"), LeaseState.RELEASED, who="x", why="x", now=NOW)
        except LedgerUnavailable:
            failed = True
        ledger._base = real
        done = (lease("a", "GPU-1", "GPU-2"),) if act == "grant" else ()
        assert ledger.live() == (before if failed else done)
        assert not real.in_transaction
        ledger.close()


def over(ledger: Ledger, name: str, device: str, *, seconds: float, owner: int = 1000) -> None:
    """A lease that ended so long after the clock's beginning."""
    clock = Clock()
    ledger.grant(lease(name, device, owner=owner), limit=99)
    clock.seconds += seconds
    ledger.change(LeaseId(name), LeaseState.RELEASED, who="x", why="removed", now=clock())


def test_old_leases_are_put_away_and_still_found(tmp_path: Path) -> None:
    """Some at a time, oldest first, with their events; live and recent ones stay, and nothing is granted differently."""
    ledger = Ledger(tmp_path / "l")
    for number, days in enumerate((3, 1, 2, 9)):
        over(ledger, f"l{number}", "GPU-1", seconds=86400 * days)
    ledger.grant(lease("live", "GPU-1"), limit=1)
    before = {name: ledger.find(LeaseId(name)) for name in ("l0", "l1", "l2", "l3")}
    assert ledger.archive("2026-01-05T00:00:00Z", most=2) == 2
    assert ledger.archive("2026-01-05T00:00:00Z", most=2) == 1
    assert ledger.archive("2026-01-05T00:00:00Z", most=2) == 0
    assert {name: ledger.find(LeaseId(name)) for name in before} == before
    assert [what for _, what, _ in ledger.events(LeaseId("l1"))] == ["granted", "released"]
    assert [item.id for item in ledger.live()] == ["live"]
    base = sqlite3.connect(tmp_path / "l")
    assert base.execute("SELECT count(*) FROM leases").fetchone() == (2,)
    assert base.execute("SELECT count(*) FROM lease_devices").fetchone() == (2,)
    base.close()
    with pytest.raises(Conflict, match="too long ago"):
        ledger.change(LeaseId("l0"), LeaseState.ACTIVE, who="x", why="seen", now=NOW)
    ledger.close()


def test_the_log_is_carried_over_when_told(tmp_path: Path) -> None:
    """Then the file alone has all of it."""
    ledger = Ledger(tmp_path / "l")
    ledger.grant(lease("a", "GPU-1"), limit=1)
    ledger.checkpoint()
    shutil.copy(tmp_path / "l", tmp_path / "copy")
    ledger.close()
    copy = Ledger(tmp_path / "copy")
    assert [item.id for item in copy.live()] == ["a"]
    copy.close()


def test_a_short_log_goes_on_and_is_on_disk(tmp_path: Path) -> None:
    """The file stays as it is until enough has changed; what was confirmed survives a power loss from then on all the same."""
    disk = Disk(tmp_path / "l")
    ledger = Ledger(tmp_path / "l", sync=disk.sync)
    ledger.checkpoint()
    ledger.grant(lease("a", "GPU-1"), limit=1)
    confirm(ledger, "a")
    before = (tmp_path / "l").read_bytes()
    ledger.checkpoint(least_changes=4)
    assert (tmp_path / "l").read_bytes() == before
    assert after_power_loss(disk, tmp_path / "boot") == {"a": "bound"}
    ledger.checkpoint(least_changes=3)
    assert (tmp_path / "l").read_bytes() != before
    ledger.grant(lease("b", "GPU-2"), limit=2)
    before = (tmp_path / "l").read_bytes()
    ledger.checkpoint(least_changes=3)
    assert (tmp_path / "l").read_bytes() == before
    ledger.close()


def test_past_usage_is_kept(tmp_path: Path) -> None:
    """What released leases have used is there after the ledger was opened again; what lives is not in it."""
    ledger = Ledger(tmp_path / "l")
    over(ledger, "a", "GPU-1", seconds=3600)
    over(ledger, "b", "GPU-1", seconds=3600, owner=2)
    ledger.grant(lease("live", "GPU-2", owner=3), limit=1)
    ledger.close()
    ledger = Ledger(tmp_path / "l")
    live, past = ledger.books()
    assert [item.id for item in live] == ["live"]
    assert past.keys() == {1000, 2}
    assert 3500 < past[Uid(2)].amount < 3600
    ledger.close()


def test_a_lease_that_comes_back_counts_from_then(tmp_path: Path) -> None:
    """The time between its release and its return was nobody's."""
    clock = Clock()
    ledger = Ledger(tmp_path / "l")
    over(ledger, "a", "GPU-1", seconds=100)
    clock.seconds += 5000
    back = ledger.change(LeaseId("a"), LeaseState.ACTIVE, who="x", why="seen", now=clock())
    assert back is not None
    assert (back.since, back.created) == (clock(), NOW)
    ledger.close()
    ledger = Ledger(tmp_path / "l")
    assert ledger.live() == (back,)
    ledger.close()


def test_each_change_says_who_and_why(tmp_path: Path) -> None:
    """With the state before it and both clocks."""
    ledger = Ledger(tmp_path / "l")
    ledger.grant(lease("a", "GPU-1"), limit=1)
    ledger.change(LeaseId("a"), LeaseState.BOUND, who="uid 0", why="confirmed", now=NOW)
    ledger.close()
    base = sqlite3.connect(tmp_path / "l")
    found = base.execute("SELECT who, before, what, why, utc, boottime_ms FROM events").fetchall()
    base.close()
    assert found == [
        ("one", None, "granted", "request rrrrrrrrrrrr of user1000", NOW.utc, NOW.boottime_ms),
        ("uid 0", "pending", "bound", "confirmed", NOW.utc, NOW.boottime_ms),
    ]
