"""The allocator's side of the NVML process, with children that misbehave."""

from __future__ import annotations

import asyncio
import sys

import pytest

from allocator.model import InventoryUnavailable, Problem
from allocator.worker import NvmlWorker


def child(program: str, *, deadline_seconds: float = 5) -> NvmlWorker:
    return NvmlWorker(deadline_seconds=deadline_seconds, command=(sys.executable, "-c", program))


@pytest.mark.parametrize(
    "program",
    [
        pytest.param("", id="ends at once"),
        pytest.param("input(); print('x', end='')", id="ends within a line"),
        pytest.param("input(); print('x' * (1 << 21))", id="line without end"),
    ],
)
async def test_a_child_that_ends_is_an_outage_and_replaced(program: str) -> None:
    """Its end is told as an outage, and the next read starts another."""
    worker = child(program)
    for _ in range(2):
        with pytest.raises(InventoryUnavailable):
            await worker.read()
        assert worker._process is not None
        await asyncio.wait_for(worker._process.wait(), 5)
    await worker.close()


async def test_a_child_that_cannot_start_is_an_outage() -> None:
    """A missing program is told, not raised as an OSError."""
    with pytest.raises(InventoryUnavailable, match="cannot be started"):
        await NvmlWorker(deadline_seconds=1, command=("/nonexistent",)).read()


async def test_no_second_child_beside_a_stuck_one() -> None:
    """One that neither answers nor ends, as in a driver's uninterruptible sleep, is not joined by another."""
    program = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print('{}', flush=True); time.sleep(60)"
    )
    worker = child(program, deadline_seconds=2)
    with pytest.raises(InventoryUnavailable):
        await worker.read()  # its first line is no inventory; now SIGTERM is ignored for sure
    stuck = worker._process
    worker._deadline_seconds = 0.2
    with pytest.raises(InventoryUnavailable, match="did not answer"):
        await worker.read()
    with pytest.raises(InventoryUnavailable, match="does not answer"):
        await worker.read()
    assert worker._process is stuck
    assert stuck is not None
    assert stuck.returncode is None
    stuck.kill()
    await stuck.wait()


async def test_one_that_outlives_the_signal_ends_with_its_call() -> None:
    """A child to which SIGTERM never comes ends once its call has returned, and only then another is started."""
    program = (
        "import signal, sys, time; signal.signal(15, signal.SIG_IGN)\n"
        "for _ in sys.stdin: print('{}', flush=True); time.sleep(1)"
    )
    worker = child(program, deadline_seconds=5)
    with pytest.raises(InventoryUnavailable):
        await worker.read()  # its first line is no inventory; now SIGTERM is ignored for sure
    stuck = worker._process
    assert stuck is not None
    worker._deadline_seconds = 0.2
    with pytest.raises(InventoryUnavailable, match="did not answer"):
        await worker.read()
    with pytest.raises(InventoryUnavailable, match="does not answer"):
        await worker.read()
    assert worker._process is stuck
    await asyncio.wait_for(stuck.wait(), 10)
    worker._deadline_seconds = 5
    with pytest.raises(InventoryUnavailable):
        await worker.read()
    following = worker._process
    assert following is not None
    assert following is not stuck
    await worker.close()
    await asyncio.wait_for(following.wait(), 10)


async def test_an_answer_that_nobody_awaited_is_not_taken_for_the_next() -> None:
    """A read cancelled half way ends its child, so that answers and questions stay in step."""
    worker = child("import time\nfor n, _ in enumerate(iter(input, None)): time.sleep(60)")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.read(), 0.3)
    assert worker._process is not None
    await asyncio.wait_for(worker._process.wait(), 5)


@pytest.mark.parametrize(
    ("program", "kind"),
    [
        pytest.param("", Problem.NO_WORKER, id="ends"),
        pytest.param("import time; time.sleep(60)", Problem.UNRESPONSIVE, id="does not answer"),
    ],
)
async def test_an_outage_has_its_kind(program: str, kind: Problem) -> None:
    """A driver that hangs is told apart from a process that ended."""
    worker = child(program, deadline_seconds=0.5)
    with pytest.raises(InventoryUnavailable) as caught:
        await worker.read()
    assert caught.value.problem is kind
    await worker.close()


async def test_a_child_that_says_that_it_ends_is_waited_for() -> None:
    """So that the next read starts another instead of asking into a closed pipe."""
    program = """input(); print('{"problem": "mismatch", "code": 18, "ends": true}', flush=True); import time; time.sleep(0.3)"""
    worker = child(program)
    for _ in range(2):
        with pytest.raises(InventoryUnavailable) as caught:
            await worker.read()
        assert caught.value.problem is Problem.MISMATCH
        assert worker._process is not None
        assert worker._process.returncode == 0


async def test_a_gpu_has_less_time_than_an_answer() -> None:
    """However short the deadline is, there is time left to tell which GPU is late."""
    assert NvmlWorker(deadline_seconds=30)._command[-1] == "2"
    assert NvmlWorker(deadline_seconds=1)._command[-1] == "0.5"
