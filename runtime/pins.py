"""Pins: sources that were looked at, mounted where only root can reach them, so that runc mounts exactly those.

A pin lives from the guard's yes until the `runc create` that it was given to has ended: then the container has its own
copy of the mount, or does not start. Everything here runs inside dockerd's mount namespace (`host.mounts`).
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from typing import TYPE_CHECKING

from host.mounts import bind_descriptor, mount_private_tmpfs, unmount

if TYPE_CHECKING:
    from pathlib import Path

    from policy.model import ContainerId

STALE_SECONDS = 60  # no `runc create` takes so long; what is older was left by a guard that was killed


class TooLate(Exception):  # noqa: N818  the name says what happened
    """The start was given up meanwhile: nothing more is pinned for it."""


class Pins:
    """The pins of one start."""

    def __init__(self, board: Path, container: ContainerId) -> None:
        """For one start of `container`; nothing is made yet."""
        self.directory = board / f"{container}.{secrets.token_hex(4)}"
        self._lock = threading.Lock()
        self._count = 0
        self._removed = False

    def pin(self, descriptor: int) -> Path:
        """Mount an open object. Returns: where. Raises: TooLate, OSError."""
        with self._lock:
            if self._removed:
                raise TooLate
            if self._count == 0:
                self.directory.mkdir(mode=0o700)
            point = self.directory / str(self._count)
            self._count += 1
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                point.mkdir(mode=0o700)
            else:
                point.touch(mode=0o600)
            bind_descriptor(descriptor, point)
        return point

    @property
    def any(self) -> bool:
        return self._count > 0

    def remove(self) -> None:
        """Unmount them all; `pin` makes none any more. Raises: OSError."""
        with self._lock:
            self._removed = True
            if self._count:
                clear(self.directory)


def prepare(board: Path) -> None:
    """Make the place of all pins: a file system of its own, which no other namespace sees. Repeatable. Raises: OSError."""
    board.mkdir(mode=0o700, exist_ok=True)
    if not os.path.ismount(board):
        mount_private_tmpfs(board)


def sweep(board: Path) -> None:
    """Remove what an earlier guard left. Raises: OSError."""
    for left in board.iterdir():
        if time.time() - left.stat().st_mtime > STALE_SECONDS:
            clear(left)


def clear(directory: Path) -> None:
    """Unmount and remove the pins of one start.

    INVARIANT: a name is removed only when nothing is mounted on it any more: what is the owner's is never deleted.
    """
    own = directory.lstat().st_dev
    for point in directory.iterdir():
        while point.lstat().st_dev != own:
            unmount(point)
        if stat.S_ISDIR(point.lstat().st_mode):
            point.rmdir()
        else:
            point.unlink()
    directory.rmdir()
