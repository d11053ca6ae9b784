"""gRPC's length-prefixed messages. SOURCE: gRPC over HTTP/2, Length-Prefixed-Message."""

from __future__ import annotations

_PREFIX_BYTES = 5


class BadMessage(Exception):  # noqa: N818  named by what it is about
    """Bytes that are no message ds01 reads: compressed, too long, cut short, or not what the method takes."""


class Messages:
    """Bytes in, whole messages out.

    Args: limit: the most bytes of one message.
    """

    __slots__ = ("_bytes", "_limit")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole now. Raises: BadMessage."""
        self._bytes += data
        found: list[bytes] = []
        while len(self._bytes) >= _PREFIX_BYTES:
            if self._bytes[0]:
                raise BadMessage("the message is compressed")
            size = int.from_bytes(self._bytes[1:_PREFIX_BYTES], "big")
            if size > self._limit:
                raise BadMessage(f"the message is over {self._limit} bytes")
            end = _PREFIX_BYTES + size
            if len(self._bytes) < end:
                break
            found.append(bytes(self._bytes[_PREFIX_BYTES:end]))
            del self._bytes[:end]
        return found

    @property
    def partial(self) -> int:
        """How many bytes of a message have come that is not whole yet."""
        return len(self._bytes)


def frame(message: bytes) -> bytes:
    """One message as it is sent, uncompressed."""
    return b"\0" + len(message).to_bytes(4, "big") + message
