"""A line to every terminal that a user has open, as write(1) would do it."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

_TERMINALS = Path("/dev/pts")
_SLAVES = range(136, 144)  # SOURCE: Linux, admin-guide/devices.txt: Unix98 PTY slaves


def tell(uid: int, text: str, *, directory: Path = _TERMINALS) -> int:
    """Write `text` as a line of its own; to how many terminals it went. Those closed to messages (`mesg n`) are left alone.

    SECURITY: opened without following links, and asked what it is once it is open; a terminal that does not take the
    line at once gets none of it. What is not printable is left out: it could steer the terminal.
    """
    line = f"\r\n{''.join(filter(str.isprintable, text))}\r\n".encode()
    told = 0
    for path in sorted(directory.iterdir()) if directory.is_dir() else ():
        with suppress(OSError):
            told += _write(path, uid, line)
    return told


def _write(path: Path, uid: int, line: bytes) -> bool:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        is_terminal = stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) in _SLAVES
        if not is_terminal or status.st_uid != uid or not status.st_mode & stat.S_IWGRP:
            return False
        return os.write(descriptor, line) == len(line)
    finally:
        os.close(descriptor)
