"""Users take turns: one user's many requests hold up that user and nobody else."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from policy.model import Uid
from socket_proxy.turns import CROWD, PAUSE_SECONDS, Turns

if TYPE_CHECKING:
    from collections.abc import Callable

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


async def test_the_turns_are_shared_among_those_who_have_work() -> None:
    """Alone a user has all of them; beside others a part, and at least one."""
    turns, now, most = Turns(most=4), Counter[Uid](), Counter[Uid]()

    async def one(uid: Uid) -> None:
        async with turns.of(uid):
            now[uid] += 1
            most[uid] = max(most[uid], now[uid])
            await asyncio.sleep(0)
            now[uid] -= 1

    async def all_of(*users: int) -> list[int]:
        most.clear()
        async with asyncio.TaskGroup() as group:
            for number in range(20 * len(users)):
                group.create_task(one(Uid(users[number % len(users)])))
        assert turns._working == {}
        return [most[Uid(user)] for user in users]

    assert await all_of(1) == [4]
    for users in range(2, 7):
        together = await all_of(*range(users))
        assert max(together[1:]) <= max(1, 4 // 2)
        assert min(together) >= 1


@pytest.fixture
async def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that are made, in seconds. None is waited for, and no time passes."""
    loop, made = asyncio.get_running_loop(), list[float]()

    def at_once(seconds: float, act: Callable[[Uid], None], uid: Uid) -> asyncio.Handle:
        made.append(seconds)
        return loop.call_soon(act, uid)

    monkeypatch.setattr(loop, "call_later", at_once)
    monkeypatch.setattr(Turns, "_now", staticmethod(lambda: 0.0))
    return made


async def served(turns: Turns, *, requests: int) -> int:
    """Let alice ask so many short things, all at once. Returns: how many were done."""
    done: list[tuple[Uid, int]] = []
    await asyncio.gather(*(work(turns, ALICE, done, number) for number in range(requests)))
    return len(done)


async def test_a_crowd_pauses_while_others_work(pauses: list[float]) -> None:
    """Hundreds of requests beside another user's: a pause after each, until few are left. Alone there is none."""
    turns = Turns(most=4)
    assert await served(turns, requests=500) == 500
    assert pauses == []
    async with turns.of(BOB):
        assert await served(turns, requests=500) == 500
    at_work = 2  # bob has the other half of the turns
    assert pauses == [PAUSE_SECONDS] * (500 - at_work - CROWD)


async def test_few_requests_never_pause(pauses: list[float]) -> None:
    """A tool that asks for a dozen things at once is no crowd, whoever else works."""
    turns = Turns(most=4)
    async with turns.of(BOB):
        assert await served(turns, requests=CROWD) == CROWD
    assert pauses == []


async def test_who_was_held_back_gets_room_when_others_leave() -> None:
    """Bob has no more work: alice's queue takes all turns again."""
    turns = Turns(most=4)
    await turns.take(BOB)
    alices = [asyncio.ensure_future(turns.take(ALICE)) for _ in range(6)]  # noqa: TID251  given back below
    await asyncio.sleep(0)
    assert sum(each.done() for each in alices) == 2
    turns.give(BOB)
    turns.give(ALICE)
    await asyncio.sleep(0)
    assert sum(each.done() for each in alices) == 5
    for _ in range(5):
        turns.give(ALICE)
    await asyncio.gather(*alices)
    assert turns._working == {}


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
