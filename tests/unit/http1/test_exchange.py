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
