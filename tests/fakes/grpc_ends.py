"""A gRPC client and a scripted gRPC server on raw sockets, by the h2 library alone, and the two Duplexes between them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from h2 import events as h2
from h2.config import H2Configuration
from h2.connection import H2Connection

from buildkit.client import Client as OwnClient
from buildkit.framing import Messages, frame
from buildkit.ports import Judge
from buildkit.relay import Relay
from buildkit.session import Session
from buildkit.status import Code, Status
from buildkit.uploads import Upload
from http1.duplex import Duplex
from http1.limits import Limits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECONDS = 30  # on a machine that does other things too
Headers = tuple[tuple[str, str], ...]


@dataclass
class Answered:
    """What came on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""
    reset: int | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def status(self) -> str:
        return self.headers.get("grpc-status", "")

    @property
    def messages(self) -> list[bytes]:
        return Messages(2**30).feed(self.data)


class End:
    """One end: reads all the time; what comes is sorted by stream."""

    def __init__(self, connection: socket.socket, *, client_side: bool) -> None:
        self._socket = connection
        self.h2 = H2Connection(H2Configuration(client_side=client_side, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.streams: defaultdict[int, Answered] = defaultdict(Answered)
        self.closed = asyncio.Event()
        self.on_request: Callable[[int], Coroutine[None, None, None]] | None = None
        self.acknowledging = True
        self.listening = asyncio.Event()
        self.listening.set()
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        await self.flush()
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as self._tasks:
            while True:
                await self.listening.wait()
                try:
                    data = await loop.sock_recv(self._socket, 65536)
                except OSError:
                    data = b""
                if not data:
                    break
                for event in self.h2.receive_data(data):
                    self._take(event)
                await self.flush()
            self.closed.set()
            for stream in self.streams.values():
                stream.over.set()

    def _take(self, event: h2.Event) -> None:
        match event:
            case h2.RequestReceived() | h2.ResponseReceived() | h2.TrailersReceived():
                self.streams[event.stream_id].headers |= {
                    str(name): str(value) for name, value in event.headers
                }
            case h2.DataReceived():
                self.streams[event.stream_id].data += event.data
                if self.acknowledging:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case h2.StreamEnded():
                self.streams[event.stream_id].over.set()
                if self.on_request is not None:
                    self._tasks.create_task(self.on_request(event.stream_id))
            case h2.StreamReset():
                self.streams[event.stream_id].reset = event.error_code
                self.streams[event.stream_id].over.set()

    async def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            with contextlib.suppress(OSError):  # the other end has gone
                await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def raw(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    def leave(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)


class Client(End):
    """Makes calls."""

    async def begin(self, path: str, message: bytes | None = b"", metadata: Headers = (), *, kind: str = "application/grpc") -> int:  # fmt: skip
        """Begin a call; with a message, its request is whole."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream,
            [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
             ("content-type", kind), ("te", "trailers"), *metadata],
        )  # fmt: skip
        if message is not None:
            self.h2.send_data(stream, frame(message), end_stream=True)
        await self.flush()
        return stream

    async def answer(self, stream: int) -> Answered:
        await asyncio.wait_for(self.streams[stream].over.wait(), SECONDS)
        return self.streams[stream]

    async def call(self, path: str, message: bytes = b"", metadata: Headers = ()) -> Answered:
        return await self.answer(await self.begin(path, message, metadata))


class Engine(End):
    """Answers each call by `script`, which gets the stream and its request; by default it echoes."""

    script: Callable[[Engine, int], Awaitable[None]] | None = None

    async def answer(self, stream: int) -> None:
        if self.script is not None:
            await self.script(self, stream)
        else:
            await self.give(stream, *self.streams[stream].messages)

    async def give(self, stream: int, *messages: bytes, status: int = 0, words: str = "") -> None:
        self.h2.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
        for message in messages:
            await self.send(stream, frame(message))
        trailers = [("grpc-status", str(status)), *([("grpc-message", words)] if words else [])]
        self.h2.send_headers(stream, trailers, end_stream=True)
        await self.flush()

    async def send(self, stream: int, data: bytes) -> None:
        while data:
            size = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size, len(data))
            if not size:
                await asyncio.sleep(0.001)
                continue
            self.h2.send_data(stream, data[:size])
            data = data[size:]
            await self.flush()


@dataclass
class Ends:
    """A client, an engine, and the relay between them."""

    client: Client
    engine: Engine
    errors: list[Exception]
    done: asyncio.Event


@asynccontextmanager
async def relayed(judge: Judge) -> AsyncIterator[Ends]:
    """A relay that runs; everything is closed afterwards."""
    async with AsyncExitStack() as stack:
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        for one in (*ours, *theirs):
            one.setblocking(False)
            stack.callback(one.close)
        client, engine = Client(ours[0], client_side=True), Engine(ours[1], client_side=False)
        engine.on_request = engine.answer
        ends = Ends(client=client, engine=engine, errors=[], done=asyncio.Event())

        def failed(_path: str, error: Exception) -> Status:
            ends.errors.append(error)
            return Status(code=Code.INTERNAL, message="a bug")

        duplexes = [await duplex(one) for one in theirs]
        relay = Relay(client=duplexes[0], engine=duplexes[1], judge=judge, failed=failed)

        async def run() -> None:
            await relay.run()
            ends.done.set()

        async with asyncio.TaskGroup() as tasks:
            for each in (client.run(), engine.run(), run()):
                tasks.create_task(each)
            try:
                yield ends
            finally:
                client.listening.set()
                client.leave()
                await asyncio.wait_for(ends.done.wait(), SECONDS)
                await asyncio.wait_for(engine.closed.wait(), SECONDS)


@asynccontextmanager
async def in_session(upload: Callable[[str], Upload | None]) -> AsyncIterator[Ends]:
    """A session that runs: here dockerd makes the calls (`client`), and the user's client answers them (`engine`)."""
    async with AsyncExitStack() as stack:
        ours, theirs = zip(socket.socketpair(), socket.socketpair(), strict=True)
        for one in (*ours, *theirs):
            one.setblocking(False)
            stack.callback(one.close)
        dockerd, user = Client(ours[0], client_side=True), Engine(ours[1], client_side=False)
        user.on_request = user.answer
        ends = Ends(client=dockerd, engine=user, errors=[], done=asyncio.Event())
        duplexes = [await duplex(one) for one in theirs]
        session = Session(
            engine=duplexes[0], client=duplexes[1], services=("/known/", "/moby.upload"), upload=upload
        )

        async def run() -> None:
            await session.run()
            ends.done.set()

        async with asyncio.TaskGroup() as tasks:
            for each in (dockerd.run(), user.run(), run()):
                tasks.create_task(each)
            try:
                yield ends
            finally:
                dockerd.listening.set()
                user.listening.set()
                dockerd.leave()
                await asyncio.wait_for(ends.done.wait(), SECONDS)
                await asyncio.wait_for(user.closed.wait(), SECONDS)


@asynccontextmanager
async def calling() -> AsyncIterator[tuple[OwnClient, Engine]]:
    """ds01's own client on a connection to a scripted engine."""
    async with AsyncExitStack() as stack:
        ours, theirs = socket.socketpair()
        for one in (ours, theirs):
            one.setblocking(False)
            stack.callback(one.close)
        engine, client = Engine(ours, client_side=False), OwnClient(await duplex(theirs))
        engine.on_request = engine.answer
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(engine.run())
            tasks.create_task(client.run())
            try:
                yield client, engine
            finally:
                client.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(SECONDS):
        while not true():  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.001)


async def duplex(connection: socket.socket) -> Duplex:
    """The proxy's hold of one connection."""
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=connection)
    return Duplex(transport, b"", limits=Limits())
