"""A relay on real Unix sockets: client socket, server, pool, scripted upstream."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
import uvloop

from http1.client import Pool
from http1.relay import relay, relay_hijack
from http1.server import Handler, Server
from http1.writer import forwardable
from tests.fakes.scripted_dockerd import Script, ScriptedDockerd, scripted_dockerd

if TYPE_CHECKING:
    from http1.exchange import Exchange
    from http1.limits import Limits


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The daemons run on uvloop, so do these tests."""
    return {"uvloop": uvloop.new_event_loop}


class Client:
    """A client on one connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def get(self, target: str, more: str = "") -> tuple[bytes, bytes]:
        """One GET and its whole answer."""
        self.say(f"GET {target} HTTP/1.1\r\nHost: d\r\n{more}\r\n".encode())
        return await self.answer()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> tuple[bytes, bytes]:
        """Head and body of an answer with a length."""
        head = await self.head()
        length = next(
            (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0"
        )
        return head, await self.reader.readexactly(int(length.split(b":")[1]))

    async def rest(self) -> bytes:
        """Everything until the server shuts its side."""
        return await self.reader.read()


class Hop:
    """Server, pool and upstream in one directory."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        self.stack = stack
        self.errors: list[Exception] = []
        self.server: Server | None = None
        self.pool: Pool | None = None
        self._sockets = 0

    async def upstream(self, script: Script) -> ScriptedDockerd:
        return await self.stack.enter_async_context(scripted_dockerd(self.directory / "engine.sock", script))

    async def serve(
        self, handler: Handler, *, limits: Limits | None = None, tick_seconds: float = 0.05
    ) -> Server:
        """Serve `handler` at user.sock."""

        def on_error(_exchange: Exchange, error: Exception) -> tuple[int, str]:
            self.errors.append(error)
            return 500, "a bug"

        server = self.server = Server(limits=limits, on_error=on_error, tick_seconds=tick_seconds)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.directory / "user.sock"))
        await server.listen(listening, handler)
        self.stack.push_async_callback(server.stop, grace_seconds=0.0)
        return server

    async def relay(self, script: Script, *, limits: Limits | None = None) -> ScriptedDockerd:
        """Scripted upstream, and a server that carries everything to it."""
        fake = await self.upstream(script)
        pool = self.pool = Pool(str(self.directory / "engine.sock"), limits=limits)
        self.stack.callback(pool.close)

        async def handler(exchange: Exchange) -> None:
            head = exchange.head
            raw = head.target == "/raw"
            exchange.may_hijack = exchange.may_hijack or raw
            response = await pool.request(
                head.method,
                head.target,
                forwardable(head.headers),
                exchange.body() if head.chunked or head.content_length else None,
                content_length=head.content_length,
                hijack=raw,
                upgrade=head.upgrade,
                watch=exchange,
            )
            await (relay_hijack(response, exchange) if response.raw else relay(response, exchange))

        await self.serve(handler, limits=limits)
        return fake

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_unix_connection(str(self.directory / "user.sock"), limit=2**20)
        self.stack.callback(writer.close)
        return Client(reader, writer)


@pytest.fixture
async def hop() -> AsyncIterator[Hop]:
    """A fresh hop; everything it opened is closed."""
    with TemporaryDirectory() as name:
        async with AsyncExitStack() as stack:
            yield Hop(Path(name), stack)
        await asyncio.sleep(0.02)


async def eventually(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    """Wait until `condition` holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  any condition, not only events
            await asyncio.sleep(0.005)


Waiter = Callable[[Callable[[], bool]], Awaitable[None]]


@pytest.fixture
def until() -> Waiter:
    return eventually
