"""Accounting: what is written down equals what was held, whatever restarts, crashes and clocks do."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Ledger
from allocator.model import LeaseState, Moment
from allocator.readings import Measures
from allocator.usage import UsageRecords, energy_used, pieces
from policy.model import DeviceUuid, LeaseId, Uid
from tests.fakes.leasing import lease

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from allocator.usage import Usage

GPU = DeviceUuid("GPU-1")


class Time:
    """A clock whose time of day goes on over boots."""

    def __init__(self) -> None:
        self.utc = 1_800_000_000.0  # 2027-01-15T08:00:00Z
        self.up = 100.0
        self.boot = 1

    def pass_(self, seconds: float) -> None:
        self.utc += seconds
        self.up += seconds

    def reboot(self, down_seconds: float) -> None:
        self.utc += down_seconds
        self.up, self.boot = 0.0, self.boot + 1

    def __call__(self) -> Moment:
        utc = datetime.fromtimestamp(self.utc, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Moment(utc=utc, boottime_ms=round(self.up * 1000), boot_id=f"boot-{self.boot}")


class Machine:
    """A ledger that tests open anew, as a crash would, and ticks with what they say was measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.time = Time()
        self.ledger = Ledger(path)

    def restart(self) -> None:
        self.ledger.close()
        self.ledger = Ledger(self.path)

    def grant(self, name: str, *devices: str, owner: int = 1000) -> None:
        now = self.time()
        self.ledger.grant(lease(name, *devices, owner=owner, created=now, since=now, changed=now), limit=99)

    def change(self, name: str, state: LeaseState) -> None:
        self.ledger.change(LeaseId(name), state, who="x", why="x", now=self.time())

    def tick(self, **measured: object) -> None:
        seen: Mapping[DeviceUuid, Measures] = {GPU: Measures(**measured)} if measured else {}  # type: ignore[arg-type]  # tests pass fields by name
        UsageRecords(self.ledger).tick(seen, self.time())

    def used(self, name: str = "a") -> tuple[Usage, ...]:
        return UsageRecords(self.ledger).of_lease(LeaseId(name))

    def seconds(self, owner: int = 1000) -> float:
        return UsageRecords(self.ledger).gpu_seconds().get(Uid(owner), 0)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "l")


def test_a_lease_is_counted_to_the_second_of_its_release(machine: Machine) -> None:
    """Between ticks too: from its grant to its release, not to the next look."""
    machine.time.pass_(3)
    machine.grant("a", "GPU-1", "GPU-2")
    machine.time.pass_(7)
    machine.tick()
    machine.time.pass_(2)
    machine.change("a", LeaseState.RELEASED)
    machine.time.pass_(600)
    machine.tick()
    machine.tick()
    assert machine.seconds() == 2 * 9
    (first, second) = machine.used()
    assert (first.gpu_seconds, first.device, second.device) == (9, "GPU-1", "GPU-2")
    assert (first.begin_ms, first.end_ms, first.boot_id) == (103_000, 112_000, "boot-1")
    assert (first.begin_utc, first.end_utc) == ("2027-01-15T08:00:03Z", "2027-01-15T08:00:12Z")


def test_a_lease_shorter_than_a_look_is_counted(machine: Machine) -> None:
    """Granted and released between two ticks it still has its seconds."""
    machine.tick()
    machine.grant("a", "GPU-1")
    machine.time.pass_(1.5)
    machine.change("a", LeaseState.RELEASED)
    machine.time.pass_(3)
    machine.tick()
    assert machine.seconds() == 1.5


def test_time_counts_while_no_ds01_runs(machine: Machine) -> None:
    """After a crash the next start goes on where the last tick ended, also for what was released at once."""
    machine.grant("a", "GPU-1")
    machine.grant("b", "GPU-2", owner=2)
    machine.time.pass_(10)
    machine.tick()
    machine.restart()
    machine.time.pass_(1000)
    machine.change("b", LeaseState.RELEASED)
    machine.tick()
    machine.restart()
    machine.tick()
    assert (machine.seconds(), machine.seconds(2)) == (1010, 1010)


def test_a_server_that_is_off_counts_nothing(machine: Machine) -> None:
    """Over a reboot a lease that lasts is counted from the new boot's start."""
    machine.grant("a", "GPU-1")
    machine.time.pass_(50)
    machine.tick()
    machine.time.reboot(86_400)
    machine.restart()
    machine.time.pass_(20)
    machine.tick()
    assert machine.seconds() == 70
    assert [one.boot_id for one in machine.used()] == ["boot-1", "boot-2"]


def test_a_lease_that_comes_back_is_counted_again(machine: Machine) -> None:
    """The time for which it was released is not."""
    machine.grant("a", "GPU-1")
    machine.time.pass_(10)
    machine.change("a", LeaseState.RELEASED)
    machine.tick()
    machine.time.pass_(100)
    machine.change("a", LeaseState.ACTIVE)
    machine.time.pass_(10)
    machine.tick()
    assert machine.seconds() == 20


def test_each_hour_has_one_row(machine: Machine) -> None:
    """However many ticks there were; an interval over an hour's end is cut there."""
    machine.grant("a", "GPU-1")
    for _ in range(3600):
        machine.time.pass_(2)
        machine.tick(utilisation_percent=50.0)
    machine.time.pass_(3 * 3600)
    machine.tick()
    used = machine.used()
    assert [one.hour[-2:] for one in used] == ["08", "09", "10", "11", "12"]
    assert [one.gpu_seconds for one in used] == [3600] * 5
    assert UsageRecords(machine.ledger).gpu_seconds("2027-01-15T10") == {Uid(1000): 3 * 3600}


def test_unknown_is_none(machine: Machine) -> None:
    """What no look told is NULL in the ledger, as all of a MIG device but its memory."""
    machine.grant("a", "GPU-1")
    machine.time.pass_(5)
    machine.tick()
    (row,) = machine.used()
    assert (row.utilisation_percent, row.memory_max_mib, row.energy_mj) == (None, None, None)
    machine.time.pass_(5)
    machine.tick(memory_used_mib=10)
    machine.time.pass_(5)
    machine.tick(memory_used_mib=7)
    (row,) = machine.used()
    assert (row.utilisation_percent, row.memory_max_mib, row.energy_mj) == (None, 10, None)


def test_utilisation_is_the_mean_of_the_time_it_was_known(machine: Machine) -> None:
    """A look after a long gap speaks for its last seconds alone."""
    machine.grant("a", "GPU-1")
    for percent in (100.0, 0.0, 50.0):
        machine.time.pass_(5)
        machine.tick(utilisation_percent=percent)
    machine.time.pass_(5)
    machine.tick()
    assert machine.used()[0].utilisation_percent == 50
    machine.time.pass_(1000)
    machine.tick(utilisation_percent=100.0)
    assert machine.used()[0].utilisation_percent == pytest.approx((15 * 50 + 15 * 100) / 30)


def test_energy_is_the_difference_of_a_counter(machine: Machine) -> None:
    """From the first look of a lease on, over restarts, gaps, and a driver that was loaded again."""
    machine.grant("a", "GPU-1")
    steps: list[int | None] = [5000, 6000, None, 9000, 400, 1000]
    for counter in steps:
        machine.time.pass_(5)
        machine.tick(**({"memory_used_mib": 1} if counter is None else {"energy_mj": counter}))
        machine.restart()
    assert machine.used()[0].energy_mj == 1000 + 3000 + 400 + 600


@pytest.mark.parametrize(
    ("before", "now", "used"), [(None, 5, None), (5, None, None), (5, 5, 0), (5, 9, 4), (9, 5, 5), (0, 0, 0)]
)
def test_a_counter_that_decreases_began_anew(before: int | None, now: int | None, used: int | None) -> None:
    """Unknown on either side is unknown."""
    assert energy_used(before, now) == used


def test_pieces_make_the_whole() -> None:
    """Cut at the hours, without a gap, an overlap or an empty piece, whatever the clock says."""
    end = Moment(utc="2026-03-01T00:00:00Z", boottime_ms=10_000_000, boot_id="b")
    cut = tuple(pieces(2_500_001, end))
    assert [piece.hour for piece in cut] == ["2026-02-28T21", "2026-02-28T22", "2026-02-28T23"]
    assert (cut[0].begin_ms, cut[-1].end_ms) == (2_500_001, 10_000_000)
    assert all(one.end_ms == other.begin_ms for one, other in itertools.pairwise(cut))
    assert all(piece.begin_ms < piece.end_ms for piece in cut)
    assert tuple(pieces(10_000_000, end)) == tuple(pieces(10_000_001, end)) == ()


@pytest.mark.parametrize("seed", range(5))
def test_gpu_seconds_equal_the_time_leases_were_held(machine: Machine, seed: int) -> None:
    """Over days of leases, ticks, crashes and reboots they differ by less than 1 % for each user."""
    rng = random.Random(seed)
    held: dict[str, tuple[int, int]] = {}
    true = dict.fromkeys((1, 2, 3), 0.0)
    number = 0

    def spend(seconds: float) -> None:
        machine.time.pass_(seconds)
        for owner, devices in held.values():
            true[owner] += seconds * devices

    for _ in range(600):
        match rng.choices(("tick", "grant", "release", "crash", "reboot"), (60, 12, 11, 4, 0.5))[0]:
            case "tick":
                spend(5)
                machine.tick(utilisation_percent=rng.uniform(0, 100))
            case "grant" if len(held) < 8:
                number += 1
                owner, devices = rng.choice((1, 2, 3)), rng.choice((1, 2))
                name = f"l{number}"
                machine.grant(name, *(f"GPU-{number}-{place}" for place in range(devices)), owner=owner)
                held[name] = (owner, devices)
            case "release" if held:
                spend(rng.uniform(0, 5))
                machine.change(rng.choice(list(held)), LeaseState.RELEASED)
                held = {name: one for name, one in held.items() if machine.ledger.find(LeaseId(name)).live}  # type: ignore[union-attr]  # it was granted
            case "crash":
                spend(rng.uniform(0, 4))
                machine.restart()
                spend(rng.uniform(0, 3600))
            case "reboot":
                spend(rng.uniform(0, 4))
                machine.time.reboot(rng.uniform(60, 7200))
                machine.restart()
                spend(30)
            case _:
                spend(5)
    machine.tick()
    for owner, seconds in true.items():
        assert machine.seconds(owner) == pytest.approx(seconds, rel=0.01)
