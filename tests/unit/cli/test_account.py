"""whoami and status in words; unknown is never shown as zero or free."""

from __future__ import annotations

from typing import Any

import pytest

from cli.account import status, status_code, whoami
from cli.outcome import Exit


def me(**changes: Any) -> dict[str, Any]:
    limits = {
        "memory_bytes": 16 * 1024**3, "cpu_millis": 1500, "pids": 4096, "shm_bytes": 1024**3, "nofile": 65536,
        "gpus": 2, "gpus_default": 1, "containers": 20, "connections": 64, "wait_seconds": 600,
        "wait_most_seconds": 3600,
        "log_bytes": 100 * 1024**2, "restarts": 10, "memlock_bytes": -1, "uploads_bytes": 32 * 1024**3,
    }  # fmt: skip
    found = {
        "name": "alice",
        "uid": 1001,
        "role": "user",
        "policy_groups": ["students"],
        "socket": "/run/ds01/users/alice/docker.sock",
        "container": None,
        "limits": limits,
        "usage": {"containers": 3, "gpus": 1},
    }
    return found | changes


def system(**changes: Any) -> dict[str, Any]:
    device = {"index": "0", "uuid": "GPU-1", "profile": "NVIDIA A100", "memory_mib": 40960, "state": "free"}
    found = {
        "engine": {
            "state": "ready",
            "version": "20.10.24",
            "api_version": "1.41",
            "cgroup_driver": "cgroupfs",
        },
        "authz_plugin": "guarding",
        "allocator": {"state": "ok", "problem": None},
        "lifecycle": {"state": "ok", "problem": None},
        "policy": {"digest": "ab" * 32},
        "gpus": [device, device | {"index": "1:0", "state": "busy", "holder": "bob\x1b[2J"}],
    }
    return found | changes


def test_whoami_shows_usage_beside_limits() -> None:
    """Numbers carry the units of the policy file."""
    text = whoami(me())
    assert "alice (uid 1001), role user" in text
    assert "1 of 2 held; --gpus all means 1" in text
    assert "3 of 20" in text
    assert "16GiB" in text
    assert "unlimited" in text
    assert "1.5" in text
    assert "600s, with --label ds01.wait=TIME up to 3600s" in text


def test_unknown_usage_is_not_zero() -> None:
    """While the allocator is silent, nobody is told that they hold nothing."""
    assert "unknown of 2 held" in whoami(me(usage={"containers": None, "gpus": None}))


def test_status_counts_free_devices_and_escapes_names() -> None:
    """Every device has a line; a holder's name cannot write to the terminal."""
    text = status(system())
    assert "1 of 2 free" in text
    assert "busy (bob\\x1b[2J)" in text
    assert "\x1b" not in text


def test_silent_allocator_leaves_gpus_unknown() -> None:
    """No list is not an empty list."""
    assert "GPUs: unknown" in status(system(gpus=None))


def test_a_gpu_that_is_in_no_list_is_told() -> None:
    """With why; in the order of their numbers."""
    mute = {"10": "it has never answered", "9": "error\x1b"}
    lines = status(system(allocator={"state": "ok", "problem": None, "unidentified": mute})).splitlines()
    assert lines[-2:] == [
        "GPU 9 could not be read: error\\x1b",
        "GPU 10 could not be read: it has never answered",
    ]


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, Exit.OK),
        ({"authz_plugin": "not required"}, Exit.OK),
        ({"authz_plugin": "missing"}, Exit.UNAVAILABLE),
        ({"allocator": {"state": "unavailable", "problem": "x"}}, Exit.UNAVAILABLE),
        ({"lifecycle": {"state": "silent", "problem": None}}, Exit.UNAVAILABLE),
        ({"engine": {"state": "unavailable", "version": "", "api_version": ""}}, Exit.UNAVAILABLE),
    ],
)
def test_status_ends_with_what_a_script_can_ask(changes: dict[str, Any], code: Exit) -> None:
    """3 as soon as one part does not serve."""
    assert status_code(system(**changes)) is code
