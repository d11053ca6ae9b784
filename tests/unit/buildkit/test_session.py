"""A session: dockerd calls, the user's client answers, ds01 looks at each call."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from buildkit import api_pb2 as pb
from buildkit.framing import frame
from buildkit.giving import PULL
from buildkit.uploads import Upload, Uploads
from http1.errors import ClientGone
from policy.model import Uid
from tests.fakes.grpc_ends import SECONDS, Ends, Engine, in_session, until

ALICE = Uid(1)


def nothing(_path: str) -> Upload | None:
    return None


async def never(_engine: Engine, _stream: int) -> None:
    """An answer that does not come by itself."""
    await asyncio.sleep(0)


async def test_a_call_passes_with_its_metadata() -> None:
    """In both directions, byte for byte."""
    async with in_session(nothing) as ends:
        answer = await ends.client.call("/known/Get", b"hello", (("id", "secret"),))
        asked = ends.engine.streams[1]
        assert (answer.messages, answer.status) == ([b"hello"], "0")
        assert (asked.headers[":path"], asked.headers["id"]) == ("/known/Get", "secret")


@pytest.mark.parametrize("path", ["/other/Get", "/", "/known", "/moby.exporter.v1.Exporter/FindExporters"])
async def test_a_call_that_is_not_on_the_list_is_not_asked(path: str) -> None:
    """Whatever the client has said that it serves; dockerd hears that it does not."""
    async with in_session(nothing) as ends:
        assert (await ends.client.call(path)).status == "12"
        assert not ends.engine.streams


async def test_both_may_talk_at_once() -> None:
    """As file transfers do: question and answer go on until both have ended."""

    async with in_session(nothing) as ends:
        ends.engine.script = never
        stream = await ends.client.begin("/known/DiffCopy", None)
        await until(lambda: 1 in ends.engine.streams)
        user = ends.engine
        user.h2.send_headers(1, [(":status", "200")])
        await user.send(1, frame(b"stat"))
        await until(lambda: ends.client.streams[stream].data == frame(b"stat"))
        ends.client.h2.send_data(stream, frame(b"req"))
        await ends.client.flush()
        await until(lambda: user.streams[1].data == frame(b"req"))
        await user.send(1, frame(b"data"))
        ends.client.h2.end_stream(stream)
        await ends.client.flush()
        await asyncio.wait_for(user.streams[1].over.wait(), SECONDS)
        user.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
        await user.flush()
        answer = await ends.client.answer(stream)
        assert (answer.messages, answer.status) == ([b"stat", b"data"], "0")


async def test_an_answer_of_any_size_passes() -> None:
    """Many times the windows."""
    data = os.urandom(5_000_000)

    async def much(engine: Engine, stream: int) -> None:
        await engine.give(stream, data)

    async with in_session(nothing) as ends:
        ends.engine.script = much
        assert (await ends.client.call("/known/x")).messages == [data]


async def test_a_question_of_any_size_passes() -> None:
    """Exported results come this way."""
    data = os.urandom(3_000_000)
    async with in_session(nothing) as ends:
        stream = await ends.client.begin("/known/Send", None)
        left = frame(data)
        while left:
            size = min(
                ends.client.h2.local_flow_control_window(stream), ends.client.h2.max_outbound_frame_size
            )
            if size <= 0:
                await asyncio.sleep(0.001)
                continue
            ends.client.h2.send_data(stream, left[:size], end_stream=len(left) <= size)
            left = left[size:]
            await ends.client.flush()
        assert (await ends.client.answer(stream)).messages == [data]


async def test_a_client_that_does_not_read_holds_nobody_else_up() -> None:
    """What waits for it is bounded by the windows; another call is answered."""
    async with in_session(nothing) as ends:
        ends.engine.acknowledging = False
        ends.engine.h2.increment_flow_control_window(
            10_000_000
        )  # of the connection: one stream alone stands still
        await ends.engine.flush()
        stream = await ends.client.begin("/known/Send", None)
        sent = 0
        for _ in range(2000):
            size = min(ends.client.h2.local_flow_control_window(stream), 16384)
            if size > 0:
                ends.client.h2.send_data(stream, b"x" * size)
                sent += size
                await ends.client.flush()
            await asyncio.sleep(0)
        assert sent < 1_000_000
        assert (await ends.client.call("/known/x", b"q")).messages == [b"q"]


async def test_a_call_that_either_side_gives_up() -> None:
    """Is over on the other side too."""

    async def reset(engine: Engine, stream: int) -> None:
        engine.h2.reset_stream(stream, 2)
        await engine.flush()

    async with in_session(nothing) as ends:
        ends.engine.script = never
        stream = await ends.client.begin("/known/x")
        await until(lambda: 1 in ends.engine.streams)
        ends.client.h2.reset_stream(stream)
        await ends.client.flush()
        await until(lambda: ends.engine.streams[1].reset is not None)
        ends.engine.script = reset
        assert (await ends.client.call("/known/y")).reset == 2


async def test_an_answer_before_the_question_is_whole() -> None:
    """Ends it."""
    async with in_session(nothing) as ends:
        stream = await ends.client.begin("/known/x", None)
        await until(lambda: 1 in ends.engine.streams)
        ends.engine.h2.send_headers(1, [(":status", "200"), ("grpc-status", "7")], end_stream=True)
        await ends.engine.flush()
        assert (await ends.client.answer(stream)).status == "7"
        await until(lambda: ends.engine.streams[1].reset is not None)


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64, bytes.fromhex("00000001050000000f"), b""]
)
async def test_nonsense_of_the_client_ends_the_session(noise: bytes) -> None:
    """Dockerd sees a connection that ends, and none of the bytes."""
    async with in_session(nothing) as ends:
        await ends.client.call("/known/x")
        if noise:
            await ends.engine.raw(noise)
        else:
            ends.engine.leave()
        await asyncio.wait_for(ends.client.closed.wait(), SECONDS)


async def test_a_head_that_dockerd_could_not_be_sent_ends_the_session() -> None:
    """A client may send what only looks like an answer."""

    async def odd(engine: Engine, stream: int) -> None:
        engine.h2.send_headers(stream, [(":status", "200"), ("content-type", "a")])
        engine.h2.send_headers(stream, [("grpc-status", "0")], end_stream=True)
        await engine.flush()

    async with in_session(nothing) as ends:
        ends.engine.script = odd
        assert (await ends.client.call("/known/x")).status == "0"


async def _upload(ends: Ends, upload: Upload, *pieces: bytes, fails: bool = False) -> tuple[bytes, str]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
        if fails:
            raise ClientGone("left")

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(upload.give(body()))
        answer = await ends.client.call(
            PULL, b"", (("urlpath", f"/{upload.token}"), ("urlhost", "buildkit-session"))
        )
    data = b"".join(pb.BytesMessage.FromString(message).data for message in answer.messages)
    return data, answer.status


async def test_an_upload_is_given_by_ds01() -> None:
    """The client is not asked; what is at another address is its own to give."""
    uploads = Uploads()
    upload = uploads.expect(ALICE, "b")
    pieces = [os.urandom(200_000) for _ in range(10)]
    async with in_session(lambda path: uploads.at(ALICE, path)) as ends:
        assert await _upload(ends, upload, *pieces) == (b"".join(pieces), "0")
        assert not ends.engine.streams
        other = await ends.client.call(PULL, b"mine", (("urlpath", "/other"),))
        assert (other.messages, len(ends.engine.streams)) == ([b"mine"], 1)


async def test_an_upload_that_is_cut_short_fails() -> None:
    """Dockerd never takes half a context for a whole one."""
    upload = Uploads().expect(ALICE, "b")
    async with in_session(lambda _: upload) as ends:
        assert await _upload(ends, upload, b"half", fails=True) == (b"half", "14")
