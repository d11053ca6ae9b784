"""Laws of the server on real sockets: no bytes stop it, and every connection is answered or closed."""

from __future__ import annotations

import asyncio
import random
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from http1.limits import Limits
from http1.server import Server

if TYPE_CHECKING:
    from http1.exchange import Exchange

_PARTS = [
    b"GET / HTTP/1.1\r\nHost: d\r\n",
    b"POST / HTTP/1.1\r\nHost: d\r\n",
    b"Content-Length: 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: tcp\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"\n",
    b"\x00",
]


async def _talk(pieces: list[bytes], seed: int) -> tuple[bytes, bytes, list[Exception]]:
    """Send `pieces` with a handler that behaves at random; then one good request on a connection of its own."""
    errors: list[Exception] = []
    dice = random.Random(seed)

    async def handler(exchange: Exchange) -> None:
        if exchange.head.target == "/good":
            await exchange.respond(200, (), b"good")
        elif exchange.head.upgrade and dice.random() < 0.5 and exchange.inflow.ended:
            stream = exchange.hijack(101, upgrade="tcp")
            while data := await stream.read():
                await stream.write(data)
            stream.close()
        elif dice.random() < 0.5:
            await exchange.respond(200, (), await exchange.read_body(100))
        else:
            await exchange.respond(403, (), b"no")

    def on_error(_exchange: Exchange, error: Exception) -> tuple[int, str]:
        errors.append(error)
        return 500, "bug"

    with TemporaryDirectory() as name:
        path = str(Path(name) / "s")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        server = Server(
            limits=Limits(head_seconds=0.2, linger_seconds=0.2), on_error=on_error, tick_seconds=0.05
        )
        await server.listen(listening, handler)
        bad = await _exchange(path, pieces, half_close=dice.random() < 0.7)
        good = await _exchange(
            path, [b"GET /good HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n"], half_close=False
        )
        await server.stop(grace_seconds=0.0)
        await asyncio.sleep(0)
    return bad, good, errors


async def _exchange(path: str, pieces: list[bytes], *, half_close: bool) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        for piece in pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if half_close:
            writer.write_eof()
        return await asyncio.wait_for(reader.read(), 0.3)
    except (ConnectionError, TimeoutError, RuntimeError):
        return b""
    finally:
        writer.close()


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.one_of(st.sampled_from(_PARTS), st.binary(max_size=20)), max_size=10),
    seed=st.integers(0, 99),
)
def test_no_bytes_stop_the_server(pieces: list[bytes], seed: int) -> None:
    """Whatever one client sends, nothing counts as a bug, and the next client is served."""
    _, good, errors = uvloop.run(_talk(pieces, seed))
    assert errors == []
    assert good.endswith(b"good")
