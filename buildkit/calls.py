"""The state of one call in a relay: what has come of it, and where it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from buildkit.framing import BadMessage, Messages
from buildkit.ports import Failed
from buildkit.status import Headers
from buildkit.verdicts import Forward, Reshape

REQUEST_BYTES: Final = (
    4 * 1024 * 1024
)  # a Solve with a thousand build arguments is far below; LLB is refused anyway
ANSWER_BYTES: Final = 16 * 1024 * 1024  # one message of an answer that is read; BuildKit's own bound
OWN_BYTES: Final = 64 * 1024 * 1024


def text_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Header fields as text, byte for byte."""
    return tuple((bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in headers)


def request_headers(path: str, metadata: Headers) -> Headers:
    """The head of a request that ds01 makes."""
    return (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "localhost"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "ds01"),
        *metadata,
    )


class Live:
    """A client's call, from its first header to its end on both sides."""

    __slots__ = (
        "_ended",
        "complete",
        "engine_stream",
        "headed",
        "held",
        "incoming",
        "messages",
        "metadata",
        "outgoing",
        "over",
        "path",
        "reshape",
        "stream",
        "task",
        "unread",
    )

    def __init__(self, stream: int, path: str, headers: Headers) -> None:
        self.stream = stream
        self.engine_stream = 0  # 0: not sent
        self.path = path
        self.metadata = tuple(field for field in headers if not field[0].startswith(":"))
        self.incoming = Messages(REQUEST_BYTES)
        self.messages: list[bytes] = []
        self.held = 0  # bytes kept of the request, then of the answer, that count against the connection
        self.complete = False  # the request is
        self.task: asyncio.Task[None] | None = None
        self.reshape: Reshape | None = None
        self.outgoing = Messages(ANSWER_BYTES)
        self.headed = False  # the head of the answer went to the client
        self.unread = 0  # bytes of dockerd's that were not acknowledged
        self.over = False
        self._ended: list[Forward] = []

    def take(self, verdict: Forward) -> None:
        """The call is to go on so."""
        self.reshape = verdict.reshape
        self._ended = [verdict]

    def finish(self) -> None:
        """Say once that the call is over."""
        while self._ended:
            ended = self._ended.pop().ended
            if ended is not None:
                ended()


class Own:
    """A call of ds01's own, answered as a whole."""

    __slots__ = ("_fields", "_messages", "_parser", "_size", "result")

    def __init__(self) -> None:
        self.result: asyncio.Future[tuple[bytes, ...]] = asyncio.get_running_loop().create_future()
        self._parser = Messages(OWN_BYTES)
        self._messages: list[bytes] = []
        self._fields: dict[str, str] = {}
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > OWN_BYTES:
            self.fail("the answer is too long")
            return
        try:
            self._messages += self._parser.feed(data)
        except BadMessage as error:
            self.fail(str(error))

    def fields(self, headers: Headers) -> None:
        self._fields |= dict(headers)

    def end(self) -> None:
        status = self._fields.get("grpc-status")
        if status != "0":
            self.fail(self._fields.get("grpc-message", f"status {status}"))
        elif not self.result.done():
            self.result.set_result(tuple(self._messages))

    def fail(self, why: str) -> None:
        if not self.result.done():
            self.result.set_exception(Failed(why))
