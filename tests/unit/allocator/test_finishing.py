"""What was begun comes to its end, whoever hung up."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from allocator.finishing import Finishing


async def test_a_transaction_is_awaited_though_its_caller_was_cancelled() -> None:
    """The cancellation is told only when the thread is done."""
    finishing, go, done = Finishing(), threading.Event(), threading.Event()

    def act() -> None:
        go.wait(5)
        done.set()

    task = asyncio.get_running_loop().create_task(finishing.durably(act))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.sleep(0.01)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
    finishing.close()


async def test_transactions_come_one_after_another() -> None:
    """In the order in which they were asked for, in one thread."""
    finishing, order, threads = Finishing(), list[int](), set[int]()

    def act(number: int) -> int:
        threads.add(threading.get_ident())
        order.append(number)
        return number

    found = await asyncio.gather(*(finishing.durably(partial(act, number)) for number in range(20)))
    assert found == order == list(range(20))
    assert len(threads) == 1
    finishing.close()


async def test_a_coroutine_goes_on_without_its_caller() -> None:
    """And `wait` knows of it; an error that nobody is left to hear does no harm."""
    finishing, go, done = Finishing(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        done.set()
        raise ValueError("nobody hears this")

    task = asyncio.get_running_loop().create_task(finishing.finish(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()
    await finishing.wait()
    assert done.is_set()
    finishing.close()


async def test_an_error_reaches_who_still_waits() -> None:
    """As it was raised, from a thread and from a coroutine."""
    finishing = Finishing()

    def refuse() -> None:
        raise KeyError("thread")

    async def fail() -> None:
        raise ValueError("loop")

    with pytest.raises(KeyError, match="thread"):
        await finishing.durably(refuse)
    with pytest.raises(ValueError, match="loop"):
        await finishing.finish(fail())
    finishing.close()
