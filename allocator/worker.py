"""The allocator's side of the NVML process: start it, ask it, and give up on it in time."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from allocator.child import module, start
from allocator.model import InventoryUnavailable, Problem
from allocator.wire import is_last, parse

if TYPE_CHECKING:
    from allocator.model import Snapshot

_COMMAND = module("allocator.nvml")
_GPU_SECONDS = 2.0  # a grant rests on a look of 8 s: an interval of 5 and this must fit
_END_SECONDS = 1.0


class NvmlWorker:
    """An `Inventory` read by a child process.

    INVARIANT: at most one child at a time. One that does not answer is asked to end, and no other is started
    while it is still there: it may be stuck in the driver, and a second would get stuck beside it.
    """

    def __init__(
        self,
        *,
        deadline_seconds: float,
        gpu_seconds: float = _GPU_SECONDS,
        command: tuple[str, ...] = _COMMAND,
    ) -> None:
        """No child yet.

        Args:
            deadline_seconds: how long one answer may take before the child is given up.
            gpu_seconds: how long one GPU may take before the child tells it as unresponsive beside the others.
        """
        self._deadline_seconds = deadline_seconds
        self._command = (*command, f"{min(gpu_seconds, deadline_seconds / 2):g}")
        self._process: asyncio.subprocess.Process | None = None
        self._stuck = False

    async def read(self) -> Snapshot:
        """All devices now. Raises: InventoryUnavailable: no library, no driver, or no answer in time."""
        process = await self._running()
        answered = False
        try:
            async with asyncio.timeout(self._deadline_seconds):
                line = await self._ask(process)
            answered = True
        except TimeoutError as error:
            raise InventoryUnavailable(
                f"the NVIDIA driver did not answer within {self._deadline_seconds:g} seconds",
                Problem.UNRESPONSIVE,
            ) from error
        except (OSError, ValueError) as error:
            raise InventoryUnavailable("the NVML process ended", Problem.NO_WORKER) from error
        finally:
            # Also when cancelled: an answer still to come would be taken for the next question's.
            if not answered:
                self._give_up(process)
        try:
            return parse(line)
        except InventoryUnavailable:
            if is_last(line):
                await self._let_end(process)
            raise

    @property
    def pid(self) -> int | None:
        """Of the child; None: there is none."""
        return None if self._process is None else self._process.pid

    async def close(self) -> None:
        """End the child, and with it the NVML session; one stuck in the driver is left to the kernel.

        The next `read` starts another: who needs the GPUs without any client, as a reset does, closes first.
        """
        if self._process is not None and self._process.returncode is None:
            self._give_up(self._process)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_SECONDS)

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            if self._stuck:
                raise InventoryUnavailable("the NVIDIA driver does not answer", Problem.UNRESPONSIVE)
            return self._process
        try:
            self._process = await start(self._command)
        except OSError as error:
            raise InventoryUnavailable("the NVML process cannot be started", Problem.NO_WORKER) from error
        self._stuck = False
        return self._process

    async def _ask(self, process: asyncio.subprocess.Process) -> bytes:
        if process.stdin is None or process.stdout is None:
            raise ValueError("no pipes")
        process.stdin.write(b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise ValueError("cut off")
        return line

    async def _let_end(self, process: asyncio.subprocess.Process) -> None:
        """Wait for a child that has said that it ends, so that the next read starts another."""
        try:
            async with asyncio.timeout(_END_SECONDS):
                await process.wait()
        except TimeoutError:
            self._give_up(process)

    def _give_up(self, process: asyncio.subprocess.Process) -> None:
        # Once: to signal a child that is just ending reaps it under the feet of asyncio's watcher.
        if process.returncode is None and not self._stuck:
            process.terminate()
            # One that outlives the signal finds no further question when its call returns, and ends by itself.
            if process.stdin is not None:
                process.stdin.close()
        self._stuck = True
