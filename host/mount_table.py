"""The kernel's table of mounts, as the calling thread's namespace has it. SOURCE: proc(5)."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """A place that is the same in every mount namespace: a file system, "8:1", and a path in it."""

    device: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One line: where it is mounted, what kind of file system it is, with which options.

    origin: what is mounted there.
    """

    point: str
    filesystem: str
    options: frozenset[str]
    origin: Origin


def mounts(process: int | None = None) -> dict[int, Mount]:
    """The mounts of a process's namespace by mount id, of this thread's without one; later ones lie on earlier ones.

    SOURCE: proc(5), mountinfo. Raises: OSError.
    """
    table: dict[int, Mount] = {}
    for line in Path(f"/proc/{process or 'thread-self'}/mountinfo").read_bytes().splitlines():
        before, _, after = line.partition(b" - ")
        words = before.split(b" ")
        table[int(words[0])] = Mount(
            point=_plain(words[4]),
            filesystem=after.split(b" ", 1)[0].decode(),
            options=frozenset(words[5].decode().split(",")),
            origin=Origin(device=words[2].decode(), path=_plain(words[3])),
        )
    return table


def _plain(word: bytes) -> str:
    return os.fsdecode(_OCTAL.sub(lambda match: bytes([int(match[1], 8)]), word))


def origin(descriptor: int) -> Origin:
    """Of an open object. Raises: OSError: it is not below its mount any more."""
    mount = mounts()[mount_id(descriptor)]
    real, above = str(Path(f"/proc/self/fd/{descriptor}").readlink()), mount.point.rstrip("/")
    if real != mount.point and not real.startswith(f"{above}/"):
        raise OSError(errno.ENOENT, "the object is not below its mount", real)
    path = mount.origin.path.rstrip("/") + real.removeprefix(above)
    return Origin(device=mount.origin.device, path=path.rstrip("/") or "/")


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
