"""Mounting, in the mount namespace of another process: dockerd may have one of its own, and runc works there."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING, TypeVar

from host.mount_table import mounts
from host.thread import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_FS, _CLONE_NEWNS = 0x200, 0x20000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC = 2, 4, 8, 4096, 16384
_MS_PRIVATE, _MS_SLAVE = 1 << 18, 1 << 19
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8


class MountNamespace:
    """The mount namespace and root directory of a process, held open: both stay when the process ends."""

    def __init__(self, pid: int) -> None:
        """Hold those of `pid`, which must not end meanwhile. Raises: OSError."""
        self._namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self._root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            os.close(self._namespace)
            raise
        self.key = os.fstat(self._namespace).st_ino  # which namespace it is, among those that exist

    def run(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread of its own that sees the file system as the process does. Raises: OSError, or `work`'s."""
        return in_own_thread(lambda: self._enter(work), name="mount-namespace")

    def _enter(self, work: Callable[[], T]) -> T:
        # Threads share their root and working directory, and a sharer may not change its namespace.
        _check(_LIBC.unshare(_CLONE_FS))
        _check(_LIBC.setns(self._namespace, _CLONE_NEWNS))
        # setns goes to the namespace's own root, which is another where the process runs in a chroot.
        os.fchdir(self._root)
        os.chroot(".")
        return work()

    def close(self) -> None:
        os.close(self._namespace)
        os.close(self._root)


def mount_private_tmpfs(directory: Path) -> None:
    """A small file system that no other namespace is told of. Raises: OSError."""
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _mount("ds01", str(directory), "tmpfs", flags, "mode=0700,size=1m")
    _mount(None, str(directory), None, _MS_PRIVATE, None)


def keep_to_itself(directory: Path) -> None:
    """Make a directory a mount from which no other namespace hears of mounts; it still hears of theirs. Repeatable. Raises: OSError."""
    if all(mount.point != str(directory) for mount in mounts().values()):
        _mount(str(directory), str(directory), None, _MS_BIND, None)
        _mount(None, str(directory), None, _MS_SLAVE, None)


def bind_descriptor(descriptor: int, target: Path) -> None:
    """Mount the very object that is open, and what is mounted below it, at `target`. Raises: OSError."""
    _mount(f"/proc/self/fd/{descriptor}", str(target), None, _MS_BIND | _MS_REC, None)
    _detach_peers(target)


def unmount(target: Path) -> None:
    """Take a mount and all below it away; who uses it keeps it. Raises: OSError."""
    _detach_peers(target)
    _check(_LIBC.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW))


def _detach_peers(target: Path) -> None:
    """Let mounts come in from where the tree was taken, and none go back.

    SECURITY: in a copy whose mounts are peers of the originals, unmounting takes the originals away as well.
    """
    _mount(None, str(target), None, _MS_SLAVE | _MS_REC, None)


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _check(_LIBC.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]))


def _check(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
