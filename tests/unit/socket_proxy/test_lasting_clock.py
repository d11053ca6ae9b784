"""Ends that outlive reboots: nothing is over early within a boot, and nothing lasts for ever, whatever the time of day says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from socket_proxy.lasting_clock import MARK_MS, LastingClock
from socket_proxy.records import Records

if TYPE_CHECKING:
    from pathlib import Path

HOUR = 3_600_000


@dataclass
class Machine:
    """What the host's clocks say, in ms."""

    records: Records
    boot: str = "first"
    up: int = 5_000
    utc: int = 1_800_000_000_000

    def clock(self) -> LastingClock:
        return LastingClock(
            self.records, boottime_ms=lambda: self.up, boot_id=lambda: self.boot, utc_ms=lambda: self.utc
        )

    def run(self, ms: int) -> None:
        self.up += ms
        self.utc += ms

    def reboot(self, *, off: int, utc_jump: int = 0) -> None:
        self.boot += "'"
        self.up = 1_000
        self.utc += off + utc_jump


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(Records(tmp_path / "records.sqlite"))


@pytest.mark.parametrize("jump", [-(10**12), -HOUR, HOUR, 10**12])
def test_the_time_of_day_moves_nothing_within_a_boot(machine: Machine, jump: int) -> None:
    """Set back or ahead by any amount; a restart of ds01 in between changes nothing."""
    clock = machine.clock()
    clock.mark()
    machine.run(HOUR)
    machine.utc += jump
    assert clock.now_ms() == HOUR
    assert machine.clock().now_ms() == HOUR


def test_the_time_off_counts(machine: Machine) -> None:
    """What was shared for eight hours is over after a night without power."""
    machine.clock().mark()
    machine.run(1_000)
    machine.reboot(off=8 * HOUR)
    assert machine.clock().now_ms() == 8 * HOUR + 1_000


def test_a_clock_that_was_set_back_while_off_still_goes_on(machine: Machine) -> None:
    """The new boot's age counts at least, so that no end is put off for ever."""
    machine.clock().mark()
    machine.reboot(off=HOUR, utc_jump=-(10**11))
    machine.up = 60_000
    clock = machine.clock()
    assert clock.now_ms() == 60_000
    machine.run(HOUR)
    assert clock.now_ms() == HOUR + 60_000


def test_a_mark_is_renewed_when_it_is_old(machine: Machine) -> None:
    """Once a minute, and not each time."""
    clock = machine.clock()
    clock.mark_if_old()
    before = machine.records.clock()
    assert before is not None
    machine.run(MARK_MS - 1)
    clock.mark_if_old()
    assert machine.records.clock() == before
    machine.run(1)
    clock.mark_if_old()
    assert machine.records.clock() != before


def test_a_full_disk_does_not_keep_the_proxy_from_starting(machine: Machine) -> None:
    """Nothing is written before there is something to keep."""
    machine.records.close()
    machine.records.clock = lambda: None  # type: ignore[method-assign]
    assert machine.clock().now_ms() == 0


STEPS = st.lists(
    st.tuples(
        st.integers(0, 10 * HOUR),
        st.integers(-(10**12), 10**12),
        st.sampled_from(["run", "restart", "reboot"]),
    ),
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_it_never_goes_back_and_counts_all_running_time(steps: list[tuple[int, int, str]]) -> None:
    """Over any run of restarts, reboots and clock changes: at least the time the machine ran since the last mark."""
    machine = Machine(Records.__new__(Records))
    kept: list[tuple[int, str, int, int]] = []
    machine.records.clock = lambda: kept[-1] if kept else None  # type: ignore[method-assign]
    machine.records.mark_clock = lambda *mark: kept.append(mark)  # type: ignore[method-assign]
    clock, ran = machine.clock(), 0
    for ms, jump, what in steps:
        before = clock.now_ms()
        machine.run(ms)
        ran += ms
        machine.utc += jump
        clock.mark()
        if what == "reboot":
            machine.reboot(off=0)
        if what != "run":
            clock = machine.clock()
        assert clock.now_ms() >= before + ms
        assert clock.now_ms() >= ran
