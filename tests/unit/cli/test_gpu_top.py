"""`ds01 gpu top`: processes in words."""

from __future__ import annotations

from typing import Any

import pytest

from cli.gpu_top import named, top

GPU = "GPU-1"
UNKNOWN_UID = 4_000_000


def _process(**changes: Any) -> dict[str, Any]:
    return {
        "pid": 7,
        "device": GPU,
        "gpu_instance_id": None,
        "compute_instance_id": None,
        "memory_mib": 300,
        "name": "python3",
        "leased": True,
        "ended_at": None,
        "kind": "container",
        "owner_uid": 0,
        "proof": "container",
        "container_id": "c" * 64,
        "container": "web",
        "step": None,
        "unit": None,
        "why": None,
    } | changes


def _answer(*processes: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "at": "2026-01-01T00:00:00Z",
        "processes": list(processes),
        "elsewhere": [],
        "unattributed_memory": [],
        "unread": 0,
    } | changes


@pytest.mark.parametrize(
    ("process", "cells"),
    [
        pytest.param(_process(), ["0", "7", "root", "container web", "300 MiB", "python3"], id="container"),
        pytest.param(_process(container=None), ["container cccccccccccc"], id="without-a-name"),
        pytest.param(
            _process(kind="other_container", owner_uid=None),
            ["unknown container cccccccccccc", "unknown"],
            id="foreign",
        ),
        pytest.param(
            _process(kind="user", container_id=None, unit="session-1.scope"),
            ["host, session-1.scope"],
            id="host",
        ),
        pytest.param(
            _process(kind="service", owner_uid=None, container_id=None), ["the system", "host"], id="service"
        ),
        pytest.param(_process(kind="build_step", container_id=None), ["build"], id="build"),
        pytest.param(
            _process(kind="unknown", owner_uid=None, why="it is hidden"),
            ["unknown", "it is hidden"],
            id="unknown",
        ),
        pytest.param(
            _process(owner_uid=None, probable_owner_uid=0, evidence="name web._.0"),
            ["unknown", "container web", "probably root's, by name web._.0"],
            id="not-made-by-ds01",
        ),
        pytest.param(_process(owner_uid=UNKNOWN_UID), [f"uid {UNKNOWN_UID}"], id="no-account"),
        pytest.param(_process(memory_mib=None), ["N/A"], id="memory-not-said"),
        pytest.param(_process(ended_at="2026-01-01T00:00:05Z"), ["ended 2026-01-01T00:00:05Z"], id="ended"),
        pytest.param(_process(leased=False), ["python3", "NOT LEASED"], id="off-its-lease"),
        pytest.param(
            _process(leased=False, ended_at="2026-01-01T00:00:05Z"),
            ["NOT LEASED; ended 2026-01-01T00:00:05Z"],
            id="off-its-lease-and-ended",
        ),
        pytest.param(_process(name="a\x1b[31m"), ["a\\x1b[31m"], id="a-name-that-steers"),
    ],
)
def test_a_process_says_whose_it_is_and_where(process: dict[str, Any], cells: list[str]) -> None:
    """In a container, on the host, in a build, or unknown with the reason."""
    line = top(_answer(process), {GPU: "0"}).splitlines()[1]
    for cell in cells:
        assert cell in line


@pytest.mark.parametrize("leased", [True, None])
def test_only_what_is_known_to_be_off_its_lease_is_marked(leased: bool | None) -> None:
    """What cannot be told is not told as wrong."""
    assert "NOT LEASED" not in top(_answer(_process(leased=leased)), {GPU: "0"})


def test_what_is_open_and_what_is_nobodys_is_told() -> None:
    """Open device files, memory without a process, and how much could not be read."""
    open_one = {**_process(kind="user", container_id=None), "files": ["nvidia 0", "nvidia-uvm 0"]}
    ghost = {"device": GPU, "used_mib": 9000, "since": "2026-01-01T00:00:00Z"}
    said = top(_answer(elsewhere=[open_one], unattributed_memory=[ghost], unread=3), {GPU: "0"})
    assert "nvidia 0, nvidia-uvm 0" in said
    assert "0: 9000 MiB used by no process that can be seen, since 2026-01-01T00:00:00Z" in said
    assert "3 processes did not let" in said


def test_nothing_known_is_not_nothing_there() -> None:
    """Before the first round, and when it is idle."""
    assert "nothing is known" in top(_answer(at=None), {})
    assert top(_answer(), {}) == "no GPU process"


def test_devices_are_called_as_nvidia_smi_does() -> None:
    """By index; a device that is gone by its UUID."""
    assert named({"devices": [{"uuid": GPU, "index": "0:1"}]}) == {GPU: "0:1"}
    assert top(_answer(_process()), {}).splitlines()[1].startswith(GPU)
