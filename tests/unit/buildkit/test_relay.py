"""The relay on real sockets: a client and an engine that are scripted, and decisions between them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from buildkit import relay
from buildkit.framing import frame
from buildkit.ports import Ask, Failed
from buildkit.status import Code, Status
from buildkit.verdicts import Answer, Call, Forward, Refuse, Verdict
from tests.fakes.grpc_ends import SECONDS, Engine, relayed

REFUSAL = Refuse(status=Status(code=Code.PERMISSION_DENIED, message="ds01: no"))


@dataclass
class Judge:
    """Forwards, unless the path says otherwise; remembers what it was asked and what has ended."""

    asked: list[Call] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def known(self, path: str) -> Refuse | None:
        return REFUSAL if path == "/unknown" else None

    async def decide(self, call: Call, ask: Ask) -> Verdict:
        self.asked.append(call)
        match call.path:
            case "/refuse":
                return REFUSAL
            case "/raise":
                raise ValueError("a bug")
            case "/answer":
                return Answer(messages=(b"one", b"two"))
            case "/wait":
                await self.gate.wait()
            case "/ask":
                return Answer(messages=await ask("/own", call.message))
        return Forward(
            path=call.path,
            metadata=(("x", "y"),),
            message=call.message.upper(),
            reshape=_reshape if call.path.startswith("/reshape") else None,
            ended=lambda: self.ended.append(call.path),
        )


def _reshape(message: bytes) -> bytes | None:
    if message == b"BAD":
        raise ValueError("cannot be read")
    return None if message == b"FOREIGN" else message + b"!"


async def test_a_call_is_written_afresh() -> None:
    """Path, metadata and message are the verdict's; nothing of the client's own head goes on."""
    judge = Judge()
    async with relayed(judge) as ends:
        answer = await ends.client.call("/echo", b"hello", (("secret-header", "1"), ("user-agent", "evil")))
        sent = ends.engine.streams[1].headers
    assert answer.messages == [b"HELLO"]
    assert answer.status == "0"
    assert sent == {
        ":method": "POST", ":scheme": "http", ":path": "/echo", ":authority": "localhost", "te": "trailers",
        "content-type": "application/grpc", "user-agent": "ds01", "x": "y",
    }  # fmt: skip
    assert ("secret-header", "1") in judge.asked[0].metadata
    assert judge.ended == ["/echo"]


@pytest.mark.parametrize("path", ["/unknown", "/refuse"])
async def test_a_refusal_reaches_the_client_alone(path: str) -> None:
    """With its words; the engine hears nothing."""
    async with relayed(Judge()) as ends:
        answer = await ends.client.call(path)
        assert (answer.status, answer.headers["grpc-message"]) == ("7", "ds01: no")
        assert not ends.engine.streams


async def test_an_unknown_method_is_refused_before_its_message() -> None:
    """What streams without end has no place to go."""
    async with relayed(Judge()) as ends:
        stream = await ends.client.begin("/unknown", None)
        assert (await ends.client.answer(stream)).status == "7"


async def test_a_decision_that_raises_denies() -> None:
    """The bug is told to whoever made the relay, and other calls go on."""
    async with relayed(Judge()) as ends:
        assert (await ends.client.call("/raise")).status == "13"
        assert (await ends.client.call("/echo", b"a")).messages == [b"A"]
        assert [str(error) for error in ends.errors] == ["a bug"]


async def test_ds01_can_answer_itself() -> None:
    """With any number of messages."""
    async with relayed(Judge()) as ends:
        answer = await ends.client.call("/answer")
        assert (answer.messages, answer.status) == ([b"one", b"two"], "0")


async def test_ds01_can_ask_the_engine() -> None:
    """On the same connection, and the client sees only what is made of it."""
    async with relayed(Judge()) as ends:
        assert (await ends.client.call("/ask", b"q")).messages == [b"q"]
        assert ends.engine.streams[1].headers[":path"] == "/own"


async def test_an_engine_that_answers_badly_is_an_error() -> None:
    """Of the call that asked."""
    async with relayed(Judge()) as ends:

        async def refuse(engine: Engine, stream: int) -> None:
            await engine.give(stream, status=5, words="nothing there")

        ends.engine.script = refuse
        assert (await ends.client.call("/ask", b"q")).status == "13"
        assert isinstance(ends.errors[0], Failed)


async def test_a_connection_that_ends_while_ds01_asks() -> None:
    """Leaves nothing behind that nobody waits for."""
    async with relayed(Judge()) as ends:

        async def never(_engine: Engine, _stream: int) -> None:
            await asyncio.sleep(0)

        ends.engine.script = never
        await ends.client.begin("/ask")
        await _until(lambda: bool(ends.engine.streams))
    assert ends.errors == []


async def test_messages_are_shaped_one_by_one() -> None:
    """Changed, or left out."""
    async with relayed(Judge()) as ends:

        async def several(engine: Engine, stream: int) -> None:
            await engine.give(stream, b"A", b"FOREIGN", b"B")

        ends.engine.script = several
        answer = await ends.client.call("/reshape")
        assert answer.messages == [b"A!", b"B!"]
        assert answer.status == "0"


async def test_an_answer_that_cannot_be_shaped_ends_the_call() -> None:
    """Nothing of it is passed on, and the engine is told to stop."""
    async with relayed(Judge()) as ends:

        async def bad(engine: Engine, stream: int) -> None:
            engine.h2.send_headers(stream, [(":status", "200")])
            engine.h2.send_data(stream, frame(b"A") + frame(b"BAD") + frame(b"C"))
            await engine.flush()

        ends.engine.script = bad
        answer = await ends.client.call("/reshape")
        assert (answer.messages, answer.status) == ([b"A!"], "13")
        await asyncio.wait_for(ends.engine.streams[1].over.wait(), SECONDS)


async def test_errors_of_the_engine_come_through() -> None:
    """Status, words and details, with and without a body before them."""
    async with relayed(Judge()) as ends:

        async def fail(engine: Engine, stream: int) -> None:
            head = [(":status", "200"), ("content-type", "application/grpc")]
            ended = [
                ("grpc-status", "2"),
                ("grpc-message", "failed to solve"),
                ("grpc-status-details-bin", "AAAA"),
            ]
            engine.h2.send_headers(stream, head + ended, end_stream=True)
            await engine.flush()

        ends.engine.script = fail
        answer = await ends.client.call("/echo")
        assert answer.headers["grpc-message"] == "failed to solve"
        assert answer.headers["grpc-status-details-bin"] == "AAAA"


@pytest.mark.parametrize(
    "data",
    [b"", frame(b"a") + frame(b"b"), frame(b"abc")[:-1], b"\1\0\0\0\0", b"\0\xff\xff\xff\xff"],
    ids=["none", "two", "cut", "compressed", "too-long"],
)
async def test_a_request_is_exactly_one_message(data: bytes) -> None:
    """Anything else ends the call, and only the call."""
    async with relayed(Judge()) as ends:
        stream = await ends.client.begin("/echo", None)
        ends.client.h2.send_data(stream, data, end_stream=True)
        await ends.client.flush()
        assert (await ends.client.answer(stream)).status == "3"
        assert (await ends.client.call("/echo", b"a")).messages == [b"A"]


async def test_only_grpc_is_spoken() -> None:
    """Another content type is answered, and not decided."""
    judge = Judge()
    async with relayed(judge) as ends:
        stream = await ends.client.begin("/echo", kind="application/json")
        assert (await ends.client.answer(stream)).status == "12"
        assert not judge.asked


async def test_a_client_that_cancels_ends_the_engines_call() -> None:
    """Ctrl-C ends the build; the connection lives on."""
    judge = Judge()
    async with relayed(judge) as ends:

        async def never(_engine: Engine, _stream: int) -> None:
            await asyncio.sleep(0)

        ends.engine.script = never
        stream = await ends.client.begin("/echo")
        await _until(lambda: bool(ends.engine.streams))
        ends.client.h2.reset_stream(stream, 8)
        await ends.client.flush()
        await asyncio.wait_for(ends.engine.streams[1].over.wait(), SECONDS)
        await _until(lambda: ends.engine.streams[1].reset == 8)
        assert judge.ended == ["/echo"]
        ends.engine.script = None
        assert (await ends.client.call("/echo", b"a")).messages == [b"A"]


async def test_a_client_that_cancels_while_it_is_decided() -> None:
    """Nothing is sent, and what was begun for it is not left behind."""
    judge = Judge()
    async with relayed(judge) as ends:
        stream = await ends.client.begin("/wait")
        await _until(lambda: bool(judge.asked))
        ends.client.h2.reset_stream(stream)
        await ends.client.flush()
        await ends.client.call("/echo")
        judge.gate.set()
        await ends.client.call("/echo")
        assert "/wait" not in judge.ended
        assert [one.headers[":path"] for one in ends.engine.streams.values()] == ["/echo", "/echo"]


async def test_a_client_that_leaves_ends_the_engines_connection() -> None:
    """With every call on it."""
    judge = Judge()
    async with relayed(judge) as ends:

        async def never(_engine: Engine, _stream: int) -> None:
            await asyncio.sleep(0)

        ends.engine.script = never
        await ends.client.begin("/echo")
        await _until(lambda: bool(ends.engine.streams))
        ends.client.leave()
        await asyncio.wait_for(ends.engine.closed.wait(), SECONDS)
        await asyncio.wait_for(ends.done.wait(), SECONDS)
    assert judge.ended == ["/echo"]


async def test_an_engine_that_goes_away_ends_the_calls() -> None:
    """With a status, so that the client need not wait."""
    async with relayed(Judge()) as ends:

        async def leave(engine: Engine, _stream: int) -> None:
            engine.leave()

        ends.engine.script = leave
        assert (await ends.client.call("/echo")).status == "14"
        await asyncio.wait_for(ends.done.wait(), SECONDS)


async def test_the_engine_resets_a_call() -> None:
    """The client's is reset with the same code."""
    async with relayed(Judge()) as ends:

        async def reset(engine: Engine, stream: int) -> None:
            engine.h2.reset_stream(stream, 7)
            await engine.flush()

        ends.engine.script = reset
        assert (await ends.client.call("/echo")).reset == 7


@pytest.mark.parametrize(
    "nonsense", [b"\0" * 100, b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000], ids=["zeros", "http1", "ff"]
)
async def test_a_client_that_talks_nonsense_ends_its_own_connection(nonsense: bytes) -> None:
    """And no error of ds01's comes of it."""
    async with relayed(Judge()) as ends:
        await ends.client.call("/echo")
        await ends.client.raw(nonsense)
        await asyncio.wait_for(ends.done.wait(), SECONDS)
        assert not ends.errors


async def test_what_a_connection_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """All its unfinished requests together; what is let go makes room again."""
    monkeypatch.setattr(relay, "_HELD_BYTES", 100_000)
    async with relayed(Judge()) as ends:
        await ends.client.call("/echo")  # now the windows are known
        streams = [await ends.client.begin("/echo", None) for _ in range(3)]
        for stream in streams:
            ends.client.h2.send_data(stream, frame(b"x" * 60_000)[:16_000])
            ends.client.h2.send_data(stream, b"x" * 16_000)
            ends.client.h2.send_data(stream, b"x" * 8_000)
            await ends.client.flush()
        assert (await ends.client.answer(streams[2])).status == "3"
        assert (await ends.client.call("/echo", b"a")).messages == [b"A"]


async def test_many_calls_at_once() -> None:
    """Each gets its own answer."""
    async with relayed(Judge()) as ends:
        calls = [ends.client.call("/echo", f"m{number}".encode()) for number in range(90)]
        answers = await asyncio.gather(*calls)
        assert [answer.messages for answer in answers] == [[f"M{number}".encode()] for number in range(90)]


async def test_a_large_answer_comes_whole() -> None:
    """Larger than every window between the two ends."""
    size = 5 * 1024 * 1024
    async with relayed(Judge()) as ends:

        async def large(engine: Engine, stream: int) -> None:
            await engine.give(stream, b"x" * size)

        ends.engine.script = large
        for path in ("/echo", "/reshape"):
            answer = await ends.client.call(path)
            assert len(answer.messages[0]) in (size, size + 1)


async def test_a_client_that_takes_nothing_holds_the_engine_back() -> None:
    """What the relay holds is bounded by the windows, and another call still comes through."""
    sent = 0
    async with relayed(Judge()) as ends:
        ends.client.acknowledging = False

        async def endless(engine: Engine, stream: int) -> None:
            nonlocal sent
            if engine.streams[stream].headers[":path"] != "/endless":
                await engine.give(stream, b"ok")
                return
            engine.h2.send_headers(stream, [(":status", "200")])
            while (
                stream in engine.h2.streams
                and engine.streams[stream].reset is None
                and not engine.closed.is_set()
            ):
                window = engine.h2.local_flow_control_window(stream)
                if window >= 16384:
                    engine.h2.send_data(stream, b"x" * 16384)
                    sent += 16384
                    await engine.flush()
                await asyncio.sleep(0)

        ends.engine.script = endless
        stream = await ends.client.begin("/endless")
        await _settled(lambda: sent)
        assert sent < 2 * 1024 * 1024
        ends.client.h2.reset_stream(stream, 8)
        ends.client.h2.increment_flow_control_window(1_000_000)
        await ends.client.flush()
        assert (await ends.client.call("/echo")).messages == [b"ok"]


async def test_a_client_that_does_not_read_is_not_listened_to() -> None:
    """Pings that ask for answers do not pile up answers."""
    async with relayed(Judge()) as ends:
        await ends.client.call("/echo")
        ends.client.listening.clear()
        written = 0

        async def flood() -> None:
            nonlocal written
            for _ in range(4000):
                ends.client.h2.ping(b"12345678")
                data = ends.client.h2.data_to_send() * 64
                await ends.client.raw(data)
                written += len(data)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(flood(), 2)
        assert written < 4 * 1024 * 1024


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # noqa: ASYNC110  any condition
            await asyncio.sleep(0.002)


async def _settled(value: Callable[[], int]) -> None:
    """Until it has not changed for a while."""
    before = -1
    while before != (before := value()):  # noqa: ASYNC110  any value
        await asyncio.sleep(0.3)
