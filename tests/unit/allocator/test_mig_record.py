"""How GPUs were split, as the ledger keeps it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Ledger
from allocator.mig_record import MigRecord, PastInstance, PastPartition, seen
from allocator.model import DeviceKind, DeviceState
from allocator.readings import MigMode, Span
from policy.model import DeviceUuid
from tests.fakes.fake_nvml import gpu, mig, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allocator.model import Device, Snapshot

ON = MigMode(current=True, pending=True)
HALF = PastInstance(start=0, size=4, profile="3g.20gb", number=9, devices=(mig(0, 0).uuid,))
ONE = PastInstance(start=4, size=1, profile="1g.5gb", number=19, devices=(mig(0, 1).uuid,))
BOTH = PastPartition(gpu=gpu(0).uuid, enabled=True, instances=(HALF, ONE))


def placed(place: int, like: PastInstance) -> Device:
    """A MIG device of GPU 0, whose instance is like that one."""
    span = Span(start=like.start, size=like.size)
    return mig(0, place, like.profile, profile_id=like.number, placement=span, gpu_instance_id=like.start)


def look(**changes: object) -> Snapshot:
    """A look at GPU 0 in MIG mode with both instances."""
    whole = gpu(0, **{"state": DeviceState.UNUSABLE, "mig_mode": ON} | changes)
    return snapshot(whole, placed(1, ONE), placed(0, HALF), gpu(1))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = Ledger(tmp_path / "ledger")
    yield one
    one.close()


def test_a_look_tells_places_profiles_and_devices() -> None:
    """Of GPUs that can do MIG alone, by start."""
    assert list(seen(look())) == [BOTH]
    assert list(seen(look(mig_mode=MigMode(current=True, pending=False)))) == [replace(BOTH, enabled=False)]


def test_devices_of_one_instance_stand_together() -> None:
    """However many compute instances it was divided into."""
    divided = [replace(placed(place, HALF), profile="1c.3g.20gb") for place in (1, 0)]
    (found,) = seen(snapshot(gpu(0, mig_mode=ON), *divided))
    (instance,) = found.instances
    assert (instance.devices, instance.profile) == ((mig(0, 0).uuid, mig(0, 1).uuid), "1c.3g.20gb")


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"state": DeviceState.UNRESPONSIVE, "silent_seconds": 3.0}, id="silent"),
        pytest.param({"state": DeviceState.LOST, "error": 15}, id="lost"),
        pytest.param({"error": 999}, id="error"),
    ],
)
def test_a_gpu_that_does_not_answer_is_not_told(changes: dict[str, object]) -> None:
    """Its parts are those of an earlier look, or none."""
    assert list(seen(look(**changes))) == []


def test_a_gpu_with_a_part_at_an_unknown_place_is_not_told() -> None:
    """Unknown is not nothing."""
    parts = [one for one in look().devices.values() if one.kind is DeviceKind.MIG]
    for blind in ({"placement": None}, {"profile_id": None}):
        unknown = replace(parts[0], **blind)  # type: ignore[arg-type]  # by name
        assert list(seen(snapshot(gpu(0, mig_mode=ON), unknown, parts[1]))) == []


def test_what_another_boot_saw_is_read_back(ledger: Ledger) -> None:
    """Whole, and no more once this boot has seen the GPU."""
    record = MigRecord(ledger)
    record.write([BOTH], "first")
    assert record.of_other_boots("first") == {}
    assert record.of_other_boots("second") == {BOTH.gpu: BOTH}
    record.write([replace(BOTH, instances=(ONE,))], "second")
    assert record.of_other_boots("second") == {}
    assert record.of_other_boots("third") == {BOTH.gpu: replace(BOTH, instances=(ONE,))}
    record.write([replace(BOTH, instances=())], "third")
    assert record.of_other_boots("fourth") == {}


def test_what_is_forgotten_is_not_made_again(ledger: Ledger) -> None:
    """That place alone."""
    record = MigRecord(ledger)
    record.write([BOTH], "first")
    record.forget([(BOTH.gpu, HALF.start)])
    assert record.of_other_boots("second") == {BOTH.gpu: replace(BOTH, instances=(ONE,))}


def test_what_has_not_changed_is_not_written(ledger: Ledger) -> None:
    """There is a look every few seconds."""
    record = MigRecord(ledger)
    other = PastPartition(gpu=DeviceUuid("GPU-other"), enabled=True, instances=())
    record.write([BOTH, other], "first")
    before = ledger._changes
    record.write([BOTH, other], "first")
    assert ledger._changes == before
    record.write([replace(BOTH, enabled=False), other], "first")
    assert ledger._changes == before + 1
