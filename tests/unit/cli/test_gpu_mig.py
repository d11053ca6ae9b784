"""`ds01 gpu mig`: layouts of the policy for the allocator, plans in words."""

from __future__ import annotations

from typing import Any

import pytest

from cli.gpu_mig import applied, code, layouts, planned
from cli.outcome import Exit, Failed
from policy.document_mig import MigLayout

PARTITIONS = [{"index": "0", "gpu": "GPU-aaaa1111"}, {"index": "1", "gpu": "GPU-bbbb2222"}]


def _plan(**changes: Any) -> dict[str, Any]:
    return {"gpu": "GPU-aaaa1111", "index": "0", "steps": [], "kept": [], "missing": {}} | changes


def test_layouts_name_gpus_by_uuid() -> None:
    """By index, by UUID or by its beginning; a whole GPU is null."""
    wanted = (
        MigLayout(gpus=("0",), profiles=(("1g.5gb", 7),)),
        MigLayout(gpus=("GPU-bbbb",), profiles=None),
    )
    assert layouts(wanted, PARTITIONS) == {"layouts": {"GPU-aaaa1111": {"1g.5gb": 7}, "GPU-bbbb2222": None}}


@pytest.mark.parametrize(
    ("gpus", "said"),
    [
        pytest.param(("5",), "GPU 5, but GPUs that can do MIG are 0, 1", id="absent"),
        pytest.param(("0", "GPU-aaaa1111"), "twice", id="twice"),
        pytest.param(("GPU-",), "GPU GPU-", id="ambiguous"),
    ],
)
def test_a_gpu_that_is_not_one_is_refused(gpus: tuple[str, ...], said: str) -> None:
    """Before anything is asked of the allocator."""
    with pytest.raises(Failed, match=said):
        layouts((MigLayout(gpus=gpus, profiles=None),), PARTITIONS)


def test_a_policy_without_layouts_is_refused() -> None:
    """It says where they are written."""
    with pytest.raises(Failed, match=r"gpu: \{mig"):
        layouts((), PARTITIONS)


def test_a_plan_is_told_step_by_step() -> None:
    """And what stands in the way."""
    steps = [
        {"do": "destroy", "profile": "1g.5gb", "start": 0},
        {"do": "create", "profile": "4g.20gb", "start": 0},
        {"do": "set_mode", "enabled": False},
    ]
    kept = ["instance 1 (3g.20gb) of GPU 0: container web of alice"]
    said = planned({"plans": [_plan(steps=steps, kept=kept, missing={"3g.20gb": 1})]})
    assert [line.split() for line in said.splitlines()[:3]] == [
        ["GPU", "0:", "3", "steps"],
        ["1", "destroy", "1g.5gb", "at", "0"],
        ["2", "create", "4g.20gb", "at", "0"],
    ]
    assert "MIG mode off (needs a reset of the GPU)" in said
    assert "kept: instance 1 (3g.20gb) of GPU 0: container web of alice" in said
    assert "not yet: 1 x 3g.20gb" in said
    assert "as it should be" in planned({"plans": [_plan()]})
    assert "nothing can be done now" in planned({"plans": [_plan(kept=kept)]})


@pytest.mark.parametrize(
    ("changes", "exit_code", "said"),
    [
        pytest.param({}, Exit.OK, "1 of 0 steps done", id="done"),
        pytest.param({"problem": "NVML: In use"}, Exit.REFUSED, "stopped: NVML: In use", id="stopped"),
        pytest.param({"waits_for_reset": True}, Exit.OK, "nvidia-smi --gpu-reset", id="reset"),
        pytest.param({"plan": _plan(kept=["x"])}, Exit.REFUSED, "kept: x", id="kept"),
        pytest.param({"plan": _plan(missing={"1g.5gb": 1})}, Exit.REFUSED, "steps done", id="missing"),
    ],
)
def test_an_outcome_says_what_was_done(changes: dict[str, Any], exit_code: Exit, said: str) -> None:
    """And its exit code whether the layout is there."""
    outcome = {"plan": _plan(), "done": 1, "problem": None, "waits_for_reset": False} | changes
    answer = {"outcomes": [outcome], "cdi_problem": None}
    assert said in applied(answer)
    assert code(answer) is exit_code


def test_a_cdi_spec_that_was_not_written_is_told_with_the_next_step() -> None:
    """And no success, whatever was done."""
    outcome = {"plan": _plan(), "done": 1, "problem": None, "waits_for_reset": False}
    answer = {"outcomes": [outcome], "cdi_problem": "nvidia-ctk ended with 1: spoilt"}
    said = applied(answer)
    assert "the CDI spec could not be written: nvidia-ctk ended with 1: spoilt" in said
    assert "leased to nobody" in said
    assert "allocator.cdi_command" in said
    assert code(answer) is Exit.REFUSED


def test_a_reset_needs_the_allocator_stopped() -> None:
    """Its own session has the GPU open."""
    outcome = {"plan": _plan(), "done": 1, "problem": None, "waits_for_reset": True}
    said = applied({"outcomes": [outcome], "cdi_problem": None})
    assert "systemctl stop" in said
    assert "ds01-allocator" in said
