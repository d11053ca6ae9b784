"""What a change of MIG keeps out of reach, and what a reboot took: from the ledger, over crashes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Ledger
from allocator.mig_journal import Entry, MigJournal, StepKind, StepState
from allocator.mig_record import MigRecord
from allocator.mig_underway import Underway
from allocator.model import DeviceState, Moment
from tests.fakes.fake_nvml import gpu, mig, snapshot
from tests.unit.allocator.test_mig_record import BOTH, HALF, ON, ONE, look, placed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = Moment(utc="2026-01-01T00:00:00Z", boottime_ms=5, boot_id="first")
GPU = gpu(0).uuid
CREATE = Entry(kind=StepKind.CREATE, gpu=GPU, profile=ONE.profile, start=ONE.start, who="root")
DESTROY = Entry(
    kind=StepKind.DESTROY,
    gpu=GPU,
    profile=HALF.profile,
    instance=1,
    start=HALF.start,
    devices=HALF.devices,
    who="root",
)
WHOLE = gpu(0, state=DeviceState.UNUSABLE, mig_mode=ON)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = Ledger(tmp_path / "ledger")
    yield one
    one.close()


def test_what_is_withheld_is_nobodys_until_it_is_given_back(ledger: Ledger) -> None:
    """A device, the parts of a GPU, and what stands at a place, whatever it is called."""
    underway = Underway(ledger, "first")
    half, one = placed(0, HALF), placed(1, ONE)
    underway.withhold([half.uuid])
    assert (underway.obstacle(half), underway.obstacle(one)) == ("its GPU is being split anew", None)
    underway.withhold([], (GPU, ONE.start))
    assert underway.obstacle(one) == "it is new, and waits for the CDI spec"
    assert underway.obstacle(WHOLE) is None
    underway.give_back([half.uuid], [(GPU, ONE.start)])
    assert (underway.obstacle(half), underway.obstacle(one)) == (None, None)
    underway.withhold([GPU])
    assert underway.obstacle(one) == "its GPU is being split anew"


def test_a_device_at_an_unknown_place_may_be_the_new_one(ledger: Ledger) -> None:
    """On a GPU on which something is made, and on no other."""
    underway = Underway(ledger, "first")
    underway.withhold([], (GPU, ONE.start))
    assert underway.obstacle(replace(placed(0, HALF), placement=None)) is not None
    assert underway.obstacle(mig(1, 0)) is None


@pytest.mark.parametrize("end", [None, StepState.DONE])
def test_steps_without_an_end_or_a_spec_are_known_after_a_crash(
    ledger: Ledger, end: StepState | None
) -> None:
    """Both keep their devices and places; one that was not done, or that the spec shows, does not."""
    journal = MigJournal(ledger)
    for entry in (CREATE, DESTROY):
        number = journal.intend(entry, NOW)
        if end is not None:
            journal.end(number, end)
    underway = Underway(ledger, "first")
    assert underway.obstacle(placed(1, ONE)) is not None
    assert underway.obstacle(placed(0, HALF)) is not None
    for entry in journal.unfinished():
        journal.end(entry.number, StepState.ABANDONED)
    journal.wrote_spec()
    underway = Underway(ledger, "first")
    assert underway.obstacle(placed(1, ONE)) is None
    assert underway.obstacle(placed(0, HALF)) is None


def test_what_this_boot_destroyed_is_not_awaited(ledger: Ledger) -> None:
    """Somebody meant it, whether the allocator ran or not."""
    underway = Underway(ledger, "first")
    underway.learn(look())
    again = Underway(ledger, "first")
    assert (again.before_reboot(), again.awaited, again.obstacle(WHOLE)) == ((), frozenset(), None)


def test_what_a_reboot_took_is_awaited_until_it_is_settled(ledger: Ledger) -> None:
    """A look that lacks it is not written down, so that a crash changes nothing; all of the GPU is out of reach."""
    Underway(ledger, "first").learn(look())
    for _ in range(2):
        underway = Underway(ledger, "second")
        assert underway.before_reboot() == (BOTH,)
        assert underway.awaited == {*HALF.devices, *ONE.devices}
        underway.learn(snapshot(WHOLE, placed(1, ONE)))
        assert underway.awaited == {*HALF.devices}
        for device in (WHOLE, placed(1, ONE)):
            assert underway.obstacle(device) == "its GPU is being split as it was before the reboot"
        assert underway.obstacle(gpu(1)) is None
    underway.settle(GPU, snapshot(WHOLE, placed(1, ONE)))
    assert (underway.before_reboot(), underway.awaited) == ((), frozenset())
    assert underway.obstacle(placed(1, ONE)) is None
    assert Underway(ledger, "second").before_reboot() == ()
    assert MigRecord(ledger).of_other_boots("third") == {GPU: replace(BOTH, instances=(ONE,))}


def test_what_was_seen_and_went_again_is_not_awaited(ledger: Ledger) -> None:
    """Nor made again, after a crash neither: it went within this boot, while the other of its GPU waits still."""
    Underway(ledger, "first").learn(look())
    underway = Underway(ledger, "second")
    underway.learn(snapshot(WHOLE, placed(1, ONE)))
    underway.learn(snapshot(replace(WHOLE, error=999)))
    assert underway.before_reboot() == (BOTH,)
    underway.learn(snapshot(WHOLE))
    for one in (underway, Underway(ledger, "second")):
        assert one.before_reboot() == (replace(BOTH, instances=(HALF,)),)
        assert one.awaited == {*HALF.devices}
        assert one.obstacle(WHOLE) is not None


def test_what_somebody_had_begun_to_destroy_is_not_made_again(ledger: Ledger) -> None:
    """Whether the step had come to anything before the power went or not."""
    Underway(ledger, "first").learn(look())
    MigJournal(ledger).intend(DESTROY, NOW)
    underway = Underway(ledger, "second")
    assert underway.before_reboot() == (replace(BOTH, instances=(ONE,)),)
    assert underway.awaited == {*ONE.devices}
