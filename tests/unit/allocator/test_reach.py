"""What a container can open beside the devices of its lease."""

from __future__ import annotations

from dataclasses import replace

from allocator.reach import left_with
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import lease

PART = replace(lease("a", mig(2, 0).uuid), gpus=(gpu(2).uuid,))
WHOLE = snapshot(gpu(1), gpu(2))


def test_a_part_that_is_there_leaves_nothing() -> None:
    """Its lease holds it, and the GPU's file opens nothing alone."""
    assert left_with(PART, snapshot(*split(2, "1g.5gb"))) == frozenset()


def test_a_part_that_is_gone_leaves_the_file_of_its_gpu() -> None:
    """Whether that GPU answered at this look or not."""
    assert left_with(PART, WHOLE) == {gpu(2).uuid}
    assert left_with(PART, snapshot(gpu(1))) == {gpu(2).uuid}


def test_a_gpu_leaves_nothing_beside_itself() -> None:
    """What was leased whole is held by the lease anyway."""
    assert left_with(lease("a", gpu(7).uuid), WHOLE) == frozenset()


def test_without_a_record_it_may_be_any_gpu() -> None:
    """One unknown part among known ones is enough."""
    two = replace(lease("a", mig(2, 0).uuid, mig(2, 1).uuid), gpus=(gpu(2).uuid, None))
    assert left_with(two, WHOLE) == {gpu(1).uuid, gpu(2).uuid}
