"""Connections of users to a socket that is open to everybody."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from allocator import connections
from allocator.connections import Doorkeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOBODY: frozenset[int] = frozenset()


class Echo(asyncio.Protocol):
    """Says hello, and nothing more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")


@asynccontextmanager
async def door(path: Path, trusted: frozenset[int], **more: Any) -> AsyncIterator[str]:
    keeper = Doorkeeper(Echo, trusted_uids=trusted, most=2, **more)
    server = await asyncio.get_running_loop().create_unix_server(keeper, str(path / "s"))
    yield str(path / "s")
    server.close()


async def said(path: str) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    return await reader.read(400), writer


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Whose each next connection is, in place of the kernel, which would need as many accounts."""
    uids: list[int] = []
    monkeypatch.setattr(connections, "credentials", lambda _socket: (1, uids.pop(0), 1))
    return uids


async def test_one_too_many_is_told_so(tmp_path: Path) -> None:
    """It gets 503 with the limit, and one that closes makes room."""
    async with door(tmp_path, NOBODY) as path:
        _, first = await said(path)
        _, second = await said(path)
        answer, third = await said(path)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"limit is 2" in answer
        first.close()
        await first.wait_closed()
        await asyncio.sleep(0.05)
        answer, fourth = await said(path)
        assert answer == b"hello"
        for writer in (second, third, fourth):
            writer.close()


async def test_the_trusted_have_as_many_as_they_need(tmp_path: Path) -> None:
    """Each of the proxy's is a create of somebody else."""
    async with door(tmp_path, frozenset({os.getuid()}), most_together=1) as path:
        writers = []
        for _ in range(5):
            answer, writer = await said(path)
            assert answer == b"hello"
            writers.append(writer)
        for writer in writers:
            writer.close()


async def test_a_lent_uid_counts_as_its_owner(tmp_path: Path, peers: list[int]) -> None:
    """An account that owns 65,536 of them has no more connections than another."""
    peers += [1000, 100_000, 100_001, 1001]
    async with door(tmp_path, NOBODY, owner_of=lambda uid: 1000 if uid >= 100_000 else uid) as path:
        answers = [await said(path) for _ in range(4)]
        assert [answer == b"hello" for answer, _ in answers] == [True, True, False, True]
        assert all(b"limit is 2;" in answer for answer, _ in answers[2:3])
        for _, writer in answers:
            writer.close()


async def test_all_users_together_leave_room_for_the_trusted(tmp_path: Path, peers: list[int]) -> None:
    """However many uids they have; the trusted get in when nobody else does."""
    peers += [1, 2, 3, 4, 7, 7, 7]
    async with door(tmp_path, frozenset({7}), most_together=3) as path:
        answers = [await said(path) for _ in range(7)]
        assert [answer == b"hello" for answer, _ in answers] == [True, True, True, False, True, True, True]
        assert b"limit is 3 for all users together" in answers[3][0]
        for _, writer in answers:
            writer.close()


@asynccontextmanager
async def served(path: Path, trusted: frozenset[int]) -> AsyncIterator[str]:
    """An application that takes its time, behind a doorkeeper who does not."""

    async def slow(_request: web.Request) -> web.Response:
        await asyncio.sleep(0.4)
        return web.json_response({})

    application = web.Application()
    application.router.add_get("/", slow)
    runner = web.AppRunner(application)

    def protocol() -> asyncio.Protocol:
        assert runner.server is not None
        return runner.server()

    keeper = Doorkeeper(protocol, trusted_uids=trusted, head_seconds=0.2)
    application.middlewares.insert(0, keeper.hearing)
    await runner.setup()
    server = await asyncio.get_running_loop().create_unix_server(keeper, str(path / "s"))
    yield str(path / "s")
    server.close()
    await runner.cleanup()


async def test_who_says_no_request_is_cut_off(tmp_path: Path) -> None:
    """Whether it says nothing or half of one; a place that is held so is free again."""
    async with served(tmp_path, NOBODY) as path:
        for words in (b"", b"GET / HTTP/1.1\r\nHost: x\r\n"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(words)
            async with asyncio.timeout(2):
                assert await _rest(reader) == b""
            writer.close()


async def test_who_was_heard_is_answered_however_long_it_takes(tmp_path: Path) -> None:
    """The time runs again from the answer on."""
    async with served(tmp_path, NOBODY) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(3):
            assert (await _rest(reader)).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_the_trusted_may_be_silent(tmp_path: Path) -> None:
    """The proxy keeps connections for the next create."""
    async with served(tmp_path, frozenset({os.getuid()})) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await reader.read(1)
        writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """All that is said until the end, which may be a reset."""
    found = b""
    try:
        while more := await reader.read(4096):
            found += more
    except ConnectionResetError:
        pass
    return found
