"""ds01's own gRPC calls on a connection to dockerd: one message in, any number out, read as fast as they are taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Final

from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from buildkit.calls import request_headers, text_headers
from buildkit.framing import BadMessage, Messages, frame
from buildkit.peer import Broken
from buildkit.ports import Failed
from buildkit.side import Over, Side
from buildkit.status import Headers, decoded
from http1.duplex import Duplex
from http1.errors import ClientGone

_MESSAGE_BYTES: Final = 16 * 1024 * 1024  # BuildKit's own bound


class _Stream:
    """An answer that is coming in."""

    def __init__(self) -> None:
        self.fields: dict[str, str] = {}
        self.parser = Messages(_MESSAGE_BYTES)
        self.messages: deque[bytes] = deque()
        self.unread = 0  # bytes that were not acknowledged
        self.ended = False
        self.problem = ""
        self.changed = asyncio.Event()

    def end(self, problem: str = "") -> None:
        if not self.ended:
            self.ended, self.problem = True, problem
            self.changed.set()


class Client:
    """The client's end of one HTTP/2 connection. Calls can be made while `run` runs."""

    def __init__(self, engine: Duplex) -> None:
        self._side = Side(engine, client_side=True)
        self._streams: dict[int, _Stream] = {}
        self._over = False

    async def run(self) -> None:
        """Carry bytes until dockerd ends the connection or `close` does; calls that are not answered then fail."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._side.read(self._take, self._side.wake))
                tasks.create_task(self._side.write(_nothing))
        except* (Over, ClientGone, Broken):
            pass
        finally:
            self._over = True
            for stream in self._streams.values():
                stream.end("the connection ended")
            self._side.duplex.abort()

    def close(self) -> None:
        """End the connection, and with it every call: BuildKit then gives up the builds among them."""
        self._side.duplex.abort()

    async def call(self, path: str, metadata: Headers, message: bytes) -> AsyncGenerator[bytes, None]:
        """The messages of the answer as they come. Raises: Failed: dockerd's words where it said some."""
        if self._over:
            raise Failed("the connection ended")
        peer = self._side.peer
        try:
            number = peer.open(request_headers(path, metadata))
        except Broken as error:
            raise Failed(str(error)) from error
        stream = self._streams[number] = _Stream()
        peer.send(number, frame(message))
        peer.finish(number)
        self._side.wake()
        try:
            while True:
                while stream.messages:
                    yield stream.messages.popleft()
                peer.acknowledge(number, stream.unread)
                stream.unread = 0
                self._side.wake()
                if stream.ended:
                    break
                stream.changed.clear()
                await stream.changed.wait()
        finally:
            del self._streams[number]
            if not stream.ended:
                peer.reset(number)
                self._side.wake()
        _check(stream)

    async def ask(self, path: str, message: bytes, metadata: Headers = ()) -> tuple[bytes, ...]:
        """A `buildkit.ports.Ask`."""
        return tuple([answer async for answer in self.call(path, metadata, message)])

    def _take(self, event: Event) -> None:
        stream = self._streams.get(getattr(event, "stream_id", None) or 0)
        match event:
            case DataReceived():
                if stream is None:
                    self._side.peer.acknowledge(event.stream_id, event.flow_controlled_length)
                    return
                stream.unread += event.flow_controlled_length
                try:
                    stream.messages += stream.parser.feed(event.data)
                except BadMessage as error:
                    stream.end(str(error))
                stream.changed.set()
            case ResponseReceived() | TrailersReceived() if stream is not None:
                stream.fields |= dict(text_headers(event.headers))
            case StreamEnded() | StreamReset() if stream is not None:
                stream.end()
            case ConnectionTerminated() if event.error_code:
                raise Over


def _check(stream: _Stream) -> None:
    if stream.problem:
        raise Failed(stream.problem)
    status = stream.fields.get("grpc-status")
    if status is None:
        raise Failed("the engine ended the call")
    if status != "0":
        raise Failed(decoded(stream.fields.get("grpc-message", "")) or f"status {status}")


def _nothing() -> None:
    """Nobody waits for what has left."""
