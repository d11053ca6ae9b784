"""CPUs in the form that a container has: the same limit, never more."""

from __future__ import annotations

import pytest

from policy.cpus import as_nano, as_quota, in_form_of

NOTHING = {"NanoCpus": 0, "CpuPeriod": 0, "CpuQuota": 0}
NANO = {**NOTHING, "NanoCpus": 10**9}
QUOTA = {**NOTHING, "CpuPeriod": 50_000, "CpuQuota": 50_000}
ASKED = {
    "cpus": ({"NanoCpus": 1_500_000_000, "Memory": 5}, (0, 100_000, 150_000), (1_500_000_000, 0, 0)),
    "quota": ({"CpuPeriod": 20_000, "CpuQuota": 10_000}, (0, 20_000, 10_000), (500_000_000, 0, 0)),
}


@pytest.mark.parametrize(("asked", "quota", "nano"), ASKED.values(), ids=ASKED)
def test_an_update_takes_the_form_that_the_container_has(
    asked: dict[str, int], quota: tuple[int, int, int], nano: tuple[int, int, int]
) -> None:
    """dockerd refuses the other one; all else of the update stays, and a container without either takes what is asked."""
    for has, expected in ((QUOTA, quota), (NANO, nano)):
        told = in_form_of(asked, has)
        assert tuple(told.get(name) or 0 for name in ("NanoCpus", "CpuPeriod", "CpuQuota")) == expected
        assert told.get("Memory") == asked.get("Memory")
    assert in_form_of(asked, NOTHING) is asked


def test_what_touches_no_cpus_stays() -> None:
    """So do zeros, which docker update sends for what was not asked."""
    for has in (NANO, QUOTA):
        for asked in ({"Memory": 5}, NOTHING):
            assert in_form_of(asked, has) is asked


@pytest.mark.parametrize("nano", [10_000_000, 333_333_333, 999_999_999, 10**9, 64 * 10**9])
def test_a_quota_is_never_more_than_was_asked(nano: int) -> None:
    """It is rounded down, and so is the way back."""
    assert nano - 10_000 < as_nano(quota_us=as_quota(nano), period_us=100_000) <= nano
