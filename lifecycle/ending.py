"""What is due for one lease because of its time: pure, `time_limits` carries it out.

A lease is warned of at stated times before its stop. Nobody is stopped without a warning: the stop comes no sooner than the
longest of these times after the first warning, or than the whole time of the lease where that is shorter. So who was over
before anybody could warn (the daemon was down, or is new on this server) still has that long.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from policy.grants import TimeOver

if TYPE_CHECKING:
    from collections.abc import Collection

    from lifecycle.ports import Lease

RUNNING = frozenset({"active", "lost"})  # SOURCE: allocator.model: the states in which a container may run


class Step(StrEnum):
    """What to do now."""

    NOTHING = "nothing"
    WARN = "warn"
    REPORT = "report"  # it is over, and policy lets it go on
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What was said of a lease's time so far.

    seconds: how long the lease lasted then; of another length it is another end, and nothing was said of that.
    first_ms: CLOCK_BOOTTIME of the first warning. least_seconds: the last of the times before the stop that was warned of.
        None: no warning yet.
    """

    seconds: int
    first_ms: int | None = None
    least_seconds: int | None = None
    reported: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One step. stop_in_seconds: until the stop. warned_seconds: the time before the stop that a warning is for.

    again_seconds: when to look at this lease again at the latest; None: when something else calls for it.
    """

    step: Step
    stop_in_seconds: float = 0
    warned_seconds: int | None = None
    again_seconds: float | None = None


def due(
    lease: Lease, told: Told | None, rule: TimeOver, *, warn_seconds: Collection[int], now_ms: int
) -> Due:
    """What is due for a lease that was read just now.

    Args: told: of this boot. warn_seconds: the times before the stop; empty: no warnings, and no time for them.
    """
    if lease.seconds is None or lease.left_seconds is None:
        return Due(step=Step.NOTHING)
    if lease.container is None or lease.state not in RUNNING:
        return Due(step=Step.NOTHING)
    known = told if told is not None and told.seconds == lease.seconds else Told(seconds=lease.seconds)
    if rule is TimeOver.REPORT:
        over = lease.left_seconds < 0
        step = Step.REPORT if over and not known.reported else Step.NOTHING
        return Due(step=step, again_seconds=None if over else lease.left_seconds + 1)
    return _towards_stop(lease.left_seconds, known, sorted(warn_seconds), now_ms)


def _towards_stop(left_seconds: int, told: Told, times: list[int], now_ms: int) -> Due:
    notice = min(times[-1], told.seconds) if times else 0
    waited = 0.0 if told.first_ms is None else (now_ms - told.first_ms) / 1000
    stop_in = max(float(left_seconds), notice - waited)
    said = float("inf") if told.least_seconds is None else told.least_seconds
    ahead = [time for time in times if time < said]
    reached = [time for time in ahead if stop_in <= time]
    if reached:
        later = [time for time in ahead if time < reached[0]]
        again = stop_in - later[-1] if later else stop_in + 1
        return Due(
            step=Step.WARN, stop_in_seconds=max(0.0, stop_in), warned_seconds=reached[0], again_seconds=again
        )
    if left_seconds < 0 and stop_in <= 0:
        return Due(step=Step.STOP)
    again = stop_in - ahead[-1] if ahead else stop_in + 1
    return Due(step=Step.NOTHING, stop_in_seconds=max(0.0, stop_in), again_seconds=again)
