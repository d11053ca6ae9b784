"""The allocator's side of the NVML process, with children that misbehave."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from allocator.model import DeviceState, InventoryUnavailable
from allocator.worker import NvmlWorker, parse

GPU = {
    "uuid": "GPU-1",
    "kind": "gpu",
    "index": "0",
    "profile": "A100",
    "memory_mib": None,
    "pids": None,
    "state": "ok",
}


def child(program: str, *, deadline_seconds: float = 5) -> NvmlWorker:
    return NvmlWorker(deadline_seconds=deadline_seconds, command=(sys.executable, "-c", program))


def test_unknown_stays_unknown() -> None:
    """Memory and processes that NVML does not tell are None."""
    (device,) = parse(json.dumps({"devices": [GPU]}).encode()).devices.values()
    assert (device.memory_mib, device.pids, device.state) == (None, None, DeviceState.OK)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"devices": [{}]}', id="no fields"),
        pytest.param(json.dumps({"devices": [GPU | {"state": "fine"}]}).encode(), id="unknown state"),
        pytest.param(json.dumps({"devices": [GPU, GPU]}).encode(), id="one UUID twice"),
        pytest.param(b'{"problem": "Driver Not Loaded"}', id="says so"),
    ],
)
def test_an_unreadable_answer_is_an_outage(line: bytes) -> None:
    """Nothing is guessed from half an answer."""
    with pytest.raises(InventoryUnavailable):
        parse(line)


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


async def test_an_answer_that_nobody_awaited_is_not_taken_for_the_next() -> None:
    """A read cancelled half way ends its child, so that answers and questions stay in step."""
    worker = child("import time\nfor n, _ in enumerate(iter(input, None)): time.sleep(60)")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(worker.read(), 0.3)
    assert worker._process is not None
    await asyncio.wait_for(worker._process.wait(), 5)
