"""The socket between ds01-runtime and the guard: one answer for each question, and pins as long as the asker lives."""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from host.listener import listen
from policy.model import ContainerId, Uid
from runtime import server as server_module
from runtime.checks import Refused
from runtime.pins import Pins, StandInPins
from runtime.server import GuardServer, Question, parse
from runtime.service import Allowed, Copy, Start

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may ask")

ID = "a" * 64
QUESTION = f"{ID}\0/bundle\0".encode()
ASKER = """
import socket, sys, time
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(sys.argv[2].encode() + b"\\0/bundle\\0")
s.shutdown(socket.SHUT_WR)
print(s.recv(4096).decode(), flush=True)
sys.stdin.readline()
"""


def allow(_start: Start) -> Allowed:
    return Allowed(uid=None, lease=None, pins=0)


def never(_copy: Copy) -> Allowed:
    raise AssertionError("no copy is asked for")


@asynccontextmanager
async def serving(decide: Callable[[Start], Allowed], room: Path) -> AsyncIterator[Path]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        listening = listen(room / "guard.sock")
        tasks.create_task(GuardServer(decide, copy=never, board=room / "pins").serve(listening, stop))
        yield room / "guard.sock"
        stop.set()


async def ask(path: Path, question: bytes = QUESTION) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(question)
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    return answer


async def test_a_yes_is_a_yes(room: Path) -> None:
    """And the start it was about is the one that was asked for."""
    seen: list[Start] = []

    def decide(start: Start) -> Allowed:
        seen.append(start)
        return allow(start)

    async with serving(decide, room) as path:
        assert await ask(path) == b"yes\n"
    assert (seen[0].container, seen[0].bundle) == (ID, Path("/bundle"))


async def test_a_no_is_a_sentence_as_json(room: Path) -> None:
    """Whatever stands in it: ds01-runtime passes it on as it is."""

    def decide(_start: Start) -> Allowed:
        raise Refused('a "quoted"\npath é')

    async with serving(decide, room) as path:
        answer = await ask(path)
    assert answer.startswith(b'no"')
    assert b"\n" not in answer
    assert json.loads(answer[2:]).startswith('ds01: a "quoted"\npath é (rule start); ')


async def test_a_bug_is_a_no(room: Path) -> None:
    """Without a word of what broke, which is in the log."""

    def decide(_start: Start) -> Allowed:
        raise RuntimeError("secret")

    with capture_logs() as lines:
        async with serving(decide, room) as path:
            answer = await ask(path)
    assert answer.startswith(b'no"')
    assert b"secret" not in answer
    assert [line["event"] for line in lines] == ["start.failed"]


@pytest.mark.parametrize(
    "question",
    [
        b"",
        b"x",
        QUESTION[:-1],
        QUESTION + b"x",
        b"A" * 64 + b"\0/b\0",
        f"{ID}\0bundle\0".encode(),
        b"x" * 9000,
    ],
)
async def test_another_question_is_a_no(room: Path, question: bytes) -> None:
    """Nothing is decided for what cannot be read."""
    async with serving(allow, room) as path:
        assert (await ask(path, question)).startswith(b'no"')
    with pytest.raises(Refused):
        parse(question)


async def test_a_slow_decision_is_a_no_and_holds_up_nobody(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file system that hangs holds its own start; what it gives too late is not pinned."""
    monkeypatch.setattr(server_module, "DEADLINE_SECONDS", 0.3)
    late: list[BaseException] = []

    def decide(start: Start) -> Allowed:
        if start.container == ID:
            time.sleep(1)
            try:
                start.pins.pin(os.open("/", os.O_PATH))
            except BaseException as error:
                late.append(error)
                raise
        return allow(start)

    async with serving(decide, room) as path:
        slow = asyncio.ensure_future(ask(path))  # noqa: TID251  two askers at once
        await asyncio.sleep(0.05)
        assert await ask(path, QUESTION.replace(b"a" * 64, b"b" * 64)) == b"yes\n"
        assert b"does not answer" in await slow
        await asyncio.sleep(1.2)
    assert [type(error).__name__ for error in late] == ["TooLate"]
    assert not (room / "pins").exists()


async def test_pins_last_as_long_as_the_asker(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that got the yes becomes `runc create`; when it has ended, nothing needs the pins."""
    removed: list[str] = []

    class FakePins:
        any = True
        where = str(room)

        def __init__(self, _board: Path, container: str) -> None:
            self._container = container

        def remove(self) -> None:
            removed.append(self._container)

    monkeypatch.setattr(server_module, "Pins", FakePins)
    async with serving(allow, room) as path:
        asker = await asyncio.create_subprocess_exec(
            "python3", "-c", ASKER, str(path), ID, stdin=-1, stdout=-1
        )
        assert asker.stdout is not None
        assert asker.stdin is not None
        assert await asker.stdout.readline() == b"yes\n"
        await asyncio.sleep(0.2)
        assert removed == []
        asker.stdin.write(b"\n")
        await asker.wait()
        async with asyncio.timeout(5):
            while not removed:  # noqa: ASYNC110  a list has no event
                await asyncio.sleep(0.01)
    assert removed == [ID]


async def test_somebody_else_is_not_answered(room: Path) -> None:
    """The socket's mode says so; the kernel's word on who asks says it again."""
    (room / "guard.sock").unlink(missing_ok=True)
    async with serving(allow, room) as path:
        path.chmod(0o666)
        program = ASKER.replace("sys.stdin.readline()", "")
        asker = await asyncio.create_subprocess_exec(
            "setpriv", "--reuid=61234", "--clear-groups", "/usr/bin/python3", "-c", program, str(path), ID,
            stdin=-3, stdout=-1,
        )  # fmt: skip
        out, _ = await asker.communicate()
    assert b"yes" not in out
    assert out.strip() == b""


def in_log(lines: list[Any], event: str) -> list[Any]:
    return [line for line in lines if line["event"] == event]


async def test_every_start_is_logged(room: Path) -> None:
    """Those that no client asked for are known by nothing else."""
    with capture_logs() as lines:
        async with serving(allow, room) as path:
            await ask(path)
    (line,) = in_log(lines, "start.allowed")
    assert (line["container"], line["pins"]) == (ID, 0)


# --- copies ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(copy: Callable[[Copy], Allowed], room: Path) -> AsyncIterator[Path]:
    """A guard, and an engine, which is this process."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        listening, engine = listen(room / "guard.sock"), listen(room / "engine.sock")
        server = GuardServer(allow, copy=copy, board=room / "pins")
        tasks.create_task(server.serve(listening, stop))
        yield room / "guard.sock"
        stop.set()
        engine.close()


def copy_question(room: Path) -> bytes:
    return f"copy\0{ID}\0{room}/engine.sock\0".encode()


class SeenPins(StandInPins):
    """Says when they are taken away."""

    def __init__(self, staged: Pins) -> None:
        super().__init__(staged)
        self.gone = threading.Event()

    def remove(self) -> None:
        super().remove()
        self.gone.set()


async def test_pins_of_a_copy_last_as_long_as_the_connection(
    room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the mount namespace of whoever listens at the engine's socket."""
    monkeypatch.setattr(server_module, "StandInPins", SeenPins)
    seen: list[Copy] = []

    def copy(asked: Copy) -> Allowed:
        seen.append(asked)
        return Allowed(uid=Uid(1000), lease=None, pins=1)

    with capture_logs() as lines:
        async with answering(copy, room) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(copy_question(room))
            assert await reader.readline() == b"yes\n"
            pins = seen[0].pins
            assert isinstance(pins, SeenPins)
            await asyncio.sleep(0.2)
            assert not pins.gone.is_set()
            assert seen[0].place.key == os.stat("/proc/self/ns/mnt").st_ino  # noqa: PTH116
            writer.close()
            assert await asyncio.to_thread(pins.gone.wait, 5)
    assert in_log(lines, "copy.pinned")[0]["uid"] == 1000


async def test_a_refused_copy_is_told_at_once(room: Path) -> None:
    """The proxy keeps the connection only for pins."""

    def copy(_asked: Copy) -> Allowed:
        raise Refused("it leads elsewhere", "put it back", rule="bind_mounts")

    with capture_logs() as lines:
        async with answering(copy, room) as path:
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(copy_question(room))
            answer = await asyncio.wait_for(reader.read(), 5)
            writer.close()
    assert json.loads(answer[2:]) == "ds01: it leads elsewhere (rule bind_mounts); put it back"
    assert in_log(lines, "copy.refused")


async def test_without_an_engine_nothing_is_copied(room: Path) -> None:
    """No answer is a no."""

    def copy(_asked: Copy) -> Allowed:
        raise AssertionError("nothing is asked")

    async with answering(copy, room) as path:
        (room / "engine.sock").unlink()
        assert await ask(path, copy_question(room)) == b""


def test_the_two_questions_are_told_apart() -> None:
    """And there is no third."""
    assert parse(QUESTION) == Question(container=ContainerId(ID), path=Path("/bundle"), is_copy=False)
    assert parse(b"copy\0" + QUESTION).is_copy
    for other in (
        b"copy" + QUESTION,
        b"Copy\0" + QUESTION,
        b"copy\0copy\0" + QUESTION,
        b"copy\0" + QUESTION + b"x",
    ):
        with pytest.raises(Refused):
            parse(other)
