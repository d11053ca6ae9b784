"""What the ledger keeps of devices: their generations, quarantines with who, when and why, and errors; and what holders were told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.health import Fitness, XidClass, worse
from allocator.model import Moment
from policy.model import DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection, Mapping

    from allocator.ledger import Ledger

_MOST_ERRORS: Final = 1000  # kept for each device
_COLUMNS: Final = (
    "device, fitness, began_by, automatic, why, began_utc, began_ms, began_boot, ended_boot IS NOT NULL"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Why a device is not leased. automatic: ds01 saw the reason itself, and holders have lost the device."""

    device: DeviceUuid
    fitness: Fitness  # DRAIN or QUARANTINE
    by: str
    automatic: bool
    why: str
    began: Moment
    ended: bool = False


class DeviceRecords:
    """Tables of the ledger: every method is one transaction. Raises from all: LedgerUnavailable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def observe(
        self,
        shapes: Mapping[DeviceUuid, str],
        *,
        complete: bool = True,
        awaited: Collection[DeviceUuid] = (),
    ) -> Mapping[DeviceUuid, int]:
        """Remember which devices are there; one that had gone, or has another shape, is of the next generation.

        Args:
            shapes: by UUID, what a device with that UUID may change in: MIG UUIDs follow the place alone, so that
                another profile at the same place has the same one. "" is not known, and no change.
            complete: whether what is missing has gone. A reboot is no change: its holder keeps a lease.
            awaited: what a reboot took and is being made again: missing, it has not gone.
        """
        rows = self._ledger.read("SELECT uuid, generation, present, shape FROM devices")
        known = {DeviceUuid(row[0]): (int(row[1]), bool(row[2]), row[3] or "") for row in rows}
        here = {*shapes, *awaited}
        gone = [uuid for uuid, (_, there, _) in known.items() if complete and there and uuid not in here]
        seen = {uuid: _seen(known.get(uuid), shape) for uuid, shape in shapes.items()}
        changed = [(uuid, *row) for uuid, row in seen.items() if known.get(uuid) != (row[0], True, row[1])]
        if gone or changed:
            with self._ledger.transaction() as base:
                base.executemany("UPDATE devices SET present = 0 WHERE uuid = ?", [(uuid,) for uuid in gone])
                base.executemany(
                    "INSERT INTO devices (uuid, generation, present, shape) VALUES (?, ?, 1, ?)"
                    " ON CONFLICT (uuid) DO UPDATE SET"
                    " generation = excluded.generation, present = 1, shape = excluded.shape",
                    changed,
                )
        return {uuid: row[0] for uuid, row in seen.items()}

    def is_known(self, device: DeviceUuid) -> bool:
        """Whether it was ever there."""
        return bool(self._ledger.read("SELECT 1 FROM devices WHERE uuid = ?", device))

    def quarantines(self) -> Mapping[DeviceUuid, Quarantine]:
        """Those that last."""
        rows = self._ledger.read(f"SELECT {_COLUMNS} FROM quarantines WHERE ended_utc IS NULL")  # noqa: S608  constants
        return {DeviceUuid(row[0]): _quarantine(row) for row in rows}

    def history(self, device: DeviceUuid) -> tuple[Quarantine, ...]:
        """All of one device, oldest first."""
        all_of_one = f"SELECT {_COLUMNS} FROM quarantines WHERE device = ? ORDER BY number"  # noqa: S608  constants
        rows = self._ledger.read(all_of_one, device)
        return tuple(_quarantine(row) for row in rows)

    def released_here(self, device: DeviceUuid, boot_id: str) -> str | None:
        """Why the last quarantine of a device was begun, if it was ended in this boot."""
        rows = self._ledger.read(
            "SELECT why, ended_boot FROM quarantines WHERE device = ? ORDER BY number DESC LIMIT 1", device
        )
        return str(rows[0][0]) if rows and rows[0][1] == boot_id else None

    def quarantine(self, wanted: Quarantine) -> bool:
        """Begin one; a milder one of the same device gives way. False: one that is as strict lasts already."""
        last = self.quarantines().get(wanted.device)
        if last is not None and not worse(wanted.fitness, last.fitness):
            return False
        with self._ledger.transaction() as base:
            _end(base, wanted.device, wanted.by, f"worse: {wanted.why}", wanted.began)
            base.execute(
                "INSERT INTO quarantines (device, fitness, began_by, automatic, why, began_utc, began_ms, began_boot)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(wanted.device, wanted.fitness, wanted.by, int(wanted.automatic), wanted.why),
                    *(wanted.began.utc, wanted.began.boottime_ms, wanted.began.boot_id),
                ),
            )
        return True

    def release(self, device: DeviceUuid, *, by: str, why: str, now: Moment) -> bool:
        """End the quarantine of a device. False: there is none."""
        with self._ledger.transaction() as base:
            return _end(base, device, by, why, now) > 0

    def note_error(
        self, device: DeviceUuid, xid: int, kind: XidClass, *, owner: Uid | None, now: Moment
    ) -> None:
        """Remember an error; only the latest of a device are kept."""
        with self._ledger.transaction() as base:
            base.execute(
                "INSERT INTO device_errors (utc, boottime_ms, boot_id, device, xid, kind, owner_uid)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (now.utc, now.boottime_ms, now.boot_id, device, xid, kind, owner),
            )
            base.execute(
                "DELETE FROM device_errors WHERE device = ? AND number <= (SELECT number FROM device_errors"
                " WHERE device = ? ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (device, device, _MOST_ERRORS),
            )

    def fault_owners(self, device: DeviceUuid, *, seconds: int, now: Moment) -> tuple[Uid | None, ...]:
        """Whose each error of a program was in the last `seconds` of this boot; None: nobody held the device."""
        rows = self._ledger.read(
            "SELECT owner_uid FROM device_errors WHERE device = ? AND kind = ? AND boot_id = ? AND boottime_ms > ?",
            *(device, XidClass.USER_JOB, now.boot_id, now.boottime_ms - seconds * 1000),
        )
        return tuple(None if uid is None else Uid(int(uid)) for (uid,) in rows)

    def notes(self) -> Mapping[LeaseId, str]:
        """What the holders of live leases were told last."""
        rows = self._ledger.read("SELECT lease, note FROM lease_notes")
        return {LeaseId(lease): str(note) for lease, note in rows}

    def tell(self, lease: LeaseId, note: str, now: Moment) -> None:
        """Leave a note for a holder, in place of an earlier one."""
        with self._ledger.transaction() as base:
            base.execute("INSERT OR REPLACE INTO lease_notes VALUES (?, ?, ?)", (lease, now.utc, note))

    def forget_notes(self, leases: Collection[LeaseId]) -> None:
        """Of leases that are over."""
        with self._ledger.transaction() as base:
            base.executemany("DELETE FROM lease_notes WHERE lease = ?", [(lease,) for lease in leases])


def _seen(known: tuple[int, bool, str] | None, shape: str) -> tuple[int, str]:
    """Generation and shape of a device that is there now."""
    if known is None:
        return 1, shape
    generation, there, before = known
    reshaped = bool(shape and before) and shape != before
    return generation + (not there or reshaped), shape or before


def _end(base: sqlite3.Connection, device: DeviceUuid, by: str, why: str, now: Moment) -> int:
    done = base.execute(
        "UPDATE quarantines SET ended_utc = ?, ended_ms = ?, ended_boot = ?, ended_by = ?, ended_why = ?"
        " WHERE device = ? AND ended_utc IS NULL",
        (now.utc, now.boottime_ms, now.boot_id, by, why, device),
    )
    return done.rowcount


def _quarantine(row: tuple[str, str, str, int, str, str, int, str, int]) -> Quarantine:
    return Quarantine(
        device=DeviceUuid(row[0]),
        fitness=Fitness(row[1]),
        by=row[2],
        automatic=bool(row[3]),
        why=row[4],
        began=Moment(utc=row[5], boottime_ms=row[6], boot_id=row[7]),
        ended=bool(row[8]),
    )
