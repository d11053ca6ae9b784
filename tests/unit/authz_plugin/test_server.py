"""The server as dockerd meets it: real sockets, kept-alive connections, an empty Host, garbage."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from authz_plugin.server import BODY_LIMIT_BYTES, AuthzServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    Answer = Callable[[str, bytes], bytes | Awaitable[bytes] | None]


def post(body: bytes, path: str = "/AuthZPlugin.AuthZReq", extra: str = "") -> bytes:
    """A call as dockerd 20.10 makes it: the Host header is empty."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: \r\nUser-Agent: Go-http-client/1.1\r\nContent-Length: {len(body)}\r\n"
        f"Accept: application/vnd.docker.plugins.v1.2+json\r\n{extra}\r\n"
    )
    return head.encode() + body


@asynccontextmanager
async def serving(
    tmp_path: Path, answer: Answer
) -> AsyncIterator[tuple[Path, asyncio.Event, asyncio.Task[None]]]:
    path = tmp_path / "s"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    stop = asyncio.Event()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(AuthzServer(answer).serve(listener, stop))
        try:
            yield path, stop, task
        finally:
            stop.set()


async def receive(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: "))
    return int(head[9:12]), await reader.readexactly(length)


def echo(path: str, body: bytes) -> bytes:
    return b"%d:" % len(body) + path.encode() + b":" + body[:10]


async def test_calls_share_a_connection(tmp_path: Path) -> None:
    """Keep-alive, and an empty Host header is no mistake."""
    async with serving(tmp_path, echo) as (path, _, _):
        reader, writer = await asyncio.open_unix_connection(path)
        for number in range(3):
            writer.write(post(b"x" * number))
            status, body = await receive(reader)
            assert (status, body.split(b":")[0]) == (200, b"%d" % number)
        writer.close()


async def test_a_call_may_come_in_pieces(tmp_path: Path) -> None:
    """Byte by byte is the same call."""
    async with serving(tmp_path, echo) as (path, _, _):
        reader, writer = await asyncio.open_unix_connection(path)
        for byte in post(b"{}"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        assert await receive(reader) == (200, b"2:/AuthZPlugin.AuthZReq:{}")
        writer.close()


async def test_calls_in_one_piece_are_answered_in_order(tmp_path: Path) -> None:
    """dockerd does not pipeline; if it did, no answer would change places, slow ones included."""

    async def slowly(body: bytes) -> bytes:
        await asyncio.sleep(0.02)
        return body

    def answer(path: str, body: bytes) -> bytes | Awaitable[bytes]:
        return slowly(body) if body == b"slow" else body

    async with serving(tmp_path, answer) as (path, _, _):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(post(b"slow") + post(b"fast") + post(b"slow") + post(b"last"))
        assert [(await receive(reader))[1] for _ in range(4)] == [b"slow", b"fast", b"slow", b"last"]
        writer.close()


async def test_connections_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """A slow account lookup holds up its own request only."""
    release = asyncio.Event()

    async def held() -> bytes:
        await release.wait()
        return b"held"

    def answer(path: str, body: bytes) -> bytes | Awaitable[bytes]:
        return held() if body == b"slow" else b"quick"

    async with serving(tmp_path, answer) as (path, _, _):
        slow_reader, slow_writer = await asyncio.open_unix_connection(path)
        slow_writer.write(post(b"slow"))
        for _ in range(20):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(post(b""))
            assert await receive(reader) == (200, b"quick")
            writer.close()
        release.set()
        assert await receive(slow_reader) == (200, b"held")
        slow_writer.close()


async def test_large_bodies_are_read_whole(tmp_path: Path) -> None:
    """2 MiB and more come from newer engines."""
    async with serving(tmp_path, lambda _, body: b"%d" % len(body)) as (path, _, _):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(post(b"x" * (2 << 20)))
        assert await receive(reader) == (200, b"%d" % (2 << 20))
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"\x16\x03\x01\x02\x00", id="TLS"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", id="chunked"),
        pytest.param(
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", id="two lengths"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", id="negative length"),
        pytest.param(post(b"", extra="Upgrade: h2c\r\nConnection: upgrade\r\n"), id="upgrade"),
        pytest.param(
            b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT_BYTES + 1), id="too long"
        ),
        pytest.param(b"POST / HTTP/1.1\r\nA: " + b"x" * 70_000, id="endless head"),
    ],
)
async def test_what_dockerd_does_not_send_ends_the_connection(tmp_path: Path, sent: bytes) -> None:
    """400 and closed; dockerd takes that for a refusal. Others are served on."""
    async with serving(tmp_path, echo) as (path, _, _):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(sent)
        status, _ = await receive(reader)
        assert status == 400
        assert await reader.read() == b""
        writer.close()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(post(b""))
        assert (await receive(reader))[0] == 200
        writer.close()


async def test_other_methods_and_paths_are_refused(tmp_path: Path) -> None:
    """POST to the three known calls, nothing else."""
    async with serving(tmp_path, lambda _path, _body: None) as (path, _, _):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"GET /Plugin.Activate HTTP/1.1\r\nHost: \r\n\r\n")
        assert (await receive(reader))[0] == 405
        writer.write(post(b"", path="/x"))
        assert (await receive(reader))[0] == 404
        writer.close()


async def test_a_client_that_leaves_harms_nobody(tmp_path: Path) -> None:
    """Gone in the middle of a body, or while its answer is being made."""
    release = asyncio.Event()

    async def held() -> bytes:
        await release.wait()
        return b"held"

    async with serving(tmp_path, lambda _, body: held() if body else b"quick") as (path, _, _):
        for sent in (post(b"xxxx")[:-2], post(b"x")):
            _, writer = await asyncio.open_unix_connection(path)
            writer.write(sent)
            await writer.drain()
            writer.close()
            await asyncio.sleep(0.01)
        release.set()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(post(b""))
        assert await receive(reader) == (200, b"quick")
        writer.close()


async def test_stopping_finishes_what_is_under_way(tmp_path: Path) -> None:
    """SIGTERM loses no answer; idle connections close at once."""
    release = asyncio.Event()

    async def held() -> bytes:
        await release.wait()
        return b"held"

    async with serving(tmp_path, lambda _path, _body: held()) as (path, stop, task):
        idle, idle_writer = await asyncio.open_unix_connection(path)
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(post(b""))
        await asyncio.sleep(0.02)
        stop.set()
        assert await idle.read() == b""
        assert not task.done()
        release.set()
        assert await receive(reader) == (200, b"held")
        assert await reader.read() == b""
        await task
        idle_writer.close()
        writer.close()


async def test_a_burst_of_connections_waits_its_turn(tmp_path: Path) -> None:
    """dockerd connects for each of many calls at once; one that is turned away comes back after a second."""
    async with serving(tmp_path, echo) as (path, _, _):
        await asyncio.sleep(0)  # the server listens
        clients = [
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(400)
        ]
        try:
            for client in clients:
                client.connect(
                    str(path)
                )  # nobody accepts meanwhile: BlockingIOError when the backlog is full
        finally:
            for client in clients:
                client.close()
