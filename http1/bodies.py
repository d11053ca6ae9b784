"""Bodies by their framing: a length, chunks, or the end of the connection."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

from http1.errors import BadRequest
from http1.heads import parse_trailers

if TYPE_CHECKING:
    from http1.heads import Headers
    from http1.limits import Limits

_CHUNK_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,15}")


class Body(Protocol):
    """Reads one body."""

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        """Append body bytes to `out`. Returns: None while the body goes on, else what follows it."""


class LengthBody:
    __slots__ = ("_left",)

    def __init__(self, length: int) -> None:
        self._left = length

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        body = data[: self._left]  # the same object when all of it is body
        if body:
            out.append(body)
        self._left -= len(body)
        return None if self._left else data[len(body) :]


class CloseBody:
    __slots__ = ()

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        if data:
            out.append(data)
        return None


class ChunkedBody:
    """Chunks without extensions, then trailers without framing fields."""

    __slots__ = ("_left", "_limits", "_partial", "_trailer_bytes", "_trailer_lines", "trailers")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._partial = b""  # the beginning of a line, at most one line long
        self._left = 0  # bytes of the current chunk still to come, its CRLF included
        self._trailer_lines: list[str] | None = None  # None: before the last chunk
        self._trailer_bytes = 0
        self.trailers: Headers = ()

    def feed(self, data: bytes, out: list[bytes]) -> bytes | None:
        if self._partial:
            data, self._partial = self._partial + data, b""
        at, end = 0, len(data)
        while at < end:
            if self._left:
                at = self._take_chunk(data, at, out)
                continue
            stop = data.find(b"\n", at)
            if stop < 0:
                self._keep_partial(data[at:])
                return None
            line, at = data[at : stop + 1], stop + 1
            if line[-2:-1] != b"\r":
                raise BadRequest(400, "bad chunk: bare LF")
            if self._take_line(line[:-2]):
                return data[at:]
        return None

    def _take_chunk(self, data: bytes, at: int, out: list[bytes]) -> int:
        """Take what there is of the chunk at `at`, then its CRLF byte by byte. Returns: where it ended."""
        if self._left > 2:
            body = data[at : at + self._left - 2]
            out.append(body)
            self._left -= len(body)
            return at + len(body)
        if data[at] != (13 if self._left == 2 else 10):
            raise BadRequest(400, "bad chunk: longer than its size")
        self._left -= 1
        return at + 1

    def _keep_partial(self, rest: bytes) -> None:
        limit = 17 if self._trailer_lines is None else self._limits.trailer_bytes
        if len(rest) > limit:
            raise BadRequest(400 if limit == 17 else 431, "bad chunk: line too long")
        self._partial = rest

    def _take_line(self, line: bytes) -> bool:
        """Read a size or trailer line without its CRLF. Returns: True when the body is over."""
        if self._trailer_lines is None:
            if not _CHUNK_SIZE.fullmatch(line):
                raise BadRequest(400, "bad chunk: size must be hexadecimal, without extensions")
            size = int(line, 16)
            if size:
                self._left = size + 2
            else:
                self._trailer_lines = []
            return False
        if not line:
            self.trailers = parse_trailers("".join(self._trailer_lines), self._limits)
            return True
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > self._limits.trailer_bytes:
            raise BadRequest(431, f"trailers are over {self._limits.trailer_bytes} bytes")
        self._trailer_lines.append(line.decode("latin-1") + "\r\n")
        return False
