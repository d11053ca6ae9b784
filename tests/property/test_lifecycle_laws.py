"""Laws of time limits, over whole lives of a lease that is looked at now and then."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from lifecycle.ending import Step, Told, due
from policy.grants import TimeOver
from tests.fakes.ending import lease

START_MS = 7_000_000
SECONDS = st.integers(1, 20_000)


@given(
    length=SECONDS,
    times=st.lists(st.integers(1, 4000), max_size=4, unique=True),
    first_look=st.integers(0, 40_000),
    pauses=st.lists(st.integers(1, 900), max_size=200),
)
def test_a_stop_is_after_the_end_and_after_its_warnings(
    length: int, times: list[int], first_look: int, pauses: list[int]
) -> None:
    """Never before the end; never sooner after the first warning than promised; each warning once, longest first; and it comes."""
    at, told, warned = float(first_look), None, list[tuple[float, int]]()
    stopped = None
    notice = min(max(times), length) if times else 0
    for pause in [*pauses, *[1] * 5, 100_000, *[100_000] * (len(times) + 1)]:
        view = lease(seconds=length, left_seconds=int(length - at))
        found = due(view, told, TimeOver.STOP, warn_seconds=times, now_ms=START_MS + int(at * 1000))
        if found.step is Step.WARN:
            assert found.warned_seconds is not None
            warned.append((at, found.warned_seconds))
            known = told or Told(seconds=length, first_ms=START_MS + int(at * 1000))
            told = replace(known, least_seconds=found.warned_seconds)
        elif found.step is Step.STOP:
            stopped = at
            break
        else:
            assert found.again_seconds is not None
            assert found.again_seconds > 0
        at += pause
    assert stopped is not None
    assert stopped > length
    assert bool(warned) == bool(times)
    if warned:
        assert stopped >= warned[0][0] + notice
        said = [time for _, time in warned]
        assert said == sorted(set(said), reverse=True)


@given(
    length=SECONDS, left=st.integers(-100_000, 20_000), first=st.integers(0, 10_000), times=st.sets(SECONDS)
)
def test_under_report_nothing_is_stopped_and_nobody_warned(
    length: int, left: int, first: int, times: set[int]
) -> None:
    """Whatever was said before."""
    told = Told(seconds=length, first_ms=START_MS - first * 1000, least_seconds=1)
    view = lease(seconds=length, left_seconds=left)
    found = due(view, told, TimeOver.REPORT, warn_seconds=times, now_ms=START_MS)
    assert found.step in (Step.NOTHING, Step.REPORT)
