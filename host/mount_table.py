"""The kernel's table of mounts, as the calling thread's namespace has it. SOURCE: proc(5)."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line: where it is mounted, what kind of file system it is, with which options."""

    point: str
    filesystem: str
    options: frozenset[str]


def mounts() -> dict[int, Mount]:
    """The mounts of this thread's namespace by mount id. SOURCE: proc(5), mountinfo."""
    table: dict[int, Mount] = {}
    for line in Path("/proc/thread-self/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        words = before.split(b" ")
        table[int(words[0])] = Mount(
            point=os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), words[4])),
            filesystem=after.split(b" ", 1)[0].decode(),
            options=frozenset(words[5].decode().split(",")),
        )
    return table


def mount_id(descriptor: int) -> int:
    """The id of the mount an open object is on: certain, whatever is mounted over whatever."""
    for line in Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "mnt_id":
            return int(value)
    raise OSError(errno.ENOSYS, "fdinfo has no mnt_id")


def mounts_below(directory: Path) -> list[Path]:
    """Every mount point below a directory. Raises: OSError."""
    inside = f"{directory}/"
    return [Path(mount.point) for mount in mounts().values() if mount.point.startswith(inside)]
