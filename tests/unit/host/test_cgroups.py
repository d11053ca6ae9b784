"""A cgroup with limits: on files that look like the kernel's, and on the kernel's own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from host.cgroups import ROOT, Bounds, bound

BOUNDS = Bounds(memory_bytes=64 * 1024 * 1024, cpu_millis=1500, pids=50)
V1 = {
    "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
    "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
    "pids": ("pids.max",),
}
V2 = ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "cgroup.subtree_control")


def files(group: Path, names: tuple[str, ...]) -> None:
    group.mkdir(parents=True, exist_ok=True)
    for name in names:
        (group / name).touch()


def test_version_1(tmp_path: Path) -> None:
    """Each controller has a tree of its own."""
    for controller, names in V1.items():
        files(tmp_path / controller / "a/b", names)
    bound("/a/b", BOUNDS, root=tmp_path)
    found = {name: (tmp_path / top / "a/b" / name).read_text() for top, names in V1.items() for name in names}
    assert found == {
        "memory.limit_in_bytes": "67108864",
        "memory.memsw.limit_in_bytes": "67108864",
        "cpu.cfs_period_us": "100000",
        "cpu.cfs_quota_us": "150000",
        "pids.max": "50",
    }


def test_version_2(tmp_path: Path) -> None:
    """The controllers are let down along the path."""
    (tmp_path / "cgroup.controllers").touch()
    for group in (tmp_path, tmp_path / "a", tmp_path / "a/b"):
        files(group, V2)
    bound("/a/b", BOUNDS, root=tmp_path)
    assert {name: (tmp_path / "a/b" / name).read_text() for name in V2} == {
        "memory.max": "67108864",
        "memory.swap.max": "0",
        "cpu.max": "150000 100000",
        "pids.max": "50",
        "cgroup.subtree_control": "",
    }
    assert (tmp_path / "a/cgroup.subtree_control").read_text() == "+cpu +memory +pids"


@pytest.mark.parametrize("version", [1, 2])
def test_a_limit_that_cannot_be_set_raises(tmp_path: Path, version: int) -> None:
    """A file that is missing is a controller that is missing."""
    if version == 2:
        (tmp_path / "cgroup.controllers").touch()
    with pytest.raises(OSError, match=r"cgroup|memory"):
        bound("/a", BOUNDS, root=tmp_path)


def test_less_than_the_kernel_takes_becomes_the_least() -> None:
    """A hundredth of a CPU is one millisecond in each period."""
    assert Bounds(memory_bytes=1, cpu_millis=1, pids=1).quota_us == 1000


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_the_kernel_takes_them() -> None:
    """Larger, then smaller, then larger again."""
    path = f"/ds01-test-{os.getpid()}"
    files_ = [ROOT / "memory" / path[1:] / "memory.limit_in_bytes", ROOT / path[1:] / "memory.max"]
    try:
        for memory in (64, 32, 128):
            try:
                bound(path, Bounds(memory_bytes=memory * 1024 * 1024, cpu_millis=500, pids=10))
            except OSError as error:
                pytest.skip(f"no cgroup can be made here: {error}")
            found = next(file for file in files_ if file.exists())
            assert int(found.read_text()) == memory * 1024 * 1024
    finally:
        for top in (ROOT, *(ROOT / name for name in V1)):
            with suppress(OSError):
                (top / path[1:]).rmdir()
