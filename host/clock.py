"""The clock that all processes of a host share and nobody can set: CLOCK_BOOTTIME."""

from __future__ import annotations

import time


def boottime_ms() -> int:
    """Milliseconds since boot, sleep included; the same in every process, untouched by clock changes."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
