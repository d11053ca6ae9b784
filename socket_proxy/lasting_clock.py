"""A clock for ends that outlive processes and reboots: it never goes back, and setting the time of day does not move it.

Within a boot it is CLOCK_BOOTTIME. Over a reboot it goes on by what the time of day says has passed since the last mark, and
by at least the age of the new boot: so a time of day that was set back makes nothing last for ever. One that was set ahead
while the machine was off ends things early, which for a permission is the safe side.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from host import clock
from socket_proxy.records import Records

MARK_MS = (
    60_000  # how old a mark may grow: as much is lost to a power cut where the time of day cannot be believed
)


def _utc_ms() -> int:
    return time.time_ns() // 1_000_000


class LastingClock:
    """Milliseconds since the record was made, as far as they can be told."""

    def __init__(
        self,
        records: Records,
        *,
        boottime_ms: Callable[[], int] = clock.boottime_ms,
        boot_id: Callable[[], str] = clock.boot_id,
        utc_ms: Callable[[], int] = _utc_ms,
    ) -> None:
        """Go on from the last mark. Raises: RecordsUnavailable; OSError: the kernel does not name its boot."""
        self._records = records
        self._boottime_ms = boottime_ms
        self._boot = boot_id()
        self._utc_ms = utc_ms
        self._passed_ms = self._since_mark(records.clock())
        self._at_ms = boottime_ms()
        self._marked_ms = self._passed_ms - MARK_MS

    def _since_mark(self, mark: tuple[int, str, int, int] | None) -> int:
        if mark is None:
            return 0
        passed_ms, boot, boottime_ms, utc_ms = mark
        if boot == self._boot:
            return passed_ms + self._boottime_ms() - boottime_ms
        return passed_ms + max(self._boottime_ms(), self._utc_ms() - utc_ms)

    def now_ms(self) -> int:
        return self._passed_ms + self._boottime_ms() - self._at_ms

    def mark(self) -> None:
        """Put the present on record. Raises: RecordsUnavailable."""
        self._records.mark_clock(self.now_ms(), self._boot, self._boottime_ms(), self._utc_ms())
        self._marked_ms = self.now_ms()

    def mark_if_old(self) -> None:
        """Like `mark`, when the last one is older than MARK_MS."""
        if self.now_ms() - self._marked_ms >= MARK_MS:
            self.mark()
