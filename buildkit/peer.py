"""One end of an HTTP/2 connection, without I/O: bytes in, events out; what is to be sent waits here until it may go.

SECURITY: whatever the other end sends becomes an event or `Broken`; its windows, streams and header sizes are bounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import Event
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings

STREAMS: Final = 100  # calls at once; buildx uses about ten for each build
_STREAM_WINDOW: Final = 256 * 1024
_CONNECTION_WINDOW: Final = (
    4 * 1024 * 1024
)  # more than one stream's, so that a slow one does not stop the others
_HEADER_BYTES: Final = 64 * 1024
_TAKE_BYTES: Final = 64 * 1024
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME_HEADER_BYTES: Final = 9
_FRAME_BYTES: Final = 16 * 1024  # the largest that HTTP/2 allows without asking
_KNOWN_FRAMES: Final = 10


class Broken(Exception):  # noqa: N818  names the state of the connection
    """The other end does not speak HTTP/2, or not within its limits."""


class _Outgoing:
    """What waits to be sent on one stream. `end`: None, more may come; else the trailers, () for none."""

    __slots__ = ("data", "end")

    def __init__(self) -> None:
        self.data = bytearray()
        self.end: tuple[tuple[str, str], ...] | None = None


class Peer:
    """The server towards a client, or the client towards a server."""

    def __init__(self, *, client_side: bool) -> None:
        self._connection = H2Connection(H2Configuration(client_side=client_side, header_encoding=None))
        self._received = bytearray()
        self._preface = b"" if client_side else _PREFACE  # what must still come before the first frame
        settings = {
            SettingCodes.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            SettingCodes.MAX_HEADER_LIST_SIZE: _HEADER_BYTES,
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
        }
        if client_side:
            settings[SettingCodes.ENABLE_PUSH] = 0
        self._connection.local_settings = Settings(client=client_side, initial_values=settings)
        self._outgoing: dict[int, _Outgoing] = {}  # streams on which something may still be sent
        self._connection.initiate_connection()
        self._connection.increment_flow_control_window(_CONNECTION_WINDOW - 65535)

    def receive(self, data: bytes) -> list[Event]:
        """What the bytes amount to. Raises: Broken; what `take` then gives says so to the other end."""
        self._received += data
        events: list[Event] = []
        try:
            for piece in self._pieces():
                events += self._connection.receive_data(piece)
        except H2Error as error:
            raise Broken(str(error) or type(error).__name__) from error
        return events

    def _pieces(self) -> Iterator[bytes]:
        """The preface and then one frame at a time.

        SECURITY: h2 keeps a frame of 16 MiB before it finds it too long, and goes one level deeper for each frame of a kind
        it does not know: it is given neither.
        """
        received = self._received
        if self._preface:
            if not received.startswith(self._preface):
                if not self._preface.startswith(received):
                    raise Broken("no HTTP/2 preface")
                return
            del received[: len(self._preface)]
            yield self._preface
            self._preface = b""
        while len(received) >= _FRAME_HEADER_BYTES:
            size = int.from_bytes(received[:3], "big")
            if size > _FRAME_BYTES:
                raise Broken("a frame is too long")
            end = _FRAME_HEADER_BYTES + size
            if len(received) < end:
                return
            frame, known = bytes(received[:end]), received[3] < _KNOWN_FRAMES
            del received[:end]
            if known:
                yield frame

    def take(self) -> bytes:
        """The next bytes to send, a piece at a time, as far as the other end's windows let them go."""
        room = _TAKE_BYTES
        for stream, outgoing in tuple(self._outgoing.items()):
            try:
                room -= self._move(stream, outgoing, room)
            except H2Error:  # the stream is over, by the other end's wish
                self._outgoing.pop(stream, None)
        return self._connection.data_to_send()

    def _move(self, stream: int, outgoing: _Outgoing, room: int) -> int:
        moved = 0
        while outgoing.data and moved < room:
            window = self._connection.local_flow_control_window(stream)
            size = min(window, self._connection.max_outbound_frame_size, len(outgoing.data), room - moved)
            if size <= 0:
                return moved
            self._connection.send_data(stream, bytes(outgoing.data[:size]))
            del outgoing.data[:size]
            moved += size
        if not outgoing.data and outgoing.end is not None:
            del self._outgoing[stream]
            if outgoing.end:
                self._connection.send_headers(stream, outgoing.end, end_stream=True)
            else:
                self._connection.end_stream(stream)
        return moved

    def accept(self, stream: int) -> None:
        """A request has come on `stream`: an answer may be sent."""
        self._outgoing[stream] = _Outgoing()

    def open(self, headers: Iterable[tuple[str, str]]) -> int:
        """Begin a request. Returns: its stream. Raises: Broken: the other end takes no more."""
        try:
            stream = self._connection.get_next_available_stream_id()
            self._connection.send_headers(stream, tuple(headers))
        except H2Error as error:
            raise Broken(str(error)) from error
        self.accept(stream)
        return stream

    def send_headers(self, stream: int, headers: Iterable[tuple[str, str]], *, end: bool = False) -> None:
        """The head of an answer. Nothing happens on a stream that is over, here and below. Raises: Broken: no such head."""
        if stream in self._outgoing:
            if end:
                del self._outgoing[stream]
            try:
                self._connection.send_headers(stream, tuple(headers), end_stream=end)
            except H2Error as error:
                raise Broken(str(error)) from error

    def send(self, stream: int, data: bytes) -> None:
        """Queue body bytes."""
        if stream in self._outgoing:
            self._outgoing[stream].data += data

    def finish(self, stream: int, trailers: tuple[tuple[str, str], ...] = ()) -> None:
        """End the body after what is queued."""
        if stream in self._outgoing:
            self._outgoing[stream].end = trailers

    def queued(self, stream: int) -> int:
        """How many bytes wait on a stream."""
        return len(self._outgoing[stream].data) if stream in self._outgoing else 0

    def forget(self, stream: int) -> None:
        """The other end has ended the stream: nothing more can be sent on it."""
        self._outgoing.pop(stream, None)

    def reset(self, stream: int, code: int = ErrorCodes.CANCEL) -> None:
        """End a stream at once, with what is queued."""
        self._outgoing.pop(stream, None)
        try:
            self._connection.reset_stream(stream, code)
        except H2Error:  # it is over already
            return

    def acknowledge(self, stream: int, size: int) -> None:
        """So many received bytes were dealt with; as many more may come."""
        try:
            self._connection.acknowledge_received_data(size, stream)
        except H2Error:  # the stream is over: h2 has counted the bytes for the connection
            return
