"""Uploads that must be seen whole before dockerd may see any of it: held on disk, within a limit for each user."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from policy.model import Uid
from socket_proxy.refusals import Refusal, Unavailable

_IN_MEMORY_BYTES = 1024 * 1024
_GIB = 1024**3


class Spools:
    """What all uploads of all users hold now."""

    def __init__(self, directory: Path) -> None:
        """Args: directory: on a disk with room, for the proxy alone; made if missing."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._held: Counter[Uid] = Counter()

    @contextmanager
    def open(self, uid: Uid, limit_bytes: int) -> Iterator[Spool]:
        """An empty spool, gone with its file at the end. `limit_bytes` counts all spools of one user together."""
        with tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES, dir=str(self._directory)) as file:
            spool = Spool(file=file, uid=uid, held=self._held, limit_bytes=limit_bytes)
            try:
                yield spool
            finally:
                self._held[uid] -= spool.size
                if not self._held[uid]:
                    del self._held[uid]


class Spool:
    """One upload."""

    def __init__(self, *, file: IO[bytes], uid: Uid, held: Counter[Uid], limit_bytes: int) -> None:
        self.file = file
        self.size = 0
        self._uid = uid
        self._held = held
        self._limit_bytes = limit_bytes

    async def fill(
        self, upload: AsyncIterator[bytes], *, announced_bytes: int | None = None
    ) -> Refusal | None:
        """Take all of an upload; a Refusal when it is, or says that it will be, too much.

        Raises: Unavailable: the disk is full.
        """
        if self._is_too_much(announced_bytes or 0):
            return self._too_much()
        async for piece in upload:
            if self._is_too_much(len(piece)):
                return self._too_much()
            self._held[self._uid] += len(piece)
            self.size += len(piece)
            try:
                if self.size > _IN_MEMORY_BYTES:
                    await asyncio.to_thread(self.file.write, piece)
                else:
                    self.file.write(piece)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise Unavailable("the server's disk has no room for this upload; tell the admin") from error
        return None

    def _is_too_much(self, more_bytes: int) -> bool:
        return self._held[self._uid] + more_bytes > self._limit_bytes

    def _too_much(self) -> Refusal:
        return Refusal(
            status=413,
            message="ds01: your uploads (docker load, build contexts) are over "
            f"{self._limit_bytes / _GIB:g} GiB together (rule uploads); wait for the others to end, "
            "send less, or ask the admin for a larger limits.uploads",
            rules=("uploads",),
        )
