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
        "scope": "all",
        "at": "2026-01-01T00:00:00Z",
        "age_seconds": 3.2,
        "problem": None,
        "unlisted_devices": [],
        "processes": list(processes),
        "elsewhere": [],
        "elsewhere_age_seconds": 20.0,
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
    """Before the first round it says why; what is idle says so, and how old that is."""
    nothing = dict.fromkeys(_answer()) | {"scope": "own", "problem": "NVML was not read yet\x1b"}
    assert top(nothing, {}) == (
        "nothing is known of GPU processes yet: NVML was not read yet\\x1b; try again in a moment"
    )
    assert top(_answer(), {}).splitlines() == ["no GPU process", "as of 3 s ago"]


def test_users_are_not_told_that_nobody_uses_a_gpu() -> None:
    """They see their own processes alone; memory without a process is not theirs to know."""
    own = _answer(scope="own", unattributed_memory=None, unread=None)
    assert top(own, {}).splitlines() == ["no GPU process that is known to be yours", "as of 3 s ago"]


@pytest.mark.parametrize("processes", [(), (_process(),)])
def test_what_is_old_is_told_as_old(processes: tuple[dict[str, Any], ...]) -> None:
    """During an outage nobody knows what runs, whether anything ran before it or not."""
    said = top(_answer(*processes, age_seconds=1000.4, problem="NVML does not answer\x1b"), {GPU: "0"})
    assert said.splitlines()[-1] == (
        "as of 1000 s ago: NVML does not answer\\x1b; what runs now is not known"
    )
    assert "no GPU process" not in said
    assert ("python3" in said) == bool(processes)


def _unlisted(index: str, age: float | None, device: str | None = GPU) -> dict[str, Any]:
    return {"device": device, "index": index, "why": "it has not answered for 9 s\x1b", "age_seconds": age}


def test_a_device_that_could_not_be_read_is_named() -> None:
    """With why; what it was last said to run is marked as old, and a GPU stands for its MIG devices."""
    unlisted = [_unlisted("0", 60.0), _unlisted("0:1", 60.0, "MIG-1"), _unlisted("1:0", None, "MIG-2")]
    unlisted.append(_unlisted("2", None, None))
    why = "could not be read: it has not answered for 9 s\\x1b"
    lines = top(_answer(unlisted_devices=unlisted), {}).splitlines()
    assert lines[:-1] == [
        "no process on the GPUs that could be read",
        f"GPU 0 {why}; what is shown of it is as of 60 s ago",
        f"MIG device 1:0 {why}; what runs there is not known",
        f"GPU 2 {why}; what runs there is not known",
    ]
    others = _process(device="GPU-2", pid=8), _process(pid=9, ended_at="2026-01-01T00:00:05Z")
    rows = top(_answer(_process(), *others, unlisted_devices=unlisted), {}).splitlines()[1:4]
    assert [row.endswith("as of 60 s ago") for row in rows] == [True, False, False]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"elsewhere": None, "elsewhere_age_seconds": None, "unread": None},
            "who only has a device open was not looked at yet",
        ),
        ({"elsewhere_age_seconds": 61.0}, "who only has a device open: as of 61 s ago"),
        ({"unattributed_memory": None}, "memory that no process has was not judged yet"),
    ],
)
def test_what_was_not_looked_at_is_said(changes: dict[str, Any], said: str) -> None:
    """No scan of descriptors, an old one, memory that was not judged: none of it reads as nothing."""
    assert said in top(_answer(**changes), {}).splitlines()
    assert said not in top(_answer(), {}).splitlines()


def test_devices_are_called_as_nvidia_smi_does() -> None:
    """By index; a device that is gone by its UUID."""
    assert named({"devices": [{"uuid": GPU, "index": "0:1"}]}) == {GPU: "0:1"}
    assert top(_answer(_process()), {}).splitlines()[1].startswith(GPU)
