"""Work that comes to its end whatever becomes of who asked for it: transactions in one writer thread, and coroutines."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")


class Finishing:
    """One writer thread, and the tasks whose callers may have gone."""

    def __init__(self) -> None:
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="ledger")
        self._unfinished: set[asyncio.Task[Any]] = set()  # the loop itself would not keep them alive

    async def durably(self, act: Callable[[], _T]) -> _T:
        """Run one transaction in the writer thread. Cancelled: it is awaited all the same, then CancelledError."""
        running = asyncio.get_running_loop().run_in_executor(self._writer, act)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            while not running.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({running})
            running.exception()  # seen; the cancellation is what the caller gets
            raise

    async def finish(self, work: Coroutine[None, None, _T]) -> _T:
        """Run `work` to its end even if the caller is cancelled; then nobody is left to hear of its error."""
        task = asyncio.get_running_loop().create_task(work)
        self._unfinished.add(task)
        task.add_done_callback(self._forget)
        return await asyncio.shield(task)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._unfinished.discard(task)
        if not task.cancelled():
            task.exception()

    async def wait(self) -> None:
        """Until nothing of `finish` is left."""
        if self._unfinished:
            await asyncio.wait(self._unfinished)

    def close(self) -> None:
        """End the writer thread, after what it is writing."""
        self._writer.shutdown(wait=True)
