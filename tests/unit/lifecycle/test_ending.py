"""What is due of a lease because of its time: when to warn, when to report, and never a stop too early."""

from __future__ import annotations

import pytest

from lifecycle.ending import Due, Step, Told, due
from policy.grants import TimeOver
from tests.fakes.ending import lease

NOW = 10_000_000
TIMES = (1800, 300)
HOURS = 8 * 3600


def told(first_seconds_ago: float, least: int, seconds: int = HOURS) -> Told:
    return Told(seconds=seconds, first_ms=NOW - int(first_seconds_ago * 1000), least_seconds=least)


def of(
    left: int | None,
    before: Told | None = None,
    rule: TimeOver = TimeOver.STOP,
    times: tuple[int, ...] = TIMES,
    **changes: object,
) -> Due:
    return due(lease(left_seconds=left, **changes), before, rule, warn_seconds=times, now_ms=NOW)


@pytest.mark.parametrize(
    ("left", "before", "step", "warned"),
    [
        pytest.param(1801, None, Step.NOTHING, None, id="before the first"),
        pytest.param(1800, None, Step.WARN, 1800, id="at the first"),
        pytest.param(1700, told(100, 1800), Step.NOTHING, None, id="each once"),
        pytest.param(300, told(1500, 1800), Step.WARN, 300, id="at the second"),
        pytest.param(299, told(1501, 300), Step.NOTHING, None, id="which is the last"),
        pytest.param(0, told(1800, 300), Step.NOTHING, None, id="0 may be a moment before the end"),
        pytest.param(-1, told(1801, 300), Step.STOP, None, id="over"),
        pytest.param(-9, told(3, 300), Step.NOTHING, None, id="over, and warned only a moment ago"),
    ],
)
def test_each_step_has_its_time(left: int, before: Told | None, step: Step, warned: int | None) -> None:
    """Warnings at their times, each once, and the stop after the end."""
    found = of(left, before)
    assert (found.step, found.warned_seconds) == (step, warned)


@pytest.mark.parametrize("left", [-1, -7 * 86400])
def test_who_is_over_unwarned_has_the_longest_time_of_a_warning(left: int) -> None:
    """As on the day of an upgrade: first a warning, the second in its turn, and the stop half an hour later."""
    first = of(left)
    assert (first.step, first.warned_seconds, first.stop_in_seconds) == (Step.WARN, 1800, 1800)
    assert of(left, told(1499, 1800)).step is Step.NOTHING
    assert (of(left, told(1500, 1800)).step, of(left, told(1500, 1800)).warned_seconds) == (Step.WARN, 300)
    assert of(left, told(1799, 300)).step is Step.NOTHING
    assert of(left, told(1800, 300)).step is Step.STOP


def test_a_short_lease_is_no_longer_than_it_says() -> None:
    """Twenty seconds were asked for: the warning comes at once, and the stop no half hour later."""
    assert (of(20, seconds=20).step, of(20, seconds=20).stop_in_seconds) == (Step.WARN, 20)
    assert of(-1, told(21, 300, seconds=20), seconds=20).step is Step.STOP


def test_without_warnings_the_end_is_the_end() -> None:
    """An admin may want none."""
    assert of(0, times=()).step is Step.NOTHING
    assert of(-1, times=()).step is Step.STOP


def test_more_time_is_another_end() -> None:
    """What was said of the old one does not count, and its warnings come again."""
    assert of(1800, told(7200, 300), seconds=HOURS + 7200).step is Step.WARN
    assert of(-1, told(7200, 300), seconds=HOURS + 7200).step is Step.WARN


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"seconds": None, "left_seconds": None}, id="no end"),
        pytest.param({"container": None}, id="no container"),
        *[
            pytest.param({"state": state}, id=state)
            for state in ("pending", "bound", "held", "released", "?")
        ],
    ],
)
def test_what_has_no_end_or_does_not_run_is_left_alone(changes: dict[str, object]) -> None:
    """Whatever was said of it, in whatever state that ds01 does not know to be one of running."""
    for rule in TimeOver:
        values = {"seconds": HOURS, "left_seconds": -9, **changes}
        found = due(lease(**values), told(9999, 300), rule, warn_seconds=TIMES, now_ms=NOW)
        assert found == Due(step=Step.NOTHING)


def test_a_lost_device_keeps_nobody_running() -> None:
    """Time goes on for a lease whose device has gone: its container may run."""
    assert of(-1, told(1800, 300), state="lost").step is Step.STOP


def test_report_warns_nobody_and_reports_once() -> None:
    """Nobody is told of a stop that does not come."""
    assert of(10, rule=TimeOver.REPORT).step is Step.NOTHING
    assert of(-1, rule=TimeOver.REPORT).step is Step.REPORT
    assert of(-1, Told(seconds=HOURS, reported=True), rule=TimeOver.REPORT).step is Step.NOTHING
    assert of(-1, told(1800, 300), rule=TimeOver.REPORT).step is Step.REPORT


def test_after_report_a_stop_is_warned_of_first() -> None:
    """The policy changed while the container was overdue."""
    assert of(-99, Told(seconds=HOURS, reported=True)).step is Step.WARN


@pytest.mark.parametrize(
    ("left", "before", "again"),
    [(7200, None, 5400), (1800, None, 1500), (1700, told(100, 1800), 1400), (300, told(1500, 1800), 301)],
)
def test_it_says_when_to_look_again(left: int, before: Told | None, again: int) -> None:
    """At the next warning, or just after the stop is due."""
    assert of(left, before).again_seconds == again
