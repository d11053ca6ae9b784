"""What the ledger keeps of devices, over restarts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.device_records import DeviceRecords, Quarantine
from allocator.health import Fitness, XidClass
from allocator.ledger import Ledger
from policy.model import DeviceUuid, LeaseId, Uid
from tests.fakes.leasing import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE, TWO = DeviceUuid("MIG-1"), DeviceUuid("MIG-2")
NOW = Clock()()
BAD = Quarantine(device=ONE, fitness=Fitness.DRAIN, by="ds01", automatic=True, why="pending rows", began=NOW)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[DeviceRecords]:
    ledger = Ledger(tmp_path / "l")
    yield DeviceRecords(ledger)
    ledger.close()


def test_a_uuid_that_comes_back_is_a_new_generation(tmp_path: Path) -> None:
    """Generations grow when a device was gone in between, and only then; a restart does not count."""
    ledger = Ledger(tmp_path / "l")
    assert DeviceRecords(ledger).observe({ONE: "", TWO: ""}) == {ONE: 1, TWO: 1}
    ledger.close()
    ledger = Ledger(tmp_path / "l")
    assert DeviceRecords(ledger).observe({ONE: ""}) == {ONE: 1}
    assert DeviceRecords(ledger).observe({ONE: "", TWO: ""}) == {ONE: 1, TWO: 2}
    ledger.close()


def test_another_profile_behind_the_same_uuid_is_a_new_generation(records: DeviceRecords) -> None:
    """MIG UUIDs follow the place: re-created between two looks with another size, it is another device."""
    assert records.observe({ONE: "9@0+4"}) == {ONE: 1}
    assert records.observe({ONE: ""}) == {ONE: 1}  # not known is no change
    assert records.observe({ONE: "9@0+4"}) == {ONE: 1}
    assert records.observe({ONE: "5@0+4"}) == {ONE: 2}


def test_what_a_silent_gpu_hides_has_not_gone(records: DeviceRecords) -> None:
    """A look that not every GPU answered takes nothing away."""
    records.observe({ONE: "", TWO: ""})
    records.observe({ONE: ""}, complete=False)
    assert records.observe({ONE: "", TWO: ""}) == {ONE: 1, TWO: 1}


def test_what_a_reboot_took_comes_back_as_the_same(records: DeviceRecords) -> None:
    """While it is awaited; with another profile at its place it is another all the same."""
    assert records.observe({ONE: "19@0+1"}) == {ONE: 1}
    records.observe({}, awaited=[ONE])
    assert records.observe({ONE: "19@0+1"}) == {ONE: 1}
    records.observe({}, awaited=[ONE])
    assert records.observe({ONE: "20@0+1"}) == {ONE: 2}
    records.observe({})
    assert records.observe({ONE: "20@0+1"}) == {ONE: 3}


def test_a_quarantine_lasts_until_it_is_ended(tmp_path: Path) -> None:
    """Over restarts, with who, when and why; ended, it stays in the history."""
    ledger = Ledger(tmp_path / "l")
    assert DeviceRecords(ledger).quarantine(BAD)
    ledger.close()
    ledger = Ledger(tmp_path / "l")
    assert DeviceRecords(ledger).quarantines() == {ONE: BAD}
    assert DeviceRecords(ledger).released_here(ONE, NOW.boot_id) is None
    assert DeviceRecords(ledger).release(ONE, by="root", why="reset", now=NOW)
    assert not DeviceRecords(ledger).release(ONE, by="root", why="reset", now=NOW)
    assert DeviceRecords(ledger).quarantines() == {}
    assert DeviceRecords(ledger).history(ONE) == (replace(BAD, ended=True),)
    assert DeviceRecords(ledger).released_here(ONE, NOW.boot_id) == "pending rows"
    assert DeviceRecords(ledger).released_here(ONE, "the next boot") is None
    ledger.close()


def test_the_stricter_quarantine_counts(records: DeviceRecords) -> None:
    """A worse reason takes the place of a milder one, a milder one changes nothing."""
    records.quarantine(BAD)
    worse = replace(BAD, fitness=Fitness.QUARANTINE, why="XID 48")
    assert records.quarantine(worse)
    assert not records.quarantine(BAD)
    assert not records.quarantine(worse)
    assert records.quarantines() == {ONE: worse}
    assert [one.ended for one in records.history(ONE)] == [True, False]


def test_errors_of_programs_are_counted_for_a_while(records: DeviceRecords) -> None:
    """By device, kind and boot; each with whose it was."""
    clock = Clock()
    records.note_error(ONE, 31, XidClass.USER_JOB, owner=Uid(1), now=clock())
    clock.seconds += 500
    records.note_error(ONE, 13, XidClass.USER_JOB, owner=None, now=clock())
    records.note_error(ONE, 79, XidClass.DEVICE, owner=Uid(3), now=clock())
    records.note_error(TWO, 31, XidClass.USER_JOB, owner=Uid(4), now=clock())
    assert records.fault_owners(ONE, seconds=600, now=clock()) == (1, None)
    clock.seconds += 100
    assert records.fault_owners(ONE, seconds=600, now=clock()) == (None,)
    clock.boot = "boot-2"
    assert records.fault_owners(ONE, seconds=600, now=clock()) == ()


def test_a_storm_of_errors_does_not_fill_the_ledger(
    records: DeviceRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the latest of each device are kept."""
    monkeypatch.setattr("allocator.device_records._MOST_ERRORS", 20)
    for _ in range(50):
        records.note_error(ONE, 31, XidClass.USER_JOB, owner=Uid(1), now=NOW)
    records.note_error(TWO, 31, XidClass.USER_JOB, owner=Uid(2), now=NOW)
    assert len(records.fault_owners(ONE, seconds=600, now=NOW)) == 20
    assert records.fault_owners(TWO, seconds=600, now=NOW) == (2,)


def test_the_last_note_to_a_holder_is_kept(records: DeviceRecords) -> None:
    """Until it is forgotten."""
    for note in ("first", "second"):
        records.tell(LeaseId("a"), note, NOW)
    assert records.notes() == {"a": "second"}
    records.forget_notes([LeaseId("a")])
    assert records.notes() == {}
