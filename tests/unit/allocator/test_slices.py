"""How much of a GPU a device is, and where it lies."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from allocator.readings import Span
from allocator.slices import compute_slices, equivalents, halves, memory_span
from tests.fakes.fake_nvml import gpu, mig


@pytest.mark.parametrize(
    ("profile", "slices"),
    [("1g.5gb", 1), ("7g.80gb", 7), ("1c.3g.20gb", 1), ("1g.5gb+me", 1), ("unknown", None), ("8g.1gb", None)],
)
def test_a_profile_says_its_compute_slices(profile: str, slices: int | None) -> None:
    """Those of the compute instance, where it is smaller than its GPU instance."""
    assert compute_slices(profile) == slices


def test_equivalents_are_exact_and_unknown_is_whole() -> None:
    """Seven 1g are one GPU, and a profile that cannot be read counts as one."""
    assert sum((equivalents(mig(0, at)) for at in range(7)), Fraction(0)) == equivalents(gpu(0)) == 1
    assert equivalents(mig(0, 0, "3g.20gb")) == Fraction(3, 7)
    assert equivalents(replace(mig(0, 0), profile="unknown")) == 1


@pytest.mark.parametrize(
    ("instance", "span", "touched"),
    [
        (0, range(8), {0, 1}),
        (1, range(4), {0}),
        (2, range(4, 8), {1}),
        (4, range(2, 4), {0}),
        (14, range(7, 8), {1}),
    ],
)
def test_an_instance_id_is_a_place(instance: int, span: range, touched: set[int]) -> None:
    """GPU instance ids are nodes of a tree over eight memory slices."""
    device = mig(0, 0, gpu_instance_id=instance)
    assert memory_span(device) == span
    assert halves(device) == touched


def test_what_the_driver_says_counts_before_the_id() -> None:
    """The id is a guess for drivers that do not tell."""
    device = mig(0, 0, gpu_instance_id=9, placement=Span(start=4, size=4))
    assert memory_span(device) == range(4, 8)
    assert halves(device) == {1}


def test_an_unknown_place_is_everywhere() -> None:
    """So that no half counts as whole which may not be."""
    assert memory_span(mig(0, 0, gpu_instance_id=None)) is None
    assert halves(mig(0, 0, gpu_instance_id=99)) == {0, 1}
