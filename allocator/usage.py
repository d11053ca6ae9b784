"""How long and how much leases used devices, one row for each lease, device and hour: ready for accounting.

Time counts while the server is up and the lease is held, also while no ds01 runs: each lease has a cursor in the
ledger up to which its time is written, so that nothing is counted twice or left out by a restart or a crash. What a
crash of the whole server takes is the time since the last tick.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from allocator.model import Moment
from policy.model import DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping

    from allocator.ledger import Ledger
    from allocator.readings import Measures

_MEASURED_MS: Final = 15_000  # a look says nothing of what went on longer ago
_MOST_HOURS: Final = 24 * 366  # of one interval: a clock that is wrong by years makes no endless list


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What one lease used of one device in one hour of one boot.

    hour: UTC, "2026-01-31T13". begin_utc to end_utc, begin_ms to end_ms: first and last moment counted.
    utilisation_percent: mean over the time for which it was known; None: it never was, as on MIG devices.
    memory_max_mib: None: never known. energy_mj: of the whole GPU; None: never known, as on MIG devices.
    """

    lease: LeaseId
    device: DeviceUuid
    hour: str
    begin_utc: str
    begin_ms: int
    end_utc: str
    end_ms: int
    boot_id: str
    gpu_seconds: float
    utilisation_percent: float | None
    memory_max_mib: int | None
    energy_mj: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of an interval that lies in one hour."""

    hour: str
    begin_utc: str
    begin_ms: int
    end_utc: str
    end_ms: int


def pieces(begin_ms: int, end: Moment) -> Iterator[Piece]:
    """An interval of this boot cut at the hours of UTC, which is taken from its end: a clock that jumps loses no time.

    Empty when it is no interval: `begin_ms` is not before `end`.
    """
    here = datetime.fromisoformat(end.utc)
    for _ in range(_MOST_HOURS):
        if begin_ms >= end.boottime_ms:
            return
        now = here - timedelta(milliseconds=end.boottime_ms - begin_ms)
        next_hour = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        # Rounded up, so that a piece is never empty: microseconds do not add up to a loop.
        left_ms = max(1, -(-(next_hour - now) // timedelta(milliseconds=1)))
        end_ms = min(end.boottime_ms, begin_ms + left_ms)
        yield Piece(
            hour=now.astimezone(UTC).strftime("%Y-%m-%dT%H"),
            begin_utc=_utc(now),
            begin_ms=begin_ms,
            end_utc=_utc(now + timedelta(milliseconds=end_ms - begin_ms)),
            end_ms=end_ms,
        )
        begin_ms = end_ms


def energy_used(before_mj: int | None, now_mj: int | None) -> int | None:
    """Between two readings of a counter; a decrease means that the driver was loaded again and it began at 0."""
    if before_mj is None or now_mj is None:
        return None
    return now_mj - before_mj if now_mj >= before_mj else now_mj


class UsageRecords:
    """Tables of the ledger: every method is one transaction. Raises from all: LedgerUnavailable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def tick(self, measured: Mapping[DeviceUuid, Measures], now: Moment) -> None:
        """Write what was used up to now, or up to its release.

        Args: measured: of the latest look; devices that are missing are unknown, and their time counts all the same.
        """
        cursors = self._ledger.read(
            "SELECT c.lease, c.device, c.boottime_ms, c.boot_id, c.energy_mj,"
            " l.owner_uid, d.live, l.changed_utc, l.changed_ms, l.changed_boot"
            " FROM lease_usage_cursors AS c JOIN leases AS l ON l.id = c.lease"
            " JOIN lease_devices AS d ON d.lease = c.lease AND d.device = c.device"
        )
        if not cursors:
            return
        with self._ledger.transaction() as base:
            for cursor in cursors:
                _advance(base, cursor, measured, now)

    def of_lease(self, lease: LeaseId) -> tuple[Usage, ...]:
        """Oldest first, by device within an hour."""
        rows = self._ledger.read(
            "SELECT lease, device, hour, begin_utc, begin_ms, end_utc, end_ms, boot_id, held_ms, measured_ms,"
            " percent_ms, memory_max_mib, energy_mj FROM lease_usage WHERE lease = ? ORDER BY hour, begin_utc, device",
            lease,
        )
        return tuple(_usage(row) for row in rows)

    def gpu_seconds(self, since_hour: str = "") -> Mapping[Uid, float]:
        """By user, in the hours from `since_hour` on ("2026-01-31T13", UTC). Every device counts as one."""
        rows = self._ledger.read(
            "SELECT owner_uid, sum(held_ms) FROM lease_usage WHERE hour >= ? GROUP BY owner_uid",
            since_hour,
        )
        return {Uid(int(uid)): held_ms / 1000 for uid, held_ms in rows}


def _advance(
    base: sqlite3.Connection, cursor: tuple[Any, ...], measured: Mapping[DeviceUuid, Measures], now: Moment
) -> None:
    lease, device, from_ms, from_boot, from_mj, owner, live, utc, ms, boot = cursor
    end = now if live else Moment(utc=utc, boottime_ms=ms, boot_id=boot)
    # In another boot, only the time since that one's start is known to have been up.
    begin_ms = from_ms if from_boot == end.boot_id else 0
    seen = measured.get(DeviceUuid(device)) if live else None
    parts = tuple(pieces(begin_ms, end))
    energy_mj = None if seen is None else energy_used(from_mj, seen.energy_mj)
    for part in parts:
        last = part is parts[-1]
        _add(
            base,
            (lease, device, end.boot_id, owner),
            part,
            seen if last else None,
            energy_mj if last else None,
        )
    if not live:
        base.execute("DELETE FROM lease_usage_cursors WHERE lease = ? AND device = ?", (lease, device))
    elif parts:
        counter = from_mj if seen is None or seen.energy_mj is None else seen.energy_mj
        base.execute(
            "UPDATE lease_usage_cursors SET boottime_ms = ?, boot_id = ?, energy_mj = ? WHERE lease = ? AND device = ?",
            (end.boottime_ms, end.boot_id, counter, lease, device),
        )


def _add(
    base: sqlite3.Connection,
    key: tuple[str, str, str, int],
    part: Piece,
    seen: Measures | None,
    energy_mj: int | None,
) -> None:
    held_ms = part.end_ms - part.begin_ms
    measured_ms = min(held_ms, _MEASURED_MS)
    percent = None if seen is None else seen.utilisation_percent
    base.execute(
        "INSERT INTO lease_usage (lease, device, boot_id, owner_uid, hour, begin_utc, begin_ms, end_utc, end_ms, held_ms, measured_ms,"
        " percent_ms, memory_max_mib, energy_mj) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (lease, device, hour, boot_id) DO UPDATE SET"
        " end_utc = excluded.end_utc, end_ms = excluded.end_ms, held_ms = held_ms + excluded.held_ms,"
        " measured_ms = measured_ms + excluded.measured_ms, percent_ms = percent_ms + excluded.percent_ms,"
        " memory_max_mib = coalesce(max(memory_max_mib, excluded.memory_max_mib), memory_max_mib,"
        " excluded.memory_max_mib),"
        " energy_mj = coalesce(energy_mj + excluded.energy_mj, energy_mj, excluded.energy_mj)",
        (
            *key,
            *(part.hour, part.begin_utc, part.begin_ms, part.end_utc, part.end_ms, held_ms),
            *((0, 0.0) if percent is None else (measured_ms, percent * measured_ms)),
            None if seen is None else seen.memory_used_mib,
            energy_mj,
        ),
    )


def _usage(row: tuple[Any, ...]) -> Usage:
    (
        lease,
        device,
        hour,
        begin_utc,
        begin_ms,
        end_utc,
        end_ms,
        boot,
        held,
        measured,
        percent,
        memory,
        energy,
    ) = row
    return Usage(
        lease=LeaseId(lease),
        device=DeviceUuid(device),
        hour=hour,
        begin_utc=begin_utc,
        begin_ms=begin_ms,
        end_utc=end_utc,
        end_ms=end_ms,
        boot_id=boot,
        gpu_seconds=held / 1000,
        utilisation_percent=percent / measured if measured else None,
        memory_max_mib=memory,
        energy_mj=energy,
    )


def _utc(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
