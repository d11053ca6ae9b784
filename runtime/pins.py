"""Pins: sources that were looked at, mounted where only root can reach them, so that exactly those are mounted further.

A pin for runc lives from the guard's yes until the `runc create` that it was given to has ended: then the container has its
own copy of the mount, or does not start. A pin for dockerd lies on a stand-in, for as long as something is copied.
Everything here runs inside dockerd's mount namespace (`host.mounts`).
"""

from __future__ import annotations

import os
import secrets
import stat
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from host.mount_table import mounts, mounts_below
from host.mounts import bind_descriptor, keep_to_itself, mount_private_tmpfs, unmount
from policy.stand_ins import StandIns

if TYPE_CHECKING:
    from collections.abc import Callable

    from policy.model import ContainerId

_TRIES = 5
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

    @property
    def where(self) -> str:
        """Where the pins are, for the log."""
        return str(self.directory)

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


class StandInPins:
    """What lies on stand-ins while the files of one container are copied.

    Two copies at once may pin the same stand-in, one on the other, and each takes one away: both were opened as the
    stand-in's uid, for what it is mounted for, and were looked at on the board before.
    """

    _fitting = threading.Lock()  # of all: a stand-in is made anew only while nobody mounts

    def __init__(self, staged: Pins) -> None:
        """Nothing is pinned yet. `staged`: where it is looked at first."""
        self._staged = staged
        self._lock = threading.Lock()
        self._points: list[Path] = []
        self._removed = False

    @property
    def where(self) -> str:
        """The pins that are there, for the log."""
        return ", ".join(map(str, self._points))

    def pin(self, descriptor: int, point: Path, look: Callable[[str], None]) -> None:
        """Mount an open object on a stand-in. `look` raises what speaks against it, as it is mounted on the board.

        Raises: TooLate, OSError.
        """
        staged = self._staged.pin(descriptor)
        look(str(staged))
        is_directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        looked_at = os.open(staged, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with self._lock, self._fitting:
                if self._removed:
                    raise TooLate
                _lay(looked_at, point, is_directory=is_directory)
                self._points.append(point)
        finally:
            os.close(looked_at)

    @property
    def any(self) -> bool:
        return bool(self._points)

    def remove(self) -> None:
        """Unmount them all; `pin` makes none any more. Raises: OSError."""
        with self._lock:
            self._removed = True
            while self._points:
                unmount(self._points.pop())
            self._staged.remove()


def _lay(descriptor: int, point: Path, *, is_directory: bool) -> None:
    """Mount on a stand-in that is there. The proxy sweeps empty ones away, and may do so in between: then it is made anew.

    Raises: OSError.
    """
    for tries_left in reversed(range(_TRIES)):
        _fit(point, is_directory=is_directory)
        try:
            bind_descriptor(descriptor, point)
        except FileNotFoundError:
            if not tries_left:
                raise
        else:
            return


def _fit(point: Path, *, is_directory: bool) -> None:
    """Make the stand-in a directory or a file, as what it is to stand for. Raises: OSError: it holds something.

    INVARIANT: only what is empty is removed, so whatever lies there is never lost.
    SECURITY: what a copy at the same time has pinned there is not looked at: its file system may never answer.
    """
    if any(mount.point == in_mount_table(point) for mount in mounts().values()):
        return
    point.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if point.exists() and point.is_dir() != is_directory:
        if point.is_dir():
            point.rmdir()
        elif point.stat().st_size == 0:
            point.unlink()
    if is_directory:
        point.mkdir(mode=0o700, exist_ok=True)
    elif not point.exists():
        point.touch(mode=0o600)


def in_mount_table(point: Path) -> str:
    """A stand-in as the kernel names it there, without a look at what is pinned on it."""
    return str(point.parent.resolve() / point.name)


def prepare_stand_ins(stand_ins: StandIns) -> None:
    """Keep what is mounted on stand-ins from other namespaces, and take away what an earlier guard left. Raises: OSError.

    SECURITY: only stand-ins are unmounted: a way below one leads through the user's names.
    """
    root = Path(stand_ins.root)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = root.resolve()  # as the kernel writes it
    keep_to_itself(root)
    here = StandIns(str(root))
    while left := [point for point in mounts_below(root) if here.behind(str(point))]:
        unmount(left[0])


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
