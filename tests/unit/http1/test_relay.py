"""The whole hop on real sockets: what a Docker proxy must get right."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING

import pytest

from http1.client import Pool
from http1.limits import Limits

if TYPE_CHECKING:
    from http1.exchange import Exchange
    from tests.fakes.scripted_dockerd import Talk
    from tests.unit.http1.conftest import Hop, Waiter

GET = b"GET / HTTP/1.1\r\nHost: d\r\n\r\n"
RAW = b"POST /raw HTTP/1.1\r\nHost: d\r\n\r\n"
UPGRADE = b"POST /attach HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"


async def _ok(talk: Talk) -> None:
    while True:
        head = await talk.head()
        await talk.answer(head.split()[1])


async def test_keep_alive_uses_one_upstream_connection(hop: Hop) -> None:
    """Requests one after another share both connections."""
    fake = await hop.relay(_ok)
    client = await hop.connect()
    for n in range(5):
        assert (await client.get(f"/{n}"))[1] == f"/{n}".encode()
    assert len(fake.talks) == 1


async def test_pipelined_requests_are_separate_and_in_order(hop: Hop) -> None:
    """Each pipelined request is carried on its own."""
    fake = await hop.relay(_ok)
    client = await hop.connect()
    client.say(b"".join(b"GET /%d HTTP/1.1\r\nHost: d\r\n\r\n" % n for n in range(20)))
    assert [(await client.answer())[1] for _ in range(20)] == [b"/%d" % n for n in range(20)]
    assert sum(len(talk.heads) for talk in fake.talks) == 20


async def test_half_closed_pipeline_is_answered(hop: Hop) -> None:
    """A client that sends two requests and shuts its side is not cut off while bytes of it are held."""
    await hop.relay(_ok)
    client = await hop.connect()
    client.say(GET * 2)
    client.writer.write_eof()
    assert (await client.rest()).count(b"200 OK") >= 1


async def test_head_goes_out_before_the_body_exists(hop: Hop) -> None:
    """`/wait` and `/events` answer their head at once."""
    go = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await go.wait()
        await talk.say(b"2\r\nhi\r\n0\r\n\r\n")
        await talk.head()

    await hop.relay(script)
    client = await hop.connect()
    client.say(GET)
    head = await asyncio.wait_for(client.head(), 1)
    assert b"Transfer-Encoding: chunked" in head
    go.set()
    assert await client.reader.readexactly(12) == b"2\r\nhi\r\n0\r\n\r\n"


async def test_each_chunk_is_passed_at_once(hop: Hop) -> None:
    """A log line does not wait for the next one."""
    step = asyncio.Event()

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await step.wait()
        await talk.say(b"1\r\nb\r\n0\r\nX-T: t\r\n\r\n")

    await hop.relay(script)
    client = await hop.connect()
    client.say(GET)
    await client.head()
    assert await asyncio.wait_for(client.reader.readexactly(6), 1) == b"1\r\na\r\n"
    step.set()
    assert await client.reader.readuntil(b"\r\n\r\n") == b"1\r\nb\r\n0\r\nX-T: t\r\n\r\n"


@pytest.mark.parametrize("protocol", [b"tcp", b"h2c", b"websocket"])
async def test_hijack_by_101_is_two_way_and_opaque(hop: Hop, protocol: bytes) -> None:
    """After 101 the bytes pass, whatever they look like; early ones are held until then."""
    got: list[bytes] = []

    async def script(talk: Talk) -> None:
        await talk.head()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(talk.reader.read(1), 0.1)  # held until the 101
        await talk.say(
            b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\nfirst"
        )
        got.append(await talk.reader.readexactly(len(GET) + 1))
        await talk.say(b"HTTP/1.1 not parsed")
        talk.half_close()
        await talk.reader.read()

    await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % protocol + GET)
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n")
    assert b"Upgrade: " + protocol in head
    client.say(b"!")
    assert await client.rest() == b"firstHTTP/1.1 not parsed"
    assert got == [GET + b"!"]


async def test_hijack_by_200_without_upgrade_is_two_way(hop: Hop) -> None:
    """docker-py attaches without Upgrade: 200 without length, then raw bytes both ways."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n")
        await talk.say(b"<" + await talk.reader.readexactly(4) + b">")
        talk.close()

    await hop.relay(script)
    client = await hop.connect()
    client.say(RAW)
    head = await client.head()
    assert b"Transfer-Encoding" not in head
    client.say(b"ping")
    assert await client.reader.readexactly(6) == b"<ping>"


async def test_client_half_close_reaches_the_upstream_and_output_goes_on(hop: Hop) -> None:
    """`echo x | docker run -i`: stdin ends, output comes after it."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
        data = await talk.reader.read()
        await asyncio.sleep(0.05)
        await talk.say(data.upper())

    await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % b"tcp")
    await client.head()
    client.say(b"x")
    client.writer.write_eof()
    assert await client.rest() == b"X"


async def test_half_close_before_the_answer_is_carried(hop: Hop) -> None:
    """A raw-stream client that shut its side early is not taken for gone."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await asyncio.sleep(0.1)
        await talk.say(b"HTTP/1.1 200 OK\r\n\r\n")
        await talk.say((await talk.reader.read()).upper())

    await hop.relay(script)
    client = await hop.connect()
    client.say(RAW + b"early")
    client.writer.write_eof()
    assert (await client.rest()).endswith(b"\r\n\r\nEARLY")


async def test_upstream_half_close_reaches_the_client_and_input_goes_on(hop: Hop) -> None:
    """The other direction of half-close."""
    got = asyncio.get_running_loop().create_future()

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nbye")
        talk.half_close()
        got.set_result(await talk.reader.read())

    await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % b"tcp")
    await client.head()
    assert await client.rest() == b"bye"
    client.say(b"late")
    client.writer.write_eof()
    assert await asyncio.wait_for(got, 1) == b"late"


async def test_refused_upgrade_is_http_again(hop: Hop) -> None:
    """After a 404 instead of 101 both connections go on as HTTP."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.answer(b"no", status="404 Not Found")
        await talk.head()
        await talk.answer(b"yes")

    fake = await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % b"tcp")
    assert (await client.answer())[1] == b"no"
    assert (await client.get("/"))[1] == b"yes"
    assert len(fake.talks) == 1


async def test_hijacked_session_leaves_nothing_behind(hop: Hop, until: Waiter) -> None:
    """When both sides ended, the connection is counted no longer."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
        await talk.reader.read()

    await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % b"tcp")
    await client.head()
    assert hop.server is not None
    server = hop.server
    assert server.connection_count == 1
    client.writer.close()
    await until(lambda: server.connection_count == 0)


async def test_client_gone_closes_the_upstream_request(hop: Hop, until: Waiter) -> None:
    """Ctrl-C on events ends them in dockerd."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        assert await talk.reader.read() == b""

    fake = await hop.relay(script)
    client = await hop.connect()
    client.say(GET)
    await client.head()
    client.writer.close()
    await until(lambda: len(fake.ended) == 1)
    assert hop.errors == []


async def test_client_gone_before_any_answer_closes_the_upstream_request(hop: Hop, until: Waiter) -> None:
    """The same while dockerd has not even answered its head."""

    async def script(talk: Talk) -> None:
        await talk.head()
        assert await talk.reader.read() == b""

    fake = await hop.relay(script)
    client = await hop.connect()
    client.say(GET)
    await until(lambda: bool(fake.talks and fake.talks[0].heads))
    client.writer.close()
    await until(lambda: len(fake.ended) == 1)
    assert hop.errors == []


async def test_cut_upload_never_looks_complete(hop: Hop, until: Waiter) -> None:
    """A client that dies in an upload leaves the upstream without a last chunk."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.chunked_body()

    fake = await hop.relay(script)
    client = await hop.connect()
    client.say(b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await until(lambda: bool(fake.talks and fake.talks[0].heads))
    client.writer.close()
    await until(lambda: len(fake.ended) == 1)
    assert isinstance(fake.ended[0], asyncio.IncompleteReadError | ConnectionError)


async def test_bad_chunk_in_an_upload_is_refused(hop: Hop, until: Waiter) -> None:
    """Broken framing ends the upload with a 400, and the upstream sees a cut body."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.chunked_body()

    fake = await hop.relay(script)
    client = await hop.connect()
    client.say(b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await until(lambda: bool(fake.talks and fake.talks[0].heads))
    client.say(b"zz\r\n")
    head, body = await client.answer()
    assert b"400 Bad Request" in head
    assert b'{"message": "bad chunk' in body
    await until(lambda: len(fake.ended) == 1)
    assert fake.ended[0] is not None


async def test_answer_is_read_while_the_upload_runs(hop: Hop) -> None:
    """Lines come down while the tar goes up, and an early error arrives."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.reader.readexactly(8)
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nstep\r\n")
        await talk.reader.readexactly(8 + 5)
        await talk.say(b"4\r\ndone\r\n0\r\n\r\n")
        await talk.reader.read()

    await hop.relay(script)
    client = await hop.connect()
    client.say(b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await client.head()
    assert await client.reader.readexactly(9) == b"4\r\nstep\r\n"
    client.say(b"3\r\ndef\r\n0\r\n\r\n")
    assert await client.reader.readexactly(14) == b"4\r\ndone\r\n0\r\n\r\n"


async def test_early_refusal_of_an_upload_arrives(hop: Hop) -> None:
    """A 4xx before the body was read reaches a client that is still sending."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.answer(b"no", status="403 Forbidden")
        await talk.reader.read()

    await hop.relay(script)
    client = await hop.connect()
    client.say(
        b"POST /build HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n" + b"3\r\nabc\r\n" * 1000
    )
    head, body = await client.answer()
    assert b"403 Forbidden" in head
    assert b"Connection: close" in head
    assert body == b"no"


async def test_head_204_and_304_have_no_body(hop: Hop) -> None:
    """The next answer on the connection is read right after them."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
        await talk.head()
        await talk.say(b"HTTP/1.1 204 No Content\r\n\r\n")
        await talk.head()
        await talk.say(b"HTTP/1.1 304 Not Modified\r\n\r\n")
        await talk.head()
        await talk.answer(b"end")

    await hop.relay(script)
    client = await hop.connect()
    client.say(GET.replace(b"GET", b"HEAD"))
    assert b"Content-Length: 99" in await client.head()
    client.say(GET)
    assert await client.head() == b"HTTP/1.1 204 No Content\r\n\r\n"
    client.say(GET)
    assert await client.head() == b"HTTP/1.1 304 Not Modified\r\n\r\n"
    assert (await client.get("/"))[1] == b"end"


async def test_close_delimited_answer_becomes_chunked(hop: Hop) -> None:
    """An upstream that ends by closing does not end the client's connection."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\n\r\nabc")
        await asyncio.sleep(0.05)

    await hop.relay(script)
    client = await hop.connect()
    client.say(GET)
    await client.head()
    assert await client.reader.readexactly(13) == b"3\r\nabc\r\n0\r\n\r\n"


async def test_cut_answer_is_cut_for_the_client_too(hop: Hop) -> None:
    """Half an answer never looks whole."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await asyncio.sleep(0.05)

    await hop.relay(script)
    client = await hop.connect()
    client.say(GET)
    await client.head()
    assert not (await client.rest()).endswith(b"0\r\n\r\n")


async def test_large_upload_is_never_buffered(hop: Hop) -> None:
    """200 MB to a slow upstream: memory stays bounded by the water marks."""
    total = 200 * 2**20
    piece = b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n"
    counted = 0

    async def script(talk: Talk) -> None:
        nonlocal counted
        await talk.head()
        await asyncio.sleep(0.2)
        while not (data := await talk.reader.read(2**20)).endswith(b"0\r\n\r\n"):
            counted += len(data)
        await talk.answer(b"done")

    await hop.relay(script)
    client = await hop.connect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    client.say(b"POST /load HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(total // 2**20):
        client.say(piece)
        await client.writer.drain()
    client.say(b"0\r\n\r\n")
    assert (await client.answer())[1] == b"done"
    assert counted > total - 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024  # KiB


async def test_slow_reader_holds_the_upstream_back(hop: Hop) -> None:
    """A client that does not read stops the upstream, not the other clients."""
    sent = 0

    async def script(talk: Talk) -> None:
        nonlocal sent
        head = await talk.head()
        if b"/big" not in head:
            await talk.answer(b"small")
            return
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(64):
            await talk.say(b"%x\r\n" % 2**20 + bytes(2**20) + b"\r\n")
            sent += 1
        await talk.say(b"0\r\n\r\n")

    await hop.relay(script)
    slow, other = await hop.connect(), await hop.connect()
    slow.say(b"GET /big HTTP/1.1\r\nHost: d\r\n\r\n")
    await slow.head()
    await asyncio.sleep(0.3)
    assert sent < 10
    assert (await asyncio.wait_for(other.get("/"), 1))[1] == b"small"


async def test_hijacked_slow_reader_holds_the_upstream_back(hop: Hop) -> None:
    """Backpressure passes through a splice."""
    sent = 0

    async def script(talk: Talk) -> None:
        nonlocal sent
        await talk.head()
        await talk.say(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
        for _ in range(32):
            await talk.say(bytes(2**20))
            sent += 1

    await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % b"tcp")
    await client.head()
    await asyncio.sleep(0.2)
    assert sent < 10
    size = 0
    while data := await client.reader.read(2**20):
        size += len(data)
    assert size == 32 * 2**20


async def test_expect_continue(hop: Hop) -> None:
    """100 is sent when the body is first wanted, and never travels upstream."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.answer(await talk.reader.readexactly(3))

    fake = await hop.relay(script)
    client = await hop.connect()
    client.say(b"PUT /archive HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.say(b"tar")
    assert (await client.answer())[1] == b"tar"
    assert b"xpect" not in fake.talks[0].heads[0]


async def test_many_clients_at_once(hop: Hop) -> None:
    """A hundred clients get their own answers."""
    await hop.relay(_ok, limits=Limits(upstream_idle_connections=4))
    clients = [await hop.connect() for _ in range(100)]
    answers = await asyncio.gather(*(client.get(f"/{n}") for n, client in enumerate(clients)))
    assert [body for _, body in answers] == [f"/{n}".encode() for n in range(100)]
    assert hop.pool is not None
    assert hop.pool.idle_count <= 4


async def test_upgrade_header_does_not_hide_leaving(hop: Hop, until: Waiter) -> None:
    """A client that asked for an upgrade, got an ordinary stream and left, is gone like any other."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await asyncio.sleep(0.1)
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await talk.reader.read()

    fake = await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % b"tcp")
    client.writer.write_eof()
    await until(lambda: len(fake.ended) == 1)


async def test_answer_nobody_reads_is_closed_with_its_exchange(hop: Hop, until: Waiter) -> None:
    """A handler that fails between the upstream's head and its body leaves no upstream request behind."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
        await talk.reader.read()

    fake = await hop.upstream(script)
    pool = Pool(str(hop.directory / "engine.sock"))

    async def handler(exchange: Exchange) -> None:
        await pool.request("GET", "/", watch=exchange)
        raise RuntimeError("bug")

    await hop.serve(handler)
    assert b"500" in (await (await hop.connect()).get("/"))[0]
    await until(lambda: len(fake.ended) == 1)


async def test_hung_client_with_a_full_splice_can_be_stopped(hop: Hop) -> None:
    """Server stop ends hijacked sessions too."""

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.say(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\nConnection: Upgrade\r\n\r\n")
        for _ in range(8):
            await talk.say(bytes(2**20))

    await hop.relay(script)
    client = await hop.connect()
    client.say(UPGRADE % b"tcp")
    await client.head()
    assert hop.server is not None
    await hop.server.stop(grace_seconds=0.05)
    assert hop.server.connection_count == 0
