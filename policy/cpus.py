"""A limit of CPUs in the two forms that dockerd has: NanoCpus, or a quota of each period. A container keeps its form.

SOURCE: moby 20.10 to 28.5, container.UpdateContainer: NanoCpus over a container with a period or quota is refused as a
conflict, and so is the other way round. Docker's reference calls `--cpus 1.5` the same as
`--cpu-period 100000 --cpu-quota 150000`.
"""

from __future__ import annotations

from collections.abc import Mapping

from policy.fields import as_int
from policy.model import Json

PERIOD_US = 100_000  # dockerd's default length of a CPU period
LEAST_QUOTA_US = 1000  # the kernel takes no less
_NANOS = 1_000_000_000  # of one CPU


def as_nano(*, quota_us: int, period_us: int) -> int:
    """NanoCpus of a quota; both above 0. Rounded down, so that a limit is never passed."""
    return quota_us * _NANOS // period_us


def as_quota(nano: int) -> int:
    """Microseconds of each `PERIOD_US`, rounded down, but for the kernel's least."""
    return max(LEAST_QUOTA_US, nano * PERIOD_US // _NANOS)


def in_form_of(asked: Mapping[str, Json], has: Mapping[str, Json]) -> Mapping[str, Json]:
    """An update in the form that the container has; the same object if it is, or touches no CPUs.

    Args:
        asked: the body of a ContainerUpdate as it is written: one form, bounded, a quota never without its period.
        has: HostConfig of the container now.
    """
    nano, quota, period = _forms(asked)
    has_nano, has_quota, has_period = _forms(has)
    if nano > 0 and (has_quota > 0 or has_period > 0):
        return {**asked, "NanoCpus": 0, "CpuPeriod": PERIOD_US, "CpuQuota": as_quota(nano)}
    if quota > 0 and period > 0 and has_nano > 0:
        as_one = as_nano(quota_us=quota, period_us=period)
        return {**asked, "NanoCpus": as_one, "CpuPeriod": 0, "CpuQuota": 0}
    return asked


def _forms(config: Mapping[str, Json]) -> tuple[int, int, int]:
    nano, quota, period = (as_int(config.get(name)) for name in ("NanoCpus", "CpuQuota", "CpuPeriod"))
    return nano, quota, period
