"""The clock nobody can set."""

from __future__ import annotations

import time
from uuid import UUID

from host.clock import boot_id, boottime_ms


def test_it_is_the_time_since_boot() -> None:
    """In milliseconds, going forward."""
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    milliseconds = boottime_ms()
    assert before - 0.001 <= milliseconds / 1000 < before + 5


def test_a_boot_has_one_name() -> None:
    """A UUID, the same as long as the kernel runs."""
    assert str(UUID(boot_id())) == boot_id()
