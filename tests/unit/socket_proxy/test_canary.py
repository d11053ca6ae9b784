"""The canary tells three engines apart: guarded, open, and not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from socket_proxy.canary import Canary

_GUARDED = b'{"message":"authorization denied by plugin ds01-authz: ds01: direct access"}'
_OTHER_PLUGIN = b'{"message":"authorization denied by plugin other: no"}'


class _Engine:
    """An engine that gives every request one answer, and counts them."""

    def __init__(self) -> None:
        self.status, self.body, self.asked = 403, _GUARDED, 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            pass
        self.asked += 1
        head = b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (self.status, len(self.body)) + self.body)
        await writer.drain()
        writer.close()
        await writer.wait_closed()


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[_Engine]:
    found = _Engine()
    server = await asyncio.start_unix_server(found.serve, tmp_path / "engine.sock")
    yield found
    server.close()


@pytest.mark.parametrize(
    ("status", "body", "singing"),
    [(403, _GUARDED, True), (200, b"{}", False), (403, _OTHER_PLUGIN, False), (500, b"{}", False)],
    ids=["guarded", "open", "another plugin", "broken"],
)
async def test_only_our_plugins_denial_is_good(
    tmp_path: Path, engine: _Engine, status: int, body: bytes, *, singing: bool
) -> None:
    """Whatever is not the refusal of ds01's own plugin counts as an open engine."""
    engine.status, engine.body = status, body
    assert await Canary(str(tmp_path / "engine.sock"), wake=asyncio.Event()).probe() is singing


async def test_no_engine_is_neither_open_nor_guarded(tmp_path: Path) -> None:
    """Where nobody answers, nothing is known."""
    assert await Canary(str(tmp_path / "engine.sock"), wake=asyncio.Event()).probe() is None


async def test_a_reload_is_looked_at_at_once(tmp_path: Path, engine: _Engine) -> None:
    """Woken, the canary does not wait for its minute to pass."""
    wake = asyncio.Event()
    canary = Canary(str(tmp_path / "engine.sock"), wake=wake)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(canary.run())
        async with asyncio.timeout(5):
            while canary.singing is not True:  # noqa: ASYNC110  the canary tells nobody
                await asyncio.sleep(0.01)
            engine.status = 200
            wake.set()
            while canary.singing is not False:  # noqa: ASYNC110  the canary tells nobody
                await asyncio.sleep(0.01)
        running.cancel()
    assert engine.asked >= 2
