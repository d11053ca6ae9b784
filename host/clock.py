"""The clock that all processes of a host share and nobody can set: CLOCK_BOOTTIME, and which boot it counts."""

from __future__ import annotations

import time
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boottime_ms() -> int:
    """Milliseconds since boot, sleep included; the same in every process, untouched by clock changes."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def boot_id() -> str:
    """Which boot this is: a UUID, another after each start of the kernel. Raises: OSError."""
    return _BOOT_ID.read_text(encoding="ascii").strip()
