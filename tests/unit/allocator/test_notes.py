"""Notes for holders, over a real ledger: once each, over restarts, until the lease is over."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator.device_records import DeviceRecords
from allocator.ledger import Ledger
from allocator.model import LeaseState
from allocator.notes import Notes
from tests.fakes.fake_nvml import gpu, snapshot
from tests.fakes.leasing import Clock, lease

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINE, OTHERS = lease("mine", gpu(0).uuid), lease("others", gpu(1).uuid)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = Ledger(tmp_path / "ledger")
    yield one
    one.close()


def test_a_note_is_told_once_and_kept(ledger: Ledger) -> None:
    """The same words again are no news, also after a restart; other words are."""
    clock = Clock()
    with structlog.testing.capture_logs() as lines:
        for text in ("fan", "fan", "fan and rows"):
            Notes(DeviceRecords(ledger)).tell(MINE, text, clock())
    assert [line["note"] for line in lines] == ["fan", "fan and rows"]
    assert Notes(DeviceRecords(ledger)).of(MINE.id) == "fan and rows"


def test_notes_of_leases_that_are_over_are_forgotten(ledger: Ledger) -> None:
    """The others stay."""
    notes = Notes(DeviceRecords(ledger))
    for one in (MINE, OTHERS):
        notes.tell(one, "fan", Clock()())
    notes.keep([OTHERS])
    for read in (notes, Notes(DeviceRecords(ledger))):
        assert (read.of(MINE.id), read.of(OTHERS.id)) == (None, "fan")


def test_only_what_is_hidden_for_long_is_told(ledger: Ledger) -> None:
    """A device that is missing while a GPU is silent may be there; one that answers in between begins anew."""
    clock = Clock()
    notes = Notes(DeviceRecords(ledger))
    whole = snapshot(gpu(0), gpu(1))
    some = replace(snapshot(gpu(1)), complete=False)
    for seen, seconds, is_told in (
        (some, 0, False),
        (some, 29, False),
        (whole, 1, False),
        (some, 1, False),
        (some, 29, False),
        (some, 1, True),
    ):
        clock.seconds += seconds
        notes.tell_hidden([MINE, OTHERS], seen, clock())
        assert (notes.of(MINE.id) is not None) is is_told
    assert notes.of(OTHERS.id) is None
    notes.tell_hidden([MINE, OTHERS], whole, clock())
    assert "answers for your devices again" in (notes.of(MINE.id) or "")


def test_silence_is_told_to_all_until_there_is_an_answer(ledger: Ledger) -> None:
    """And who was told something else since then is not told that it is over."""
    notes = Notes(DeviceRecords(ledger))
    notes.tell_silence([MINE, OTHERS], Clock()())
    assert "has not answered" in (notes.of(MINE.id) or "")
    notes.tell(OTHERS, "fan", Clock()())
    notes.tell_hidden([MINE, OTHERS], snapshot(gpu(0), gpu(1)), Clock()())
    assert "again" in (notes.of(MINE.id) or "")
    assert notes.of(OTHERS.id) == "fan"


def test_who_has_lost_a_device_is_not_told_that_it_is_theirs(ledger: Ledger) -> None:
    """What became of it stays the last word while the driver is silent."""
    lost = replace(MINE, state=LeaseState.LOST)
    notes = Notes(DeviceRecords(ledger))
    notes.tell(lost, "GPU 0 is gone", Clock()())
    notes.tell_silence([lost], Clock()())
    assert notes.of(lost.id) == "GPU 0 is gone"
