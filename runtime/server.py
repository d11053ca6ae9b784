"""The guard's socket: one question per connection, asked by ds01-runtime before `runc create`.

The question is the container's id and its bundle, each ended by a zero byte. The answer is `yes`, or `no` and a sentence
as a JSON string, which ds01-runtime passes on as it is. Whatever goes wrong here is a no, or no answer, which is one too.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from host.mounts import MountNamespace
from host.peercred import credentials
from observability import events
from observability.logging import log
from policy.model import ContainerId
from runtime.checks import Refused
from runtime.pins import Pins
from runtime.service import Start

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from runtime.service import Allowed

T = TypeVar("T")

DEADLINE_SECONDS = 15.0  # shorter than that of ds01-runtime, so that the reason arrives
_LAST_SECONDS = 3.0  # at the end; what is left then, the next guard sweeps
_QUESTION_BYTES = 8192
_QUESTION = re.compile(rb"([0-9a-f]{64})\0(/[^\0]+)\0")
_BUG = "an error of the guard of container starts"


class GuardServer:
    """Answers ds01-runtime, each start in a thread of its own."""

    def __init__(self, decide: Callable[[Start], Allowed], *, board: Path) -> None:
        """`decide` blocks, and raises Refused; `board` is the directory of all pins."""
        self._decide = decide
        self._board = board
        self._open = 0
        self._idle = asyncio.Event()

    async def serve(self, listening: socket.socket, stop: asyncio.Event) -> None:
        """Answer until `stop`; what was asked by then is answered still, and its pins taken away."""
        server = await asyncio.start_unix_server(self._connected, sock=listening)
        async with server:
            await stop.wait()
        if self._open:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), _LAST_SECONDS)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            await self._serve(reader, writer)
        finally:
            self._open -= 1
            if not self._open:
                self._idle.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            pid, uid, _ = credentials(writer.get_extra_info("socket"))
            if uid != 0:  # the socket's mode says so too
                return
            container, bundle = parse(await asyncio.wait_for(_read(reader), DEADLINE_SECONDS))
            await self._answer(writer, pid, container, bundle)
        except Refused as error:
            await _say(writer, _no(error))
        except (OSError, TimeoutError) as error:
            log(events.START_FAILED, container=None, problem=repr(error))
        finally:
            writer.close()

    async def _answer(
        self, writer: asyncio.StreamWriter, pid: int, container: ContainerId, bundle: Path
    ) -> None:
        """Decide, say so, and keep the pins until the asking process, which becomes `runc create`, has ended."""
        process = os.pidfd_open(pid)
        place = MountNamespace(pid)
        pins = Pins(self._board, container)
        try:
            start = Start(container=container, bundle=bundle, place=place, pins=pins)
            try:
                await _say(writer, await self._judge(start))
                writer.close()
                if pins.any:
                    await _ended(process)
            finally:
                await _in_thread(lambda: _remove(place, pins))
        finally:
            os.close(process)
            place.close()

    async def _judge(self, start: Start) -> bytes:
        started = time.monotonic()
        try:
            allowed = await asyncio.wait_for(_in_thread(lambda: self._decide(start)), DEADLINE_SECONDS)
        except Refused as error:
            log(events.START_REFUSED, container=start.container, uid=None, problem=str(error))
            return _no(error)
        except TimeoutError:
            slow = Refused("a file system that the container mounts does not answer", "try again later")
            log(events.START_REFUSED, container=start.container, uid=None, problem=str(slow))
            return _no(slow)
        except Exception as error:  # noqa: BLE001  the edge: whatever happened, the container does not start
            log(events.START_FAILED, container=start.container, problem=repr(error), exc_info=error)
            return _no(Refused(_BUG, "tell the admin"))
        log(
            events.START_ALLOWED,
            container=start.container,
            uid=allowed.uid,
            lease=allowed.lease,
            pins=allowed.pins,
            duration_ms=round((time.monotonic() - started) * 1000, 3),
        )
        return b"yes\n"


def parse(question: bytes) -> tuple[ContainerId, Path]:
    """The container and its bundle. Raises: Refused."""
    asked = _QUESTION.fullmatch(question)
    if asked is None:
        raise Refused("the question of the container runtime cannot be read", "tell the admin")
    return ContainerId(asked[1].decode()), Path(os.fsdecode(asked[2]))


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The whole question: the runtime closes its half after it."""
    question = b""
    while len(question) <= _QUESTION_BYTES and (more := await reader.read(_QUESTION_BYTES)):
        question += more
    return question


async def _say(writer: asyncio.StreamWriter, answer: bytes) -> None:
    writer.write(answer)
    await asyncio.wait_for(writer.drain(), DEADLINE_SECONDS)


def _no(refused: Refused) -> bytes:
    return b"no" + json.dumps(str(refused)).encode()


async def _in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own: one that hangs takes no place from the others."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # a result stands where there is no error

    def run() -> None:
        try:
            outcome: tuple[T | None, BaseException | None] = (work(), None)
        except BaseException as error:  # noqa: BLE001  carried to the loop
            outcome = (None, error)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, *outcome)

    threading.Thread(target=run, name="start", daemon=True).start()
    return await done


async def _ended(process: int) -> None:
    """Wait for the process behind a pidfd to end."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(process, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(process)


def _remove(place: MountNamespace, pins: Pins) -> None:
    """SECURITY: marks them removed even where there are none, so that a start that was given up pins nothing later."""
    try:
        place.run(pins.remove)
    except OSError as error:
        log(events.PIN_LEFT, path=str(pins.directory), problem=str(error))
