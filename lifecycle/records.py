"""What users were told, kept over a restart of the daemon: one small file.

It is of one boot, since it counts by CLOCK_BOOTTIME. After a reboot, or where it cannot be read, nobody was told anything:
who is over then is warned anew and has the time of a warning, which also gives a wrong clock time to be set right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from host.files import FileUntrusted, read_trusted, write_atomic
from lifecycle.ending import Told
from observability import events
from observability.logging import log
from policy.model import LeaseId

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


class _File(msgspec.Struct, forbid_unknown_fields=True):
    boot_id: str
    leases: dict[LeaseId, Told]


class Records:
    """What was told, by lease. One task uses it."""

    def __init__(self, path: Path, *, boot_id: str, owners: frozenset[int] = frozenset({0})) -> None:
        """Read `path`, which only `owners` may have written."""
        self._path = path
        self._boot_id = boot_id
        self._told = _load(path, boot_id, owners)
        self._unkept = False

    def get(self, lease: LeaseId) -> Told | None:
        """What was told of this lease; None: nothing."""
        return self._told.get(lease)

    def put(self, lease: LeaseId, told: Told) -> None:
        """Remember it, on disk too where that can be had: if not, a restart of the daemon warns again."""
        self._told[lease] = told
        self._write()

    def keep(self, leases: Collection[LeaseId]) -> None:
        """Forget every lease that is not among these."""
        gone = self._told.keys() - set(leases)
        for lease in gone:
            del self._told[lease]
        if gone:
            self._write()

    def _write(self) -> None:
        content = msgspec.json.encode(_File(boot_id=self._boot_id, leases=self._told))
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self._path, content, durable=False)  # of this boot: a power loss ends its purpose
        except OSError as error:
            if not self._unkept:
                log(events.WARNINGS_UNKEPT, path=str(self._path), problem=str(error))
            self._unkept = True
        else:
            self._unkept = False


def _load(path: Path, boot_id: str, owners: frozenset[int]) -> dict[LeaseId, Told]:
    try:
        file = msgspec.json.decode(read_trusted(path, owners=owners), type=_File)
    except FileNotFoundError:
        return {}
    except (OSError, FileUntrusted, ValueError) as error:  # ValueError: msgspec's own, or no text
        log(events.WARNINGS_UNKEPT, path=str(path), problem=str(error))
        return {}
    return file.leases if file.boot_id == boot_id else {}
