"""The journal of MIG steps reads back as written, across a reopened ledger."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from allocator.device_records import DeviceRecords
from allocator.ledger import Ledger
from allocator.mig_journal import Entry, MigJournal, StepKind, StepState
from allocator.mig_record import MigRecord, PastInstance, PastPartition
from allocator.model import Moment
from policy.model import DeviceUuid

NOW = Moment(utc="2026-01-01T00:00:00Z", boottime_ms=5, boot_id="b")
DESTROY = Entry(
    kind=StepKind.DESTROY,
    gpu=DeviceUuid("GPU-1"),
    profile="1g.5gb",
    instance=7,
    start=0,
    devices=(DeviceUuid("MIG-1"), DeviceUuid("MIG-2")),
    who="root",
)
MODE = Entry(kind=StepKind.SET_MODE, gpu=DeviceUuid("GPU-1"), enabled=False, who="root")


def test_an_intent_survives_and_its_end_is_final(tmp_path: Path) -> None:
    """What is intended is found after a restart; what ended is not, and tells how."""
    ledger = Ledger(tmp_path / "ledger")
    first = MigJournal(ledger).intend(DESTROY, NOW)
    second = MigJournal(ledger).intend(MODE, NOW)
    ledger.close()
    ledger = Ledger(tmp_path / "ledger")
    journal = MigJournal(ledger)
    assert journal.unfinished() == (replace(DESTROY, number=first), replace(MODE, number=second))
    journal.end(first, StepState.FAILED, "in use")
    assert journal.unfinished() == (replace(MODE, number=second),)
    assert journal.last(2)[0] == replace(DESTROY, number=first, state=StepState.FAILED, why="in use")
    assert [entry.number for entry in journal.last(1)] == [second]
    ledger.close()


def test_what_was_done_waits_for_the_cdi_spec(tmp_path: Path) -> None:
    """Until that was written after it; what was not done changes nothing in it."""
    ledger = Ledger(tmp_path / "ledger")
    journal = MigJournal(ledger)
    done, failed = journal.intend(DESTROY, NOW), journal.intend(MODE, NOW)
    assert journal.unwritten() == ()
    journal.end(done, StepState.DONE)
    journal.end(failed, StepState.FAILED)
    assert [entry.number for entry in journal.unwritten()] == [done]
    begun = journal.intend(MODE, NOW)
    journal.wrote_spec()
    assert journal.unwritten() == ()
    journal.end(begun, StepState.DONE)
    assert [entry.number for entry in journal.unwritten()] == [begun]
    ledger.close()


def test_what_was_destroyed_is_not_made_again_after_a_boot(tmp_path: Path) -> None:
    """Its place alone is forgotten, with the end of the step; a step that failed forgets nothing."""
    ledger = Ledger(tmp_path / "ledger")
    record, journal = MigRecord(ledger), MigJournal(ledger)
    first, second = (
        PastInstance(start=start, size=1, profile="1g.5gb", number=19, devices=(DeviceUuid(f"MIG-{start}"),))
        for start in (0, 1)
    )
    both = PastPartition(gpu=DESTROY.gpu, enabled=True, instances=(first, second))
    record.write([both], "b")
    journal.end(journal.intend(DESTROY, NOW), StepState.FAILED)
    assert record.of_other_boots("c") == {DESTROY.gpu: both}
    journal.end(journal.intend(DESTROY, NOW), StepState.DONE)
    assert record.of_other_boots("c") == {DESTROY.gpu: replace(both, instances=(second,))}
    ledger.close()


def test_only_a_destroyed_device_counts_as_gone(tmp_path: Path) -> None:
    """A step that failed leaves the generation as it is."""
    ledger = Ledger(tmp_path / "ledger")
    journal = MigJournal(ledger)
    records, present = DeviceRecords(ledger), {DeviceUuid("MIG-1"): "", DeviceUuid("MIG-2"): ""}
    records.observe(present)
    journal.end(journal.intend(DESTROY, NOW), StepState.FAILED)
    assert set(records.observe(present).values()) == {1}
    journal.end(journal.intend(DESTROY, NOW), StepState.DONE)
    assert set(records.observe(present).values()) == {2}
    ledger.close()
