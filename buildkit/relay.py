"""A client's HTTP/2 connection and dockerd's, with a decision on each call between them.

Every call that is mediated has one message in its request: it is held until it is whole, decided, and sent afresh on a stream of
dockerd's. Answers are relayed as they come, or message by message through the verdict's `reshape`. Nothing is read from
dockerd faster than the client takes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from buildkit.calls import Live, Own, request_headers, text_headers
from buildkit.framing import BadMessage, frame
from buildkit.peer import Broken
from buildkit.ports import Judge
from buildkit.side import Over, Side, Sides
from buildkit.status import OK, Code, Headers, Status, trailers
from buildkit.verdicts import Answer, Call, Forward, Refuse
from http1.duplex import Duplex

_HELD_BYTES: Final = 32 * 1024 * 1024  # of one connection: requests and read answers that are not whole yet
_LOW_WATER: Final = 64 * 1024
_HEAD: Final = ((":status", "200"), ("content-type", "application/grpc"))


class Relay:
    """One client connection's calls. `run` ends when either side has ended."""

    def __init__(
        self, *, client: Duplex, engine: Duplex, judge: Judge, failed: Callable[[str, Exception], Status]
    ) -> None:
        """`failed` says how a call ends whose decision raised."""
        self._client = Side(client, client_side=False)
        self._engine = Side(engine, client_side=True)
        self._sides = Sides(client=self._client, engine=self._engine)
        self._judge = judge
        self._failed = failed
        self._live: dict[int, Live] = {}  # by the client's stream
        self._sent: dict[int, Live | Own] = {}  # by dockerd's stream
        self._held = 0

    async def run(self) -> None:
        """Relay until one side ends; then both are closed, and with them every call and build."""
        try:
            await self._sides.run(on_client=self._on_client, on_engine=self._on_engine, moved=self._give_room)
        finally:
            for live in tuple(self._live.values()):
                with suppress(Broken):  # whose connection it was cannot be told
                    self._refuse(live, Status(code=Code.UNAVAILABLE, message="ds01: the connection ended"))
                self._end(live)
            for own in self._sent.values():
                if isinstance(own, Own):
                    own.result.cancel()  # whoever waited for it is gone
            self._client.flush()
            self._client.duplex.close()
            self._engine.duplex.abort()

    # --- bytes ---

    def _give_room(self) -> None:
        """Let dockerd send more for the calls whose client has taken what came."""
        for live in self._live.values():
            if live.unread and self._client.peer.queued(live.stream) <= _LOW_WATER:
                self._engine.peer.acknowledge(live.engine_stream, live.unread)
                live.unread = 0
                self._engine.wake()

    # --- the client's side ---

    def _on_client(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._begin(event)
            case DataReceived():
                self._client.peer.acknowledge(event.stream_id, event.flow_controlled_length)
                live = self._live.get(event.stream_id)
                if live is not None and not live.complete:
                    self._collect(live, event.data)
            case StreamEnded():
                live = self._live.get(event.stream_id)
                if live is not None:
                    self._complete(live)
            case StreamReset():
                self._client.peer.forget(event.stream_id)
                self._end(self._live.get(event.stream_id))
            case ConnectionTerminated():
                if event.error_code:
                    raise Over

    def _begin(self, event: RequestReceived) -> None:
        headers = text_headers(event.headers)
        pseudo = dict(headers)
        live = Live(event.stream_id, pseudo.get(":path", ""), headers)
        self._client.peer.accept(live.stream)
        self._live[live.stream] = live
        kind = pseudo.get("content-type", "").partition(";")[0]
        if pseudo.get(":method") != "POST" or kind not in {"application/grpc", "application/grpc+proto"}:
            self._refuse(
                live, Status(code=Code.UNIMPLEMENTED, message="ds01: this connection carries gRPC only")
            )
            return
        refusal = self._judge.known(live.path)
        if refusal is not None:
            self._refuse(live, refusal.status)

    def _collect(self, live: Live, data: bytes) -> None:
        try:
            self._hold(live, live.held + len(data))
            live.messages += live.incoming.feed(data)
        except BadMessage as error:
            self._refuse(live, Status(code=Code.INVALID_ARGUMENT, message=f"ds01: {error}"))

    def _complete(self, live: Live) -> None:
        live.complete = True
        self._hold(live, 0)
        if len(live.messages) != 1 or live.incoming.partial:
            words = "ds01: this method takes exactly one message"
            self._refuse(live, Status(code=Code.INVALID_ARGUMENT, message=words))
            return
        live.task = self._sides.tasks.create_task(self._serve(live, live.messages.pop()))

    def _hold(self, live: Live, size: int) -> None:
        """Count what is kept of a call's request or answer. Raises: BadMessage: all calls together keep too much."""
        self._held += size - live.held
        live.held = size
        if self._held > _HELD_BYTES:
            raise BadMessage("too much at once on this connection")

    # --- one call ---

    async def _serve(self, live: Live, message: bytes) -> None:
        call = Call(path=live.path, metadata=live.metadata, message=message)
        try:
            verdict = await self._judge.decide(call, self._ask)
        except Exception as error:  # noqa: BLE001  the one edge of a call: whatever it is, the answer is no
            self._refuse(live, self._failed(live.path, error))
        else:
            match verdict:
                case Refuse(status=status):
                    self._refuse(live, status)
                case Answer(messages=messages):
                    self._answer(live, messages)
                case Forward():
                    self._forward(live, verdict)
        self._sides.wake()

    def _answer(self, live: Live, messages: tuple[bytes, ...]) -> None:
        self._client.peer.send_headers(live.stream, _HEAD)
        for message in messages:
            self._client.peer.send(live.stream, frame(message))
        self._client.peer.finish(live.stream, trailers(OK))
        self._end(live)

    def _forward(self, live: Live, verdict: Forward) -> None:
        live.take(verdict)
        if live.over:  # the client left while it was decided
            live.finish()
            return
        live.engine_stream = self._send(verdict.path, verdict.metadata, verdict.message)
        self._sent[live.engine_stream] = live

    def _send(self, path: str, metadata: Headers, message: bytes) -> int:
        stream = self._engine.peer.open(request_headers(path, metadata))
        self._engine.peer.send(stream, frame(message))
        self._engine.peer.finish(stream)
        self._engine.wake()
        return stream

    async def _ask(self, path: str, message: bytes, metadata: Headers = ()) -> tuple[bytes, ...]:
        own = Own()
        self._sent[self._send(path, metadata, message)] = own
        return await own.result

    def _refuse(self, live: Live, status: Status) -> None:
        if live.headed:
            self._client.peer.finish(live.stream, trailers(status))
        else:
            self._client.peer.send_headers(live.stream, (*_HEAD, *trailers(status)), end=True)
        self._end(live)

    def _end(self, live: Live | None) -> None:
        """Nothing more comes for the call from either side; what is queued for the client still goes."""
        if live is None or live.over:
            return
        live.over = True
        self._hold(live, 0)
        self._live.pop(live.stream, None)
        if live.engine_stream and self._sent.pop(live.engine_stream, None) is not None:
            self._engine.peer.acknowledge(live.engine_stream, live.unread)
            self._engine.peer.reset(live.engine_stream)
        if live.task is not None and live.task is not asyncio.current_task():
            live.task.cancel()
        live.finish()

    # --- dockerd's side ---

    def _on_engine(self, event: Event) -> None:
        stream = getattr(event, "stream_id", 0)
        found = self._sent.get(stream or 0)
        match found:
            case Own():
                self._on_own(found, event)
            case Live():
                self._on_answer(found, event)
            case _ if isinstance(event, DataReceived):
                self._engine.peer.acknowledge(event.stream_id, event.flow_controlled_length)
            case _ if isinstance(event, ConnectionTerminated) and event.error_code:
                raise Over

    def _on_own(self, own: Own, event: Event) -> None:
        match event:
            case DataReceived():
                self._engine.peer.acknowledge(event.stream_id, event.flow_controlled_length)
                own.feed(event.data)
            case ResponseReceived() | TrailersReceived():
                own.fields(text_headers(event.headers))
            case StreamEnded() | StreamReset():
                self._sent.pop(event.stream_id, None)
                own.end()

    def _on_answer(self, live: Live, event: Event) -> None:
        client = self._client.peer
        match event:
            case ResponseReceived():
                headers = text_headers(event.headers)
                ended = event.stream_ended is not None
                live.headed = True
                client.send_headers(live.stream, headers, end=ended)
                if ended:
                    self._over(live)
            case DataReceived():
                live.unread += event.flow_controlled_length
                self._pass(live, event.data)
                self._give_room()
            case TrailersReceived():
                client.finish(live.stream, text_headers(event.headers))
                self._over(live)
            case StreamEnded():
                client.finish(live.stream)
                self._over(live)
            case StreamReset():
                client.reset(live.stream, event.error_code or ErrorCodes.INTERNAL_ERROR)
                self._over(live)

    def _over(self, live: Live) -> None:
        self._sent.pop(live.engine_stream, None)
        self._end(live)

    def _pass(self, live: Live, data: bytes) -> None:
        """Relay bytes, or the messages in them as the verdict shapes them."""
        if live.reshape is None:
            self._client.peer.send(live.stream, data)
            return
        try:
            found = live.outgoing.feed(data)
            self._hold(live, live.outgoing.partial)
            for message in found:
                shaped = live.reshape(message)
                if shaped is not None:
                    self._client.peer.send(live.stream, frame(shaped))
        except Exception as error:  # noqa: BLE001  as in `_serve`: an answer that cannot be read is not passed on
            self._refuse(live, self._failed(live.path, error))
