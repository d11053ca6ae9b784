"""The pool: what is retried, what is told, what is never used again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from http1.client import Pool, prepare
from http1.errors import BadResponse, ClientGone, UpstreamLost, UpstreamUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.fakes.scripted_dockerd import Script, Talk
    from tests.unit.http1.conftest import Hop, Waiter


async def _pool(hop: Hop, script: Script) -> Pool:
    await hop.upstream(script)
    pool = Pool(str(hop.directory / "engine.sock"))
    hop.stack.callback(pool.close)
    return pool


async def test_no_upstream(hop: Hop) -> None:
    """Nothing listens: nothing was sent."""
    with pytest.raises(UpstreamUnavailable):
        await Pool(str(hop.directory / "none.sock")).request("GET", "/")


async def _once(talk: Talk) -> None:
    await talk.head()
    await talk.answer(b"one")
    await talk.head()  # and dies instead of an answer


async def test_stale_connection_is_retried_for_get(hop: Hop) -> None:
    """A kept-alive connection that dies without a byte: a GET is sent again, once."""
    pool = await _pool(hop, _once)
    for _ in range(3):
        assert await (await pool.request("GET", "/")).read(10) == b"one"


@pytest.mark.parametrize(("method", "body"), [("POST", b"x"), ("POST", None), ("DELETE", None)])
async def test_stale_connection_is_not_retried_for_effects(hop: Hop, method: str, body: bytes | None) -> None:
    """What may have taken effect is not done twice."""
    pool = await _pool(hop, _once)
    await (await pool.request("GET", "/")).read(10)
    with pytest.raises(UpstreamLost):
        await pool.request(method, "/", (), body)


async def test_fresh_connection_is_never_retried(hop: Hop) -> None:
    """An upstream that closes on every request is asked once."""
    asked = 0

    async def script(talk: Talk) -> None:
        nonlocal asked
        await talk.head()
        asked += 1

    pool = await _pool(hop, script)
    with pytest.raises(UpstreamLost):
        await pool.request("GET", "/")
    assert asked == 1


async def test_bytes_behind_an_answer_poison_the_connection(hop: Hop) -> None:
    """A second answer nobody asked for is never given to the next request."""

    async def script(talk: Talk) -> None:
        head = await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + head[5:6])
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await talk.reader.read()

    pool = await _pool(hop, script)
    for n in range(4):
        assert await (await pool.request("GET", f"/{n}")).read(10) == str(n).encode()
        await asyncio.sleep(0.01)
        assert pool.idle_count == 0


async def test_connection_close_is_not_pooled(hop: Hop) -> None:
    """An answer that says close is believed."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.answer(b"x", headers="Connection: close\r\n")
        await talk.reader.read()

    pool = await _pool(hop, script)
    await (await pool.request("GET", "/")).read(1)
    assert pool.idle_count == 0


async def test_garbage_is_a_bad_response(hop: Hop) -> None:
    """An upstream that does not speak HTTP."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"SSH-2.0\r\n\r\n")

    pool = await _pool(hop, script)
    with pytest.raises(BadResponse):
        await pool.request("GET", "/")


async def test_read_over_limit(hop: Hop) -> None:
    """An answer larger than the caller accepts is not stored."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.answer(bytes(5000))
        await talk.head()

    pool = await _pool(hop, script)
    response = await pool.request("GET", "/")
    with pytest.raises(BadResponse):
        await response.read(100)


async def test_abort_closes_upstream(hop: Hop) -> None:
    """A response that is given up ends the upstream's request, and reading it raises."""
    ended = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await talk.reader.read()
        ended.set()

    pool = await _pool(hop, script)
    response = await pool.request("GET", "/")
    response.abort()
    with pytest.raises(UpstreamLost):
        await response.read_some()
    await asyncio.wait_for(ended.wait(), 1)


async def test_cancelled_request_closes_upstream(hop: Hop) -> None:
    """Cancelling the caller leaves no request running upstream."""
    asked, ended = asyncio.Event(), asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        asked.set()
        await talk.reader.read()
        ended.set()

    pool = await _pool(hop, script)
    task = asyncio.get_running_loop().create_task(pool.request("GET", "/"))
    await asked.wait()
    task.cancel()
    await asyncio.wait_for(ended.wait(), 1)


@pytest.mark.parametrize("length", [2, 4])
async def test_promised_upload_length_is_kept(hop: Hop, length: int, until: Waiter) -> None:
    """An iterator that gives more or less than promised never reaches the upstream as a whole request."""

    async def body() -> AsyncIterator[bytes]:
        yield b"ab"
        yield b"c"

    got: list[bytes] = []

    async def script(talk: Talk) -> None:
        await talk.head()
        got.append(await talk.reader.read())

    pool = await _pool(hop, script)
    with pytest.raises(ValueError, match="promised length"):
        await pool.request("PUT", "/", (), body(), content_length=length)
    await until(lambda: bool(got))
    assert len(got[0]) <= min(3, length)


async def test_body_source_error_reaches_the_caller(hop: Hop) -> None:
    """Whatever the body raises is raised by the request."""

    async def body() -> AsyncIterator[bytes]:
        yield b"ab"
        raise KeyError("mine")

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.reader.read()

    pool = await _pool(hop, script)
    with pytest.raises(KeyError):
        await pool.request("PUT", "/", (), body())


async def test_nothing_is_sent_for_a_client_that_has_left(hop: Hop) -> None:
    """A request whose watcher left before it was sent does not reach the upstream."""

    class Left:
        def on_gone(self, callback: Callable[[], None] | None) -> None:
            assert callback is not None
            callback()

    got: list[bytes] = []

    async def script(talk: Talk) -> None:
        got.append(await talk.reader.read())

    pool = await _pool(hop, script)
    with pytest.raises(ClientGone):
        await pool.request("POST", "/create", watch=Left())
    await asyncio.sleep(0.05)
    assert got in ([], [b""])


async def test_a_prepared_call_is_sent_again_with_another_header(hop: Hop) -> None:
    """The added header stands inside the head, and the call itself stays as it was."""
    heads: list[bytes] = []

    async def script(talk: Talk) -> None:
        for _ in range(2):
            heads.append(await talk.head())
            await talk.answer(b"one")

    pool = await _pool(hop, script)
    call = prepare("GET", "/x")
    for value in ("1", "2"):
        assert await (await pool.send(call.with_field("x-turn", value))).read(10) == b"one"
    assert [head.count(b"X-Turn") for head in heads] == [1, 1]
    assert heads[1].startswith(b"GET /x HTTP/1.1\r\n")
    assert heads[1].endswith(b"\r\nX-Turn: 2\r\n\r\n")


@pytest.mark.parametrize(
    ("name", "value"), [("x", "a\r\nb: c"), ("x y", "a"), ("x", "\0"), ("content-length", "3"), ("", "a")]
)
def test_an_added_header_is_one_header(name: str, value: str) -> None:
    """A value cannot become a header, and framing is http1's."""
    with pytest.raises(ValueError, match=r"header|http1"):
        prepare("GET", "/").with_field(name, value)


def test_no_header_goes_behind_a_body() -> None:
    """A call with body bytes is complete."""
    with pytest.raises(ValueError, match="body"):
        prepare("POST", "/", (), b"{}").with_field("x", "a")
