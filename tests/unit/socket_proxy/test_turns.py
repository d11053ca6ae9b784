"""Users take turns: one user's many requests hold up that user and nobody else."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from policy.model import Uid
from socket_proxy.turns import Turns

ALICE, BOB = Uid(1001), Uid(1002)


async def work(turns: Turns, uid: Uid, done: list[tuple[Uid, int]], number: int) -> None:
    async with turns.of(uid):
        await asyncio.sleep(0)
        done.append((uid, number))


async def test_another_user_comes_first() -> None:
    """A hundred requests of alice's, and then one of bob's: his is among the first that are done."""
    turns, done = Turns(most=4), list[tuple[Uid, int]]()
    async with asyncio.TaskGroup() as group:
        for number in range(100):
            group.create_task(work(turns, ALICE, done, number))
        group.create_task(work(turns, BOB, done, 0))
    assert done.index((BOB, 0)) <= 4
    assert [number for uid, number in done if uid == ALICE] == list(range(100))


async def test_no_more_than_a_few_at_a_time() -> None:
    """Never more than the number, and with early ends never fewer than there is room for."""
    turns, now, most = Turns(most=3), 0, 0

    async def one(*, early: bool) -> None:
        nonlocal now, most
        async with turns.of(ALICE) as turn:
            now, most = now + 1, max(most, now + 1)
            await asyncio.sleep(0)
            now -= 1
            if early:
                turn.end()
                turn.end()  # once is enough
                await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for number in range(30):
            group.create_task(one(early=number % 2 == 0))
    assert (now, most) == (0, 3)
    assert turns._working == {}
    assert turns._waiting == {}


@pytest.mark.parametrize("when", ["while waiting", "as its turn comes"])
async def test_who_is_cancelled_keeps_no_turn(when: str) -> None:
    """The next in line gets it, whatever the moment."""
    turns = Turns(most=1)
    await turns.take(ALICE)
    first = asyncio.ensure_future(turns.take(ALICE))  # noqa: TID251  cancelled here
    second = asyncio.ensure_future(turns.take(ALICE))  # noqa: TID251  as above
    await asyncio.sleep(0)
    if when == "as its turn comes":
        turns.give(ALICE)
    first.cancel()
    with suppress(asyncio.CancelledError):
        await first
    if when == "while waiting":
        turns.give(ALICE)
    await asyncio.wait_for(second, 1)
    turns.give(ALICE)
    assert turns._working == {}
    assert turns._waiting == {}


async def test_an_error_ends_a_turn() -> None:
    """A request that fails leaves no turn behind."""
    turns = Turns(most=1)
    for _ in range(3):
        with pytest.raises(OSError, match="lost"):
            async with turns.of(ALICE):
                raise OSError("lost")
    assert turns._working == {}
