"""Connections of one user to a socket that is open to everybody."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from allocator.connections import Doorkeeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Echo(asyncio.Protocol):
    """Says hello, and nothing more."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")


@asynccontextmanager
async def door(path: Path, trusted: frozenset[int]) -> AsyncIterator[str]:
    keeper = Doorkeeper(Echo, trusted_uids=trusted, most=2)
    server = await asyncio.get_running_loop().create_unix_server(keeper, str(path / "s"))
    yield str(path / "s")
    server.close()


async def said(path: str) -> tuple[bytes, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    return await reader.read(400), writer


async def test_one_too_many_is_told_so(tmp_path: Path) -> None:
    """It gets 503 with the limit, and one that closes makes room."""
    async with door(tmp_path, frozenset()) as path:
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
    async with door(tmp_path, frozenset({os.getuid()})) as path:
        writers = []
        for _ in range(5):
            answer, writer = await said(path)
            assert answer == b"hello"
            writers.append(writer)
        for writer in writers:
            writer.close()
