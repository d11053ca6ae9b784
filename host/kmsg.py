"""The kernel's log, record by record, from now on: /dev/kmsg, or a FIFO that stands for it.

SOURCE: Linux, Documentation/ABI/testing/dev-kmsg: a read gives one whole record; its first line is header and message,
lines that begin with a space are key and value; what is not printable in any of them is escaped.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_RECORD_BYTES: Final = 16384  # twice what the longest record takes; a shorter buffer gets EINVAL
_MOST_RECORDS: Final = 100  # at once, so that a flood holds up nobody else on the loop


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What one `read` found, oldest first. overrun: records before or between them were overwritten unread."""

    lines: tuple[bytes, ...] = ()
    overrun: bool = False


class KernelLog:
    """An open log; nothing of it blocks, and its descriptor says when there is more."""

    def __init__(self, path: Path) -> None:
        """Open it behind its last record. Raises: OSError: it is not there, or may not be read (dmesg_restrict)."""
        # A FIFO opened to read alone has ended whenever nobody has it open to write.
        fifo = stat.S_ISFIFO(path.stat().st_mode)
        mode = os.O_RDWR if fifo else os.O_RDONLY
        self._descriptor = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        if not fifo:
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def fileno(self) -> int:
        """For a loop to wait on; readable while there are records."""
        return self._descriptor

    def read(self) -> Read:
        """The records that are there now, at most `_MOST_RECORDS`. Raises: OSError: there will be no more."""
        lines: list[bytes] = []
        overrun = False
        for _ in range(_MOST_RECORDS):
            try:
                record = os.read(self._descriptor, _RECORD_BYTES)
            except BlockingIOError:
                break
            except (
                BrokenPipeError
            ):  # EPIPE: overtaken by the ring; the next read begins at the oldest record left
                overrun = True
                continue
            if not record:
                raise OSError(errno.ENODATA, "the kernel log has ended")
            lines += filter(None, record.split(b"\n"))
        return Read(lines=tuple(lines), overrun=overrun)

    def close(self) -> None:
        """Read no more."""
        os.close(self._descriptor)
