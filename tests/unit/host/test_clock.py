"""The clock nobody can set."""

from __future__ import annotations

import time

from host.clock import boottime_ms


def test_it_is_the_time_since_boot() -> None:
    """In milliseconds, going forward."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    milliseconds = boottime_ms()
    assert before - 0.001 <= milliseconds / 1000 < before + 5
