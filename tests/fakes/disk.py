"""A disk that keeps of a ledger only what was synced, for when the power goes."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path

_SECTOR_BYTES = 512  # what a disk writes whole
_LOG_HEADER_BYTES = 32  # SOURCE: sqlite.org/fileformat2.html, 4.1


class Lost(StrEnum):
    """What becomes of what was written and not synced."""

    ALL = "all"
    EVERY_OTHER_SECTOR = "every other sector"  # a disk may write in any order
    NOTHING = "nothing"


class Disk:
    """Its `sync` is the ledger's; both files are on disk as they were then.

    What SQLite syncs by itself (before and after it carries the log over) is not believed, so more may be lost here than a
    power loss takes.
    """

    def __init__(self, path: Path) -> None:
        """What is there already is on disk."""
        self._path = path
        self._file = path.read_bytes() if path.exists() else b""
        log = Path(f"{path}-wal")
        self._log = bytearray(log.read_bytes() if log.exists() else b"")

    def sync(self, descriptor: int) -> None:
        """The file of the descriptor is on disk, whichever that is; the ledger's own changed before, and was synced then."""
        size = os.fstat(descriptor).st_size
        del self._log[size:]
        self._log.extend(bytes(size - len(self._log)))
        with memoryview(self._log) as log:  # in place: it is long, and synced often
            os.preadv(descriptor, [log], 0)
        self._file = self._path.read_bytes()

    def after_power_loss(self, path: Path, lost: Lost) -> None:
        """Write to `path`, and beside it, what the next boot finds."""
        path.write_bytes(self._file)
        Path(f"{path}-wal").write_bytes(self._left(lost))

    def _left(self, lost: Lost) -> bytes | bytearray:
        log = Path(f"{self._path}-wal").read_bytes()
        carried_over = self._path.read_bytes() != self._file
        begun_anew = log[:_LOG_HEADER_BYTES] != self._log[:_LOG_HEADER_BYTES]
        if lost is Lost.ALL or carried_over or begun_anew:
            return self._log
        left = self._log.ljust(len(log), b"\0")
        step = 1 if lost is Lost.NOTHING else 2
        for at in range(0, len(log), step * _SECTOR_BYTES):
            left[at : at + _SECTOR_BYTES] = log[at : at + _SECTOR_BYTES]
        return left
