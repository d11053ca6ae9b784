"""HTTP/1.1 for dockerd alone: POST with Content-Length over keep-alive connections, one answer after the other.

Strict: what dockerd does not send is a 400 and the end of the connection, which dockerd takes for a refusal.
An empty Host header is accepted, since dockerd 20.10 sends one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, cast

import httptools

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable

    Answer = Callable[[str, bytes], bytes | Awaitable[bytes] | None]

BODY_LIMIT_BYTES = (
    8 * 1024 * 1024
)  # 4 MiB of RequestBody (the most any engine shows) as base64, and its headers
_HEAD_LIMIT_BYTES = 64 * 1024
_WAITING_LIMIT = 16  # dockerd does not pipeline
_BACKLOG = 4096  # dockerd connects anew for most calls at once; a full backlog costs it a second (EAGAIN, then a retry)


class _Refused(Exception):  # noqa: N818  internal: the answer is a 400
    """Not what dockerd sends."""


class AuthzServer:
    """Accepts connections on a listening socket and answers each message with `answer`."""

    def __init__(self, answer: Answer) -> None:
        """`answer(path, body)` gives the JSON body, or an awaitable of it, or None for 404."""
        self.answer = answer
        self.connections: set[_Connection] = set()
        self._server: asyncio.AbstractServer | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def serve(self, listener: socket.socket, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then finish the answers that are under way."""
        async with asyncio.TaskGroup() as self._tasks:
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Connection(self), sock=listener, backlog=_BACKLOG
            )
            await stop.wait()
            server.close()
            for connection in tuple(self.connections):
                connection.finish()

    def spawn(self, work: Awaitable[None]) -> None:
        """Run what must wait, as a task of this server."""
        if self._tasks is None:  # pragma: no cover  a connection exists only while serving
            raise RuntimeError("not serving")
        self._tasks.create_task(_run(work))


async def _run(work: Awaitable[None]) -> None:
    await work


class _Connection(asyncio.Protocol):
    """One connection of dockerd. Messages are answered in order, one at a time."""

    def __init__(self, server: AuthzServer) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[str, str, bytes, bool]] = deque()
        self._busy = False
        self._finishing = False
        self._start()

    def _start(self) -> None:
        self._path = b""
        self._parts: list[bytes] = []
        self._body_bytes = 0
        self._head_bytes = 0
        self._in_head = True

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream's transport; uvloop's own class is no subclass of asyncio.Transport, so isinstance cannot tell.
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None
        self._server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        try:
            self._parser.feed_data(data)
            self._check_head(len(data))
        except (_Refused, httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._respond(b"400 Bad Request", b'{"Err":"ds01: not what dockerd sends"}', keep_alive=False)
            return
        self._answer_waiting()

    def finish(self) -> None:
        """Answer what has come, then close."""
        self._finishing = True
        if not self._busy and self._transport is not None:
            self._transport.close()

    # httptools

    def on_message_begin(self) -> None:
        self._start()

    def on_url(self, url: bytes) -> None:
        self._path += url

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-length":
                if int(value) > BODY_LIMIT_BYTES:
                    raise _Refused
            case b"transfer-encoding" | b"upgrade" | b"expect":
                raise _Refused

    def on_headers_complete(self) -> None:
        self._in_head = False

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > BODY_LIMIT_BYTES:
            raise _Refused
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if len(self._waiting) >= _WAITING_LIMIT:
            raise _Refused
        method = self._parser.get_method().decode("ascii")
        path = self._path.decode("latin-1")
        self._waiting.append((method, path, b"".join(self._parts), self._parser.should_keep_alive()))
        self._parts = []

    def _check_head(self, received_bytes: int) -> None:
        """The parser keeps an unfinished header itself, so what was fed is what counts."""
        if self._in_head:
            self._head_bytes += received_bytes
            if self._head_bytes > _HEAD_LIMIT_BYTES:
                raise _Refused

    # answering

    def _answer_waiting(self) -> None:
        while self._waiting and not self._busy:
            method, path, body, keep_alive = self._waiting.popleft()
            if method != "POST":
                self._respond(b"405 Method Not Allowed", b'{"Err":"ds01: POST only"}', keep_alive=keep_alive)
                continue
            answer = self._server.answer(path, body)
            if answer is None or isinstance(answer, bytes):
                self._send(answer, keep_alive=keep_alive)
            else:
                self._wait_for(answer, keep_alive=keep_alive)

    def _wait_for(self, answer: Awaitable[bytes], *, keep_alive: bool) -> None:
        self._busy = True
        if self._transport is not None:
            self._transport.pause_reading()
        self._server.spawn(self._send_later(answer, keep_alive=keep_alive))

    async def _send_later(self, answer: Awaitable[bytes], *, keep_alive: bool) -> None:
        body = await answer
        self._busy = False
        self._send(body, keep_alive=keep_alive)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._answer_waiting()

    def _send(self, body: bytes | None, *, keep_alive: bool) -> None:
        if body is None:
            self._respond(b"404 Not Found", b'{"Err":"ds01: no such call"}', keep_alive=keep_alive)
        else:
            self._respond(b"200 OK", body, keep_alive=keep_alive)

    def _respond(self, status: bytes, body: bytes, *, keep_alive: bool) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        keep = keep_alive and not self._finishing
        self._transport.write(
            b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n%b"
            % (status, len(body), b"" if keep else b"Connection: close\r\n", body)
        )
        if not keep:
            self._transport.close()
