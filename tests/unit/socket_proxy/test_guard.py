"""What the guard says of a copy, over a real socket: pins as long as it is asked, a sentence, or nothing."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from policy.model import ContainerId
from socket_proxy import guard as guard_module
from socket_proxy.guard import GuardClient, Pinned
from socket_proxy.refusals import Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ID = ContainerId("a" * 64)


class Guard:
    """Answers one word to each question, and keeps the connection while it has said yes."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked: list[bytes] = []
        self.ended = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        question = b""
        while question.count(b"\0") < 3:
            question += await reader.read(1000)
        self.asked.append(question)
        if self.answer is None:
            await reader.read()  # the client gives up
        writer.write(self.answer or b"")
        if self.answer == b"yes\n":
            await reader.read()
            self.ended.set()
        writer.close()


@asynccontextmanager
async def guarding(room: Path, answer: bytes | None) -> AsyncIterator[tuple[Guard, GuardClient]]:
    guard = Guard(answer)
    async with await asyncio.start_unix_server(guard.connected, room / "guard.sock"):
        yield guard, GuardClient(room / "guard.sock", room / "engine.sock")
        for writer in guard.writers:
            writer.close()
            await writer.wait_closed()


async def test_pins_last_until_the_copy_ends(tmp_path: Path) -> None:
    """The question names container and engine; the end of the connection is the end of the pins."""
    async with guarding(tmp_path, b"yes\n") as (guard, client):
        pins = await client.pin(ID)
        assert isinstance(pins, Pinned)
        assert guard.asked == [f"copy\0{ID}\0{tmp_path}/engine.sock\0".encode()]
        async with pins:
            pins.check()
            assert not guard.ended.is_set()
        await asyncio.wait_for(guard.ended.wait(), 5)


async def test_a_no_is_the_users_sentence(tmp_path: Path) -> None:
    """As the guard wrote it."""
    said = 'ds01: "x" leads elsewhere (rule bind_mounts); put it back'
    async with guarding(tmp_path, b"no" + json.dumps(said).encode()) as (_, client):
        assert await client.pin(ID) == Refusal(status=403, message=said, rules=("bind_mounts",))


async def test_a_guard_that_goes_away_is_noticed(tmp_path: Path) -> None:
    """Its pins may have gone before dockerd mounted them."""
    async with guarding(tmp_path, b"yes\n") as (guard, client):
        pins = await client.pin(ID)
        assert isinstance(pins, Pinned)
        async with pins:
            guard.writers[0].close()
            await asyncio.sleep(0.05)
            with pytest.raises(Unavailable, match="copy again"):
                pins.check()


@pytest.mark.parametrize("answer", [b"", b"perhaps\n", b"no{", b'no"', b"yes", None])
async def test_anything_else_is_no_pin(
    tmp_path: Path, answer: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer, half of one, or one that nobody knows."""
    monkeypatch.setattr(guard_module, "_ANSWER_SECONDS", 0.2)
    async with guarding(tmp_path, answer) as (_, client):
        with pytest.raises(Unavailable, match="ds01-guard"):
            await client.pin(ID)


async def test_without_a_guard_nothing_is_copied(tmp_path: Path) -> None:
    """It is not running: 503, and the user knows whom to tell."""
    with pytest.raises(Unavailable, match="tell the admin"):
        await GuardClient(tmp_path / "guard.sock", tmp_path / "engine.sock").pin(ID)
