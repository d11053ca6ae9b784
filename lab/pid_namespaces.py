"""The pids that one process has: one in each PID namespace from ours down to its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

_NS_GET_PARENT = 0xB702  # SOURCE: linux/nsfs.h


def pids_by_namespace(pid: int) -> dict[int, int]:
    """Map the inode of each PID namespace that we can see and `pid` (of ours) is in to its pid there.

    Returns: nothing for a process that does not exist, or that we may not look at.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        inner = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return {}
    pids = next(line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:"))
    return dict(zip(_inodes(inner), map(int, reversed(pids)), strict=False))


def _inodes(inner: int) -> list[int]:
    """From the namespace of the descriptor outwards, to ours. Closes it."""
    found: list[int] = []
    with contextlib.ExitStack() as opened:
        try:
            while True:
                opened.callback(os.close, inner)
                found.append(os.fstat(inner).st_ino)
                inner = fcntl.ioctl(inner, _NS_GET_PARENT)
        except OSError:  # the next one out is not ours to see
            return found
