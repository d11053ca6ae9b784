"""The clock nobody can set."""

from __future__ import annotations

import time

from host.clock import boottime_ms, boottime_seconds


def test_it_is_the_time_since_boot() -> None:
    """Milliseconds and seconds of the same clock, going forward."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    milliseconds, seconds = boottime_ms(), boottime_seconds()
    assert before - 0.001 <= milliseconds / 1000 <= seconds
    assert seconds - before < 5
