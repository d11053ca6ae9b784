"""The guard's socket: one question per connection, asked by ds01-runtime before `runc create`, by the proxy before a copy.

The question is the container's id and its bundle, or `copy`, the id and the engine's socket, each ended by a zero byte. The
answer is `yes`, or `no` and a sentence as a JSON string, which ds01-runtime passes on as it is. Whatever goes wrong here is a
no, or no answer, which is one too. What was pinned for a copy stays until the proxy closes the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from host.mounts import MountNamespace
from host.peercred import credentials, hold_peer
from observability import events
from observability.logging import log
from policy.model import ContainerId
from runtime.checks import Refused
from runtime.pins import Pins, StandInPins
from runtime.service import Copy, Start

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtime.service import Allowed

T = TypeVar("T")

DEADLINE_SECONDS = 15.0  # shorter than that of ds01-runtime, so that the reason arrives
_LAST_SECONDS = 3.0  # at the end; what is left then, the next guard sweeps
_QUESTION_BYTES = 8192
_QUESTION = re.compile(rb"(copy\0)?([0-9a-f]{64})\0(/[^\0]+)\0")
_COPY = b"copy\0"
_YES = b"yes\n"
_ENGINE_SECONDS = 2.0
_BUG = "an error of the guard of container starts"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """The log's words for one kind of question."""

    allowed: events.Event
    refused: events.Event
    failed: events.Event


_START = _Told(allowed=events.START_ALLOWED, refused=events.START_REFUSED, failed=events.START_FAILED)
_COPIES = _Told(allowed=events.COPY_PINNED, refused=events.COPY_REFUSED, failed=events.COPY_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`path`: the bundle of a start; the engine's socket for a copy."""

    container: ContainerId
    path: Path
    is_copy: bool


class GuardServer:
    """Answers ds01-runtime and the proxy, each start and copy in a thread of its own."""

    def __init__(
        self, decide: Callable[[Start], Allowed], *, copy: Callable[[Copy], Allowed], board: Path
    ) -> None:
        """`decide` and `copy` block, and raise Refused; `board` is the directory of all pins."""
        self._decide = decide
        self._copy = copy
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
            question = parse(await asyncio.wait_for(_read(reader), DEADLINE_SECONDS))
            if question.is_copy:
                await self._answer_copy(reader, writer, question)
            else:
                await self._answer(writer, pid, question.container, question.path)
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
                await _say(writer, await _judge(_START, container, lambda: self._decide(start)))
                writer.close()
                if pins.any:
                    await _ended(process)
            finally:
                await _in_thread(lambda: _remove(place, pins))
        finally:
            os.close(process)
            place.close()

    async def _answer_copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, question: Question
    ) -> None:
        """Pin, say so, and keep the pins until the proxy closes: dockerd has mounted them or will not any more."""
        place = await _in_thread(lambda: _engine_place(question.path))
        copy = Copy(
            container=question.container, place=place, pins=StandInPins(Pins(self._board, question.container))
        )
        try:
            try:
                answer = await _judge(_COPIES, copy.container, lambda: self._copy(copy))
                await _say(writer, answer)
                if answer == _YES:
                    await reader.read()
            finally:
                await _in_thread(lambda: _remove(place, copy.pins))
        finally:
            place.close()


async def _judge(told: _Told, container: ContainerId, decide: Callable[[], Allowed]) -> bytes:
    started = time.monotonic()
    try:
        allowed = await asyncio.wait_for(_in_thread(decide), DEADLINE_SECONDS)
    except Refused as error:
        log(told.refused, container=container, uid=None, problem=str(error))
        return _no(error)
    except TimeoutError:
        slow = Refused("a file system that the container mounts does not answer", "try again later")
        log(told.refused, container=container, uid=None, problem=str(slow))
        return _no(slow)
    except Exception as error:  # noqa: BLE001  the edge: whatever happened, nothing of the host is mounted
        log(told.failed, container=container, problem=repr(error), exc_info=error)
        return _no(Refused(_BUG, "tell the admin"))
    log(
        told.allowed,
        container=container,
        uid=allowed.uid,
        lease=allowed.lease,
        pins=allowed.pins,
        duration_ms=round((time.monotonic() - started) * 1000, 3),
    )
    return _YES


def parse(question: bytes) -> Question:
    """Raises: Refused."""
    asked = _QUESTION.fullmatch(question)
    if asked is None:
        raise Refused("the question of the container runtime cannot be read", "tell the admin")
    return Question(
        container=ContainerId(asked[2].decode()),
        path=Path(os.fsdecode(asked[3])),
        is_copy=asked[1] is not None,
    )


async def _read(reader: asyncio.StreamReader) -> bytes:
    """The whole question: the runtime closes its half after it, the proxy keeps the connection."""
    question = b""
    while len(question) <= _QUESTION_BYTES and (more := await reader.read(_QUESTION_BYTES)):
        question += more
        if question.startswith(_COPY) and question.count(b"\0") == 3:
            break
    return question


def _engine_place(engine_socket: Path) -> MountNamespace:
    """The mount namespace of who listens there. Raises: Refused: nobody of root's does. OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ENGINE_SECONDS)
        connection.connect(str(engine_socket))
        _, uid, _ = credentials(connection)
        if uid != 0:
            raise Refused("something else than the Docker engine answers in its place", "tell the admin")
        with hold_peer(connection) as pid:
            return MountNamespace(pid)


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


def _remove(place: MountNamespace, pins: Pins | StandInPins) -> None:
    """SECURITY: marks them removed even where there are none, so that a start that was given up pins nothing later."""
    try:
        place.run(pins.remove)
    except OSError as error:
        log(events.PIN_LEFT, path=pins.where, problem=str(error))
