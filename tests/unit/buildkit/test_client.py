"""ds01's own calls to a scripted engine."""

from __future__ import annotations

import asyncio

import pytest

from buildkit.framing import frame
from buildkit.ports import Failed
from tests.fakes.grpc_ends import SECONDS, Engine, calling


async def test_an_answer_comes_message_by_message() -> None:
    """The first is there before the last was sent."""
    more = asyncio.Event()

    async def slowly(engine: Engine, stream: int) -> None:
        engine.h2.send_headers(stream, [(":status", "200")])
        await engine.send(stream, frame(b"one"))
        await more.wait()
        await engine.send(stream, frame(b"two"))
        engine.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        await engine.flush()

    async with calling() as (client, engine):
        engine.script = slowly
        got: list[bytes] = []
        async for message in client.call("/x", (("a", "b"),), b"q"):
            got.append(message)
            more.set()
        assert got == [b"one", b"two"]
        sent = engine.streams[1]
        assert (sent.headers[":path"], sent.headers["a"], sent.messages) == ("/x", "b", [b"q"])


async def test_a_long_answer_is_read_as_fast_as_it_is_taken() -> None:
    """More than the windows hold, in messages larger than one window."""
    async with calling() as (client, engine):

        async def much(engine: Engine, stream: int) -> None:
            await engine.give(stream, *[bytes([n]) * 600_000 for n in range(10)])

        engine.script = much
        found = await asyncio.wait_for(client.ask("/x", b""), SECONDS)
        assert [(len(one), one[0]) for one in found] == [(600_000, n) for n in range(10)]


async def test_two_calls_at_once() -> None:
    """Each gets its own answer."""
    async with calling() as (client, _):
        found = await asyncio.gather(client.ask("/a", b"1"), client.ask("/b", b"2"))
        assert [*found] == [(b"1",), (b"2",)]


async def test_a_refusal_is_raised_with_its_words() -> None:
    """Percent-encoded as they travel."""

    async def refuse(engine: Engine, stream: int) -> None:
        await engine.give(stream, b"half", status=2, words="exit code%3A 1")

    async with calling() as (client, engine):
        engine.script = refuse
        with pytest.raises(Failed, match="exit code: 1"):
            await client.ask("/x", b"")


async def test_a_call_that_is_given_up_is_reset() -> None:
    """The engine hears that nobody listens."""

    async def first(engine: Engine, stream: int) -> None:
        engine.h2.send_headers(stream, [(":status", "200")])
        await engine.send(stream, frame(b"one"))

    async with calling() as (client, engine):
        engine.script = first
        answer = client.call("/x", (), b"")
        assert await anext(answer) == b"one"
        await answer.aclose()
        for _ in range(100):
            if engine.streams[1].reset is not None:
                break
            await asyncio.sleep(0.01)
        assert engine.streams[1].reset == 8


@pytest.mark.parametrize("how", ["leave", "reset", "message", "nothing"])
async def test_an_end_that_is_none_fails(how: str) -> None:
    """Whoever waits is told, and nobody waits for ever."""

    async def end(engine: Engine, stream: int) -> None:
        if how == "leave":
            engine.leave()
        elif how == "reset":
            engine.h2.reset_stream(stream)
        elif how == "message":
            engine.h2.send_headers(stream, [(":status", "200")])
            await engine.send(stream, b"\1\0\0\0\0")
        else:
            engine.h2.send_headers(stream, [(":status", "200")], end_stream=True)
        await engine.flush()

    async with calling() as (client, engine):
        engine.script = end
        with pytest.raises(Failed):
            await asyncio.wait_for(client.ask("/x", b""), SECONDS)


async def test_a_closed_connection_takes_no_calls() -> None:
    """They fail at once."""
    async with calling() as (client, engine):
        client.close()
        await asyncio.wait_for(engine.closed.wait(), SECONDS)
        await asyncio.sleep(0)
        with pytest.raises(Failed):
            await asyncio.wait_for(client.ask("/x", b""), SECONDS)
