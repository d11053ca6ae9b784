"""The table of NVML's error codes: each code of gpu.md 1.3 has its action, and no code leads to a free device."""

from __future__ import annotations

import pynvml
import pytest

from allocator import nvml_codes
from allocator.model import DeviceState, Problem
from allocator.nvml_codes import Action


@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("UNINITIALIZED", Action.RESTART),
        ("NOT_SUPPORTED", Action.UNKNOWN_VALUE),
        ("NO_PERMISSION", Action.CONFIGURE),
        ("NOT_FOUND", Action.GAP),
        ("INSUFFICIENT_SIZE", Action.RETRY),
        ("DRIVER_NOT_LOADED", Action.NO_GPUS),
        ("LIBRARY_NOT_FOUND", Action.NO_GPUS),
        ("TIMEOUT", Action.WAIT),
        ("FUNCTION_NOT_FOUND", Action.UNKNOWN_VALUE),
        ("GPU_IS_LOST", Action.LOST),
        ("RESET_REQUIRED", Action.DRAIN),
        ("LIB_RM_VERSION_MISMATCH", Action.FREEZE),
        ("IN_USE", Action.IN_USE),
        ("INSUFFICIENT_RESOURCES", Action.CLASH),
        ("ARGUMENT_VERSION_MISMATCH", Action.OLDER),
        ("GPU_NOT_FOUND", Action.GAP),
        ("UNKNOWN", Action.COUNT),
    ],
)
def test_each_code_has_its_action(name: str, action: Action) -> None:
    """By the number that NVML's header gives it."""
    assert nvml_codes.action(getattr(pynvml, f"NVML_ERROR_{name}")) is action


def test_a_code_of_a_newer_driver_is_counted() -> None:
    """Rather than taken for harmless."""
    assert nvml_codes.action(12345) is Action.COUNT


def test_no_error_leaves_a_gpu_usable() -> None:
    """Whatever kept its processes from being read, it is not told as ok."""
    assert all(nvml_codes.state(code) is not DeviceState.OK for code in range(1, 1000))


def test_an_outage_says_what_to_do() -> None:
    """In one sentence for the known kinds, in NVML's own words with the code for others."""
    assert nvml_codes.problem(12) is Problem.NO_LIBRARY
    assert "install the NVIDIA driver" in nvml_codes.message(12, "x")
    assert nvml_codes.message(27, "No data") == "NVML: No data (code 27)"
