"""Plain bytes out of an upload that may be compressed, piece by piece.

dockerd unpacks gzip, bzip2, xz and zstd by itself, with programs that it runs as root (CVE-2026-41567); what ds01 has
unpacked it need not. Source: moby pkg/archive DetectCompression.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from policy.dockerapi.model import MalformedRequest

PIECE_BYTES = 256 * 1024
_MEMORY_BYTES = 128 * 1024 * 1024  # what an xz dictionary may take
_GZIP = zlib.MAX_WBITS | 16


class _Stream(Protocol):
    """What the three unpackers of the standard library have in common, once zlib's is wrapped."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib's unpacker with the words of the other two."""

    def __init__(self) -> None:
        self._inner = zlib.decompressobj(_GZIP)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inner.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


_MAGIC: tuple[tuple[bytes, Callable[[], _Stream] | None], ...] = (
    (b"\x1f\x8b\x08", _Gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_BYTES)),
    (b"\x28\xb5\x2f\xfd", None),  # zstd
)
_LONGEST = max(len(magic) for magic, _ in _MAGIC)
_SKIPPABLE = tuple(bytes([0x50 + n, 0x2A, 0x4D, 0x18]) for n in range(16))  # zstd's frames before the first


class Plain:
    """`feed` gives what a piece holds, in pieces of at most `PIECE_BYTES`."""

    def __init__(self) -> None:
        self._start = b""
        self._make: Callable[[], _Stream] | None = None
        self._stream: _Stream | None = None
        self._decided = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises: MalformedRequest: a compression that ds01 does not unpack, or data that is not what it claims."""
        if not self._decided:
            self._start += data
            if len(self._start) < _LONGEST:
                return
            data = self._decide()
        if self._make is None:
            if data:
                yield data
        else:
            yield from self._unpacked(data)

    def close(self) -> Iterator[bytes]:
        """What is left once the upload has ended. Raises: MalformedRequest: it ended too early."""
        if not self._decided:
            yield from self.feed(b"")
            if not self._decided and (rest := self._decide()):
                if self._make is not None:
                    raise MalformedRequest("the upload ends within its first bytes")
                yield rest
        if self._stream is not None and not self._stream.eof:
            raise MalformedRequest("the compressed upload ends too early")

    def _decide(self) -> bytes:
        self._decided = True
        start, self._start = self._start, b""
        if start.startswith(_SKIPPABLE):
            raise MalformedRequest("zstd is not unpacked here; send a plain tar, or gzip")
        for magic, make in _MAGIC:
            if start.startswith(magic):
                if make is None:
                    raise MalformedRequest("zstd is not unpacked here; send a plain tar, or gzip")
                self._make, self._stream = make, make()
        return start

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        while data or (self._stream is not None and not self._stream.eof and not self._stream.needs_input):
            if self._stream is None or self._stream.eof:
                if not (self._make and data.strip(b"\0")):
                    return  # padding after the last stream
                self._stream = self._make()
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except (zlib.error, lzma.LZMAError, OSError, EOFError, ValueError) as error:
                raise MalformedRequest("the upload is not what its first bytes say it is") from error
            data = self._stream.unused_data if self._stream.eof else b""
            if piece:
                yield piece
