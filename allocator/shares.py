"""How much of the GPUs each user has had lately: GPU-equivalents times seconds, old ones counting less. Pure.

What is used now counts in full, what was used a half-life ago half. The sum of a lease is the integral over its time, so
it does not matter how often it is looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from allocator.model import Lease, Moment
    from policy.model import Uid

HALF_LIFE_SECONDS = 7 * 86400.0
_AHEAD_SECONDS = 3600  # what somebody holds now counts as if it were held that much longer


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Of released leases: equivalent-seconds, decayed to `at`."""

    amount: float
    at: Moment


def used(usage: Usage | None, now: Moment, half_life_seconds: float = HALF_LIFE_SECONDS) -> float:
    """What is left of past usage."""
    if usage is None:
        return 0.0
    return usage.amount * math.exp2(-now.elapsed_since(usage.at) / half_life_seconds)


def of_lease(lease: Lease, now: Moment, half_life_seconds: float = HALF_LIFE_SECONDS) -> float:
    """What a lease comes to from when it took its devices to now, decayed."""
    rate = math.log(2) / half_life_seconds
    seconds = now.elapsed_since(lease.since)
    return float(lease.equivalents) * -math.expm1(-rate * seconds) / rate


def with_lease(
    usage: Usage | None, lease: Lease, now: Moment, half_life_seconds: float = HALF_LIFE_SECONDS
) -> Usage:
    """Past usage after a lease has ended now."""
    amount = used(usage, now, half_life_seconds) + of_lease(lease, now, half_life_seconds)
    return Usage(amount=amount, at=now)


def shares(
    owners: Collection[Uid],
    past: Mapping[Uid, Usage],
    live: Iterable[Lease],
    now: Moment,
    *,
    half_life_seconds: float = HALF_LIFE_SECONDS,
) -> dict[Uid, float]:
    """Past and present usage of each of these users."""
    found = {uid: used(past.get(uid), now, half_life_seconds) for uid in owners}
    for lease in live:
        if lease.owner_uid in found:
            present = of_lease(lease, now, half_life_seconds) + float(lease.equivalents) * _AHEAD_SECONDS
            found[lease.owner_uid] += present
    return found
