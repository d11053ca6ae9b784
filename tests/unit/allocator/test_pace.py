"""When the next sweep begins, by a clock that only resting moves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable


class Day:
    """Seconds pass only while somebody rests, and after each pause something may happen."""

    def __init__(self) -> None:
        self.ms = 0
        self.happens: Callable[[], None] = lambda: None
        self.pace = Pace(interval_seconds=5, clock=self.now, pause=self.pause)

    def now(self) -> float:
        return self.ms / 1000

    async def pause(self, seconds: float) -> None:
        self.ms += max(1, round(seconds * 1000))
        self.happens()

    async def rest_ms(self) -> int:
        """How long the rest after a sweep is."""
        self.pace.begin()
        began = self.ms
        await self.pace.rest()
        return self.ms - began


@pytest.fixture
def day() -> Day:
    return Day()


async def test_nobody_watches(day: Day) -> None:
    """Every interval."""
    assert [await day.rest_ms() for _ in range(3)] == [5000] * 3


async def test_who_watches_has_a_sweep_every_second_for_a_while(day: Day) -> None:
    """For ten seconds after the last look; then it is as before."""
    day.pace.watch()
    assert [await day.rest_ms() for _ in range(9)] == [1000] * 9
    assert [await day.rest_ms() for _ in range(2)] == [5000] * 2


@pytest.mark.parametrize(("comes_ms", "rest_ms"), [(3000, 3000), (400, 1000)])
async def test_who_comes_in_the_middle_of_a_rest_shortens_it(day: Day, comes_ms: int, rest_ms: int) -> None:
    """To what it is already, where that is a second or more; else to a second."""

    def come() -> None:
        if day.ms == comes_ms:
            day.pace.watch()

    day.happens = come
    assert await day.rest_ms() == rest_ms


async def test_nobody_drives_it_faster(day: Day) -> None:
    """However often it is looked, a second lies between two sweeps."""

    def look() -> None:
        for _ in range(100):
            day.pace.watch()

    day.happens = look
    day.pace.watch()
    assert [await day.rest_ms() for _ in range(20)] == [1000] * 20


@pytest.mark.parametrize("watched", [True, False])
async def test_what_is_given_back_is_looked_at_soon(day: Day, watched: bool) -> None:
    """At the next glance, and a fifth of a second after a sweep during which it was given back; then it is as before."""
    if watched:
        day.pace.watch()

    def give_back() -> None:
        if day.ms == 600:
            day.pace.hurry()

    day.happens = give_back
    assert await day.rest_ms() == 600
    day.pace.begin()
    day.pace.hurry()
    began = day.ms
    await day.pace.rest()
    assert day.ms - began == 200
    assert await day.rest_ms() == (1000 if watched else 5000)


async def test_an_interval_below_a_second_stays(day: Day) -> None:
    """Watching never makes it rarer."""
    day.pace = Pace(interval_seconds=0.5, clock=day.now, pause=day.pause)
    day.pace.watch()
    assert await day.rest_ms() == 500
