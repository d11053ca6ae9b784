"""Describing a simulated machine: which MIG devices fit on a GPU, and where they stand."""

from __future__ import annotations

import pytest

from lab.simulate import SpecInvalid, machine

PLACES = {
    "3g.20gb+2g.10gb+1g.5gb+1g.5gb": [4, 0, 2, 3],  # the first start of the 3g leaves no room
    "3g.20gb+3g.20gb": [0, 4],
    "2g.10gb+3g.20gb": [0, 4],
    "1g.5gb+4g.20gb": [4, 0],
    "7x1g.5gb": [0, 1, 2, 3, 4, 5, 6],
    "1g.5gb+me+2x3g.20gb": None,  # all eight memory slices are gone
    "4g.20gb+2x2g.10gb": None,  # eight compute slices
    "2x7g.40gb": None,
}


@pytest.mark.parametrize(("mig", "starts"), PLACES.items(), ids=PLACES)
def test_what_fits_on_a_gpu_is_placed(mig: str, starts: list[int] | None) -> None:
    """In the order given, each at the first start that leaves room for all; what fits nowhere is said to."""
    if starts is None:
        with pytest.raises(SpecInvalid, match="does not fit"):
            machine(f"a100-40:{mig}")
        return
    (gpu,) = machine(f"a100-40:{mig}")["gpus"]
    assert [one["start"] for one in gpu["gis"]] == starts
    assert [one["cis"][0]["index"] for one in gpu["gis"]] == list(range(len(starts)))
    slots = [slot for one in gpu["gis"] for slot in range(one["start"], one["start"] + one["size"])]
    assert len(slots) == len(set(slots)) <= 8
    assert len({one["id"] for one in gpu["gis"]}) == len(starts)
