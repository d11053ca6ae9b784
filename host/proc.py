"""Small files of `/proc`, and whether a process still runs that a pidfd holds.

A pid may be another process's at any time: whoever reads by pid holds a pidfd meanwhile and asks `has_ended` last.
"""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_READ_BYTES = 65536


def read(path: Path | str) -> str:
    """A small file of /proc. Raises: OSError; ProcessLookupError when the process has ended; ValueError: too long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)
    if len(content) == _READ_BYTES:
        raise ValueError(f"{path} is longer than was read")
    return os.fsdecode(content)


def stat_fields(stat: str) -> list[str]:
    """Fields of `/proc/<pid>/stat` from the third on, the state; the name before it may hold anything, brackets and spaces too.

    SOURCE: proc(5). Raises: ValueError: cut off.
    """
    fields = stat.rpartition(") ")[2].split()
    if len(fields) < 20:
        raise ValueError("a line of /proc/<pid>/stat is cut off")
    return fields


def is_over(stat: str) -> bool:
    """Whether this thread has ended, though its entry is there yet. Raises: ValueError."""
    return stat_fields(stat)[0] in ("Z", "X", "x")


def has_ended(pidfd: int) -> bool:
    """Whether the process that a pidfd holds has ended, reaped or not."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
