"""Ending a lab whatever state it is in: after a crash, after kill -9 of anything, after a reboot.

Everything a lab leaves can be told from anything else on the machine: its processes carry its id in their
environment or sit in a control group named after one of its containers; its mounts lie below its own directory.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from lab import network
from lab.processes import MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.tree import LabTree

CGROUPS = Path("/sys/fs/cgroup")
_SHARED_PARENT = (
    "ds01"  # users' control groups: ds01/<uid>; another lab, or an installed ds01, may use them too
)


def sweep(tree: LabTree, *, keep_lock: bool = False) -> tuple[str, ...]:
    """End processes, then take away control groups, network, mounts and /run files. Returns: what would not go."""
    containers = container_ids(tree)
    left = [f"process {pid}" for pid in end(tree, containers)]
    remove_cgroups(tree, containers)
    network.down(tree)
    left += [f"mount {path}" for path in _unmount(tree)]
    if not left:
        _remove_files(tree, keep_lock=keep_lock)
    return tuple(left)


def container_ids(tree: LabTree) -> frozenset[str]:
    """Ids of the containers dockerd has on disk."""
    try:
        return frozenset(os.listdir(tree.root / "lib" / "docker" / "containers"))
    except FileNotFoundError:
        return frozenset()


def processes(tree: LabTree, containers: frozenset[str]) -> Iterator[int]:
    """Every process of this lab, except this one."""
    mark = f"{MARK}={tree.id}".encode()
    for name in os.listdir("/proc"):
        if not name.isdecimal() or int(name) == os.getpid():
            continue
        # It may end while it is looked at; then it needs no ending.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if mark in _environment(name) or _in_container(name, containers):
                yield int(name)


def _environment(pid: str) -> list[bytes]:
    try:
        return Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except PermissionError:  # even root may not look into every process, such as PID 1 of a container
        return []


def _in_container(pid: str, containers: frozenset[str]) -> bool:
    if not containers:
        return False
    path = Path("/proc", pid, "cgroup").read_text()
    return any(container in path for container in containers)


def kill_containers(tree: LabTree) -> None:
    """End what runs inside containers at once: dockerd would wait for each one's own stop timeout."""
    containers = container_ids(tree)
    for name in os.listdir("/proc"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name.isdecimal() and _in_container(name, containers):
                os.kill(int(name), signal.SIGKILL)


def end(tree: LabTree, containers: frozenset[str], *, timeout_seconds: float = 15) -> tuple[int, ...]:
    """SIGKILL until none is left. Returns: those that would not end."""
    deadline = time.monotonic() + timeout_seconds
    while left := tuple(processes(tree, containers)):
        if time.monotonic() > deadline:
            return left
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return ()


def remove_cgroups(tree: LabTree, containers: frozenset[str]) -> None:
    """Remove the lab's control groups in every hierarchy, and the users' once they are empty.

    INVARIANT: only rmdir is used, which the kernel refuses while a group has a process or a child.
    """
    hierarchies = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else sorted(CGROUPS.iterdir())
    for hierarchy in hierarchies:
        if not hierarchy.is_dir() or hierarchy.is_symlink():
            continue
        _remove_tree(hierarchy / tree.cgroup)
        parent = hierarchy / _SHARED_PARENT
        for user in parent.iterdir() if parent.is_dir() else ():
            for container in containers:
                _remove_tree(user / container)
        if not _others(tree):
            _remove_tree(parent)


def _remove_tree(group: Path) -> None:
    if not group.is_dir():
        return
    for path, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(path)


def _others(tree: LabTree) -> bool:
    """Whether another lab or an installed ds01 is on this machine."""
    labs = [path for path in Path("/run").glob("ds01-lab-*") if path != tree.short]
    return bool(labs) or Path("/run/ds01").exists()


def mounts_below(directory: Path) -> list[str]:
    """Mount points at or below `directory`, deepest first."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    inside = [point for point in points if Path(point).is_relative_to(directory)]
    return sorted(inside, key=len, reverse=True)


def _unmount(tree: LabTree) -> list[str]:
    for point in mounts_below(tree.short):
        subprocess.run(["umount", "--lazy", point], capture_output=True, check=False)
    return mounts_below(tree.short)


def _remove_files(tree: LabTree, *, keep_lock: bool) -> None:
    """SECURITY: called only when nothing is mounted below, so that no file of anybody's lies there."""
    for path in tree.short.iterdir() if tree.short.exists() else ():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != tree.lock or not keep_lock:
            path.unlink()
    if not keep_lock:
        with contextlib.suppress(FileNotFoundError):
            tree.short.rmdir()
    for path in (tree.root / "run").glob("**/*"):
        if path.is_socket() or path.suffix == ".pid":
            path.unlink()
    if not _others(tree):
        forget_created_paths(tree)


def note_created_path(tree: LabTree, path: Path) -> None:
    """Make a host directory the lab needs, and remember to take it away if it was not there."""
    if not path.exists():
        path.mkdir(parents=True)
        with tree.created_paths.open("a") as file:
            file.write(f"{path}\n")


def forget_created_paths(tree: LabTree) -> None:
    """Remove those directories if they are empty, and the mount that ip(8) left on its directory of names."""
    # A directory another lab has mounted something on must stay: removing it would take the mount along.
    with contextlib.suppress(FileNotFoundError):
        for line in reversed(tree.created_paths.read_text().splitlines()):
            if line == str(network.NAMES) and not any(network.NAMES.iterdir()):
                subprocess.run(["umount", line], capture_output=True, check=False)
            with contextlib.suppress(OSError):
                os.rmdir(line)
        tree.created_paths.unlink()
