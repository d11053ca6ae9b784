"""The server: one exchange at a time, errors that end at their own connection, limits."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from http1.errors import BadRequest
from http1.limits import Limits

if TYPE_CHECKING:
    from http1.exchange import Exchange
    from tests.unit.http1.conftest import Hop

GET = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n"


async def _echo(exchange: Exchange) -> None:
    await exchange.respond(200, (), await exchange.read_body(1000))


async def test_body_is_read_and_connection_kept(hop: Hop) -> None:
    """Bodies in any framing are read whole, one request after the other."""
    await hop.serve(_echo)
    client = await hop.connect()
    client.say(
        POST % 3
        + b"abc"
        + b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        + GET
    )
    assert [(await client.answer())[1] for _ in range(3)] == [b"abc", b"hi", b""]


@pytest.mark.parametrize("framing", ["Content-Length: 1001", "Transfer-Encoding: chunked"])
async def test_large_body_is_refused(hop: Hop, framing: str) -> None:
    """413 in Docker's form, and the connection closes."""
    await hop.serve(_echo)
    client = await hop.connect()
    client.say(f"POST / HTTP/1.1\r\nHost: d\r\n{framing}\r\n\r\n3e9\r\n".encode() + bytes(1001))
    head, body = await client.answer()
    assert b"413" in head
    assert b"Connection: close" in head
    assert b'{"message": "request body is' in body
    assert await client.rest() == b""


async def test_malformed_head_is_answered_and_closed(hop: Hop) -> None:
    """Framing in doubt: one error in Docker's form, nothing parsed after it."""
    await hop.serve(_echo)
    client = await hop.connect()
    client.say(b"GET / HTTP/1.1\nHost: d\n\n" + GET)
    head, body = await client.answer()
    assert b"400 Bad Request" in head
    assert b"application/json" in head
    assert b'{"message":' in body
    assert await client.rest() == b""


async def test_smuggled_request_after_an_error_is_not_served(hop: Hop) -> None:
    """A valid request behind a malformed one in the same pipeline never runs."""
    seen: list[str] = []

    async def handler(exchange: Exchange) -> None:
        seen.append(exchange.head.target)
        await exchange.respond(200)

    await hop.serve(handler)
    client = await hop.connect()
    client.say(GET + b"GET /bad HTTP/1.1\r\nHost: d\r\nHost: e\r\n\r\n" + GET.replace(b"/ ", b"/evil "))
    answer = await client.rest()
    assert answer.count(b"HTTP/1.1") == 2
    assert seen == ["/"]


async def test_handler_error_ends_its_connection_only(hop: Hop) -> None:
    """A bug is a 500 without detail; other clients go on."""

    async def handler(exchange: Exchange) -> None:
        if exchange.head.target == "/bug":
            raise RuntimeError("secret")
        await exchange.respond(200, (), b"fine")

    await hop.serve(handler)
    bad, good = await hop.connect(), await hop.connect()
    head, body = await bad.get("/bug")
    assert b"500" in head
    assert b"secret" not in body
    assert (await good.get("/"))[1] == b"fine"
    assert [str(error) for error in hop.errors] == ["secret"]


async def test_silent_handler_is_an_error(hop: Hop) -> None:
    """A handler that returns without an answer does not leave its client waiting."""

    async def handler(_exchange: Exchange) -> None:
        return

    await hop.serve(handler)
    assert b"500" in (await (await hop.connect()).get("/"))[0]


async def test_started_answer_that_fails_is_cut(hop: Hop) -> None:
    """An error after the head cannot become a second answer."""

    async def handler(exchange: Exchange) -> None:
        exchange.start_response(200)
        await exchange.write(b"part")
        await asyncio.sleep(0.02)
        raise RuntimeError("late")

    await hop.serve(handler)
    client = await hop.connect()
    client.say(GET)
    assert (await client.rest()).endswith(b"4\r\npart\r\n")


async def test_unread_small_body_is_drained(hop: Hop) -> None:
    """A handler that ignores a small body keeps the connection."""

    async def handler(exchange: Exchange) -> None:
        await exchange.respond(200, (), exchange.head.target.encode())

    await hop.serve(handler)
    client = await hop.connect()
    client.say(POST % 5000)
    assert b"close" not in (await client.answer())[0]
    client.say(bytes(5000) + GET)
    assert (await client.answer())[1] == b"/"


async def test_unread_large_body_closes(hop: Hop) -> None:
    """A handler that ignores a large body answers and closes; the answer is readable."""

    async def handler(exchange: Exchange) -> None:
        await exchange.respond(403, (), b"no")

    await hop.serve(handler)
    client = await hop.connect()
    client.say(POST % 10_000_000 + bytes(400_000))
    head, body = await client.answer()
    assert b"Connection: close" in head
    assert body == b"no"
    assert await client.rest() == b""


async def test_peer_credentials_are_reachable(hop: Hop) -> None:
    """The handler can ask the kernel who is at the other end."""

    async def handler(exchange: Exchange) -> None:
        raw = exchange.peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        await exchange.respond(200, (), str(struct.unpack("3i", raw)).encode())

    await hop.serve(handler)
    assert (await (await hop.connect()).get("/"))[1] == str((os.getpid(), os.getuid(), os.getgid())).encode()


async def test_slow_head_is_ended(hop: Hop) -> None:
    """Slowloris: a head that is begun must come in time, however steadily it trickles."""
    await hop.serve(_echo, limits=Limits(head_seconds=0.15))
    client = await hop.connect()
    for byte in GET[:-1]:
        client.say(bytes([byte]))
        await asyncio.sleep(0.02)
        if client.reader.at_eof():
            break
    assert b"408" in await client.rest()


async def test_idle_connection_is_closed(hop: Hop) -> None:
    """A kept-alive connection without requests ends; one in a long exchange does not."""

    async def slow(exchange: Exchange) -> None:
        await asyncio.sleep(0.4)
        await exchange.respond(200, (), b"late")

    await hop.serve(slow, limits=Limits(idle_seconds=0.1))
    idle, busy = await hop.connect(), await hop.connect()
    busy.say(GET)
    assert await asyncio.wait_for(idle.rest(), 1) == b""
    assert (await busy.answer())[1] == b"late"


@pytest.mark.parametrize(
    "limits",
    [Limits(connections=2, turn_away_seconds=0.3), Limits(connections_per_uid=2, turn_away_seconds=0.3)],
)
async def test_connection_limit(hop: Hop, limits: Limits) -> None:
    """One connection too many is told so; when one ends, the one that waits is served."""
    server = await hop.serve(_echo, limits=limits)
    first, second = await hop.connect(), await hop.connect()
    await first.get("/")
    await second.get("/")
    third = await hop.connect()
    head, body = await third.answer()
    assert b"503" in head
    assert b"too many connections" in body
    if limits.connections_per_uid == 2:
        assert b"(rule connections)" in body
    assert await third.rest() == b""
    waiting = await hop.connect()
    waiting.say(GET)
    first.writer.close()
    assert b"200" in (await waiting.answer())[0]
    assert server.connection_count == 2


async def test_stop_lets_exchanges_finish(hop: Hop) -> None:
    """Graceful stop: the running request is answered, the idle connection closes."""
    begun = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        await exchange.respond(200, (), b"late")

    server = await hop.serve(slow)
    idle, busy = await hop.connect(), await hop.connect()
    busy.say(GET)
    await begun.wait()
    stopping = asyncio.get_running_loop().create_task(server.stop(grace_seconds=2))
    head, body = await busy.answer()
    assert body == b"late"
    assert b"Connection: close" in head
    assert await idle.rest() == b""
    await stopping


async def test_stop_cancels_what_does_not_end(hop: Hop) -> None:
    """After the grace time a stream is ended, and its handler may clean up."""
    cleaned = asyncio.Event()

    async def stream(exchange: Exchange) -> None:
        exchange.start_response(200)
        try:
            await asyncio.sleep(100)
        finally:
            cleaned.set()

    server = await hop.serve(stream)
    client = await hop.connect()
    client.say(GET)
    await client.head()
    await server.stop(grace_seconds=0.05)
    await asyncio.wait_for(cleaned.wait(), 1)
    assert server.connection_count == 0


async def test_held_bytes_are_bounded(hop: Hop) -> None:
    """A client that floods a busy connection is held back by the kernel, not stored."""
    go = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        await go.wait()
        await exchange.respond(200)

    await hop.serve(handler, limits=Limits(high_water_bytes=4096, low_water_bytes=1024))
    client = await hop.connect()
    client.say(GET + b"x" * 8_000_000)
    await asyncio.sleep(0.2)
    assert client.writer.transport.get_write_buffer_size() > 6_000_000
    go.set()
    assert b"200" in await client.head()


async def test_bad_request_of_the_handler_is_answered(hop: Hop) -> None:
    """A handler may refuse with the reader's own exception."""

    async def handler(_exchange: Exchange) -> None:
        raise BadRequest(417, "no")

    await hop.serve(handler)
    assert b"417" in (await (await hop.connect()).get("/"))[0]
