"""One cgroup with limits, for processes that get none of their own: made and bounded before they start.

SOURCE: Linux, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst: a child never gets more than its parent.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What all processes of a cgroup may use together."""

    memory_bytes: int
    cpu_millis: int  # thousandths of a CPU
    pids: int

    @property
    def quota_us(self) -> int:
        """CPU time in each period of 100 ms; the kernel takes no less than 1 ms."""
        return max(1000, self.cpu_millis * _PERIOD_US // 1000)


def bound(path: str, bounds: Bounds, *, root: Path = ROOT) -> None:
    """Make the cgroup `path` (absolute) if it is missing, and set its limits.

    Swap counts as memory: on cgroup v1 where the kernel accounts for it, on v2 always.
    Raises: OSError: a limit cannot be set, so nothing must be started there.
    """
    relative = path.strip("/")
    if (root / "cgroup.controllers").exists():
        _bound_v2(root, relative, bounds)
    else:
        _bound_v1(root, relative, bounds)


def _bound_v1(root: Path, relative: str, bounds: Bounds) -> None:
    memory, cpu, pids = (_made(root / controller / relative) for controller in ("memory", "cpu", "pids"))
    swap = memory / "memory.memsw.limit_in_bytes"
    with contextlib.suppress(
        OSError
    ):  # it may not lie above memory and swap together, which is still the old one
        _write(memory / "memory.limit_in_bytes", bounds.memory_bytes)
    if swap.exists():
        _write(swap, bounds.memory_bytes)
    _write(memory / "memory.limit_in_bytes", bounds.memory_bytes)
    _write(cpu / "cpu.cfs_period_us", _PERIOD_US)
    _write(cpu / "cpu.cfs_quota_us", bounds.quota_us)
    _write(pids / "pids.max", bounds.pids)


def _bound_v2(root: Path, relative: str, bounds: Bounds) -> None:
    group = root
    for part in Path(relative).parts:
        _write(group / "cgroup.subtree_control", "+cpu +memory +pids")
        group = _made(group / part)
    _write(group / "memory.max", bounds.memory_bytes)
    if (group / "memory.swap.max").exists():
        _write(group / "memory.swap.max", 0)
    _write(group / "cpu.max", f"{bounds.quota_us} {_PERIOD_US}")
    _write(group / "pids.max", bounds.pids)


def _made(group: Path) -> Path:
    group.mkdir(mode=0o755, parents=True, exist_ok=True)
    return group


def _write(file: Path, value: int | str) -> None:
    """Into a file that the kernel made: where it is missing, its controller is."""
    with file.open("r+b", buffering=0) as opened:
        opened.write(str(value).encode())
