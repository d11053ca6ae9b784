"""One exchange: the order of head, body and end, and a client that leaves."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from http1.errors import ClientGone

if TYPE_CHECKING:
    from http1.exchange import Exchange
    from tests.unit.http1.conftest import Hop

GET = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"


async def test_promised_length_is_kept(hop: Hop) -> None:
    """Too many or too few bytes for the promised length raise before they are sent."""
    caught: list[str] = []

    async def handler(exchange: Exchange) -> None:
        exchange.start_response(200, content_length=3)
        for call in (partial(exchange.write, b"1234"), exchange.end):
            try:
                await call()
            except ValueError as error:
                caught.append(str(error))
        await exchange.write(b"123")
        await exchange.end()
        with pytest.raises(ValueError, match="second response"):
            await exchange.respond(200)

    await hop.serve(handler)
    assert (await (await hop.connect()).get("/"))[1] == b"123"
    assert len(caught) == 2
    assert hop.errors == []


async def test_continue_is_not_sent_when_refused_before_the_body(hop: Hop) -> None:
    """A refusal from the head alone saves the upload, and closes since the rest is uncertain."""

    async def handler(exchange: Exchange) -> None:
        await exchange.respond(403)

    await hop.serve(handler)
    client = await hop.connect()
    client.say(b"PUT / HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    head = await client.head()
    assert b"403" in head
    assert b"Connection: close" in head


async def test_client_gone_is_told(hop: Hop) -> None:
    """`on_gone` fires once, while the handler runs or at once after; writing raises ClientGone in the end."""
    gone = asyncio.Event()
    failed = asyncio.Event()

    async def handler(exchange: Exchange) -> None:
        exchange.on_gone(gone.set)
        exchange.start_response(200)
        try:
            while True:
                await exchange.write(b"tick")
                await asyncio.sleep(0.01)
        except ClientGone:
            failed.set()
            raise

    await hop.serve(handler)
    client = await hop.connect()
    client.say(GET)
    await client.head()
    client.writer.close()
    await asyncio.wait_for(gone.wait(), 1)
    await asyncio.wait_for(failed.wait(), 1)
    assert hop.errors == []


async def test_what_was_derived_lasts_as_long_as_the_head(hop: Hop) -> None:
    """A repeated head finds what the handler left; another head, and another connection, find nothing."""
    found: list[object] = []

    async def handler(exchange: Exchange) -> None:
        found.append(exchange.derived)
        exchange.derived = exchange.head.target
        await exchange.respond(200)

    await hop.serve(handler)
    client = await hop.connect()
    for target in ("/a", "/a", "/b", "/a"):
        await client.get(target)
    await (await hop.connect()).get("/a")
    assert found == [None, "/a", None, None, None]


async def test_nothing_is_kept_of_a_long_head(hop: Hop) -> None:
    """An idle connection does not hold what a client could make large."""
    found: list[object] = []

    async def handler(exchange: Exchange) -> None:
        found.append(exchange.derived)
        exchange.derived = exchange.head
        await exchange.respond(200)

    server = await hop.serve(handler)
    client = await hop.connect()
    for _ in range(2):
        await client.get("/" + "a" * 4096)
        ((connection,),) = (listener.connections for listener in server._listeners)
        assert connection.derived is None
    assert found == [None, None]


async def test_each_answer_has_its_own_head(hop: Hop) -> None:
    """A head written before is used again only for the very same answer."""
    answers = [(200, "x", b"1"), (200, "x", b"1"), (200, "y", b"1"), (404, "y", b"1"), (404, "y", b"22")]
    left = iter(answers)

    async def handler(exchange: Exchange) -> None:
        status, value, body = next(left)
        await exchange.respond(status, (("x-value", value),), body)

    await hop.serve(handler)
    client = await hop.connect()
    for status, value, body in answers:
        head, got = await client.get("/")
        assert f"HTTP/1.1 {status} ".encode() in head
        assert f"X-Value: {value}\r\nContent-Length: {len(body)}\r\n".encode() in head
        assert got == body
