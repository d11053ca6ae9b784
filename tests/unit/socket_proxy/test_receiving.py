"""What is read of a request, how much of it, and how much at once."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import TYPE_CHECKING, Any, cast

import pytest

from http1.heads import RequestHead
from policy.dockerapi.model import MalformedRequest, Operation
from policy.dockerapi.read import read as read_request
from socket_proxy import receiving
from socket_proxy.receiving import Receiving

if TYPE_CHECKING:
    from socket_proxy.repeat import Reading

JSON = ("content-type", "application/json; charset=utf-8")


class Asked:
    """An exchange, as far as it is read."""

    def __init__(self, line: str, body: bytes = b"", *headers: tuple[str, str]) -> None:
        self.derived: Reading | None = None
        self.body = body
        self.most: int | None = None
        method, _, target = line.partition(" ")
        self.head = RequestHead(
            method=method,
            target=target,
            headers=(("host", "d"), *headers),
            content_length=len(body),
            chunked=False,
            upgrade=None,
            expect_continue=False,
            keep_alive=True,
        )

    async def read_body(self, most: int) -> bytes:
        self.most = most
        return self.body


async def read(one: Receiving, asked: Asked) -> Reading:
    exchange = cast("Any", asked)
    return await one.read(exchange, await one.receive(exchange))


@pytest.fixture
def one() -> Receiving:
    return Receiving(engine_max=(1, 41), json_bytes=1000)


async def test_json_is_read_within_its_limit(one: Receiving) -> None:
    """By its media type, whatever its parameters; the limit is the connection's to enforce."""
    asked = Asked("POST /v1.41/containers/create", b'{"Image": "busybox"}', JSON)
    reading = await read(one, asked)
    assert asked.most == 1000
    assert reading.request.operation is Operation.CONTAINER_CREATE
    assert reading.request.body is not None
    assert reading.request.body["Image"] == "busybox"


async def test_an_upload_is_left_to_its_handler(one: Receiving) -> None:
    """A tar is no question: nothing of it is read before the decision."""
    asked = Asked("PUT /v1.41/containers/box/archive?path=/", b"...", ("content-type", "application/x-tar"))
    assert (await read(one, asked)).request.operation is Operation.PUT_CONTAINER_ARCHIVE
    assert asked.most is None


async def test_a_repeated_head_is_understood_once(one: Receiving) -> None:
    """Without a body it says all there is, so that the connection keeps what it means; with one it does not."""
    asked = Asked("GET /v1.41/containers/json")
    first = await read(one, asked)
    assert not first.again
    assert await read(one, asked) is first
    assert first.again
    creating = Asked("POST /v1.41/containers/create", b"{}", JSON)
    assert await read(one, creating) is not await read(one, creating)


async def test_one_large_body_for_each_turn_of_the_loop(
    one: Receiving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty large ones at once: others have their turn between each two of them."""
    happened: list[str] = []

    def noted(*asked: Any, **how: Any) -> Any:
        happened.append("read")
        return read_request(*asked, **how)

    async def others() -> None:
        while happened.count("read") < 20:
            happened.append("other")
            await asyncio.sleep(0)

    monkeypatch.setattr(receiving, "read", noted)
    body = json.dumps({"Image": "busybox", "Env": ["A=" + "x" * 1000] * 40}).encode()
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        for _ in range(20):
            tasks.create_task(read(one, Asked("POST /v1.41/containers/create", body, JSON)))
        tasks.create_task(others())
    assert not any(pair == ("read", "read") for pair in itertools.pairwise(happened)), happened


async def test_what_cannot_be_read_is_told(one: Receiving) -> None:
    """Large or small, and it does not stand in the way of the next."""
    for filler in ("", "x" * 40_000):
        body = ('{"Image": "a", "image": "' + filler + '"}').encode()
        with pytest.raises(MalformedRequest):
            await read(one, Asked("POST /v1.41/containers/create", body, JSON))
    assert (await read(one, Asked("GET /_ping"))).request.operation is Operation.SYSTEM_PING
