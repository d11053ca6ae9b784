"""A request ready to be sent upstream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

from http1.writer import field_line, request_head

_REPEATABLE: Final = frozenset({"GET", "HEAD"})
_BODY_EXPECTED: Final = frozenset(
    {"POST", "PUT", "PATCH"}
)  # these say `Content-Length: 0` when they have none
Body = bytes | AsyncIterator[bytes] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, ready to send, any number of times if it has no stream."""

    method: str
    first_bytes: bytes
    stream: AsyncIterator[bytes] | None
    content_length: int | None
    hijack: bool
    upgrade: str | None

    def with_field(self, name: str, value: str) -> Call:
        """The same request with one more header. Raises: ValueError: it has a body, or the field is none."""
        if self.stream is not None or not self.first_bytes.endswith(b"\r\n\r\n"):
            raise ValueError("a header goes in front of a body")
        return Call(
            method=self.method,
            first_bytes=b"%b%b\r\n" % (self.first_bytes[:-2], field_line(name, value)),
            stream=None,
            content_length=self.content_length,
            hijack=self.hijack,
            upgrade=self.upgrade,
        )

    @property
    def repeatable(self) -> bool:
        return self.method in _REPEATABLE and self.stream is None and not self.hijack and self.upgrade is None


def prepare(
    method: str,
    target: str,
    headers: Iterable[tuple[str, str]] = (),
    body: Body = None,
    content_length: int | None = None,
    *,
    hijack: bool = False,
    upgrade: str | None = None,
) -> Call:
    """Write the head; a body of bytes goes into the same write. Arguments and ValueError as `Pool.request`."""
    stream = None if body is None or isinstance(body, bytes) else body
    whole = body if isinstance(body, bytes) else b""
    if stream is None:
        content_length = len(whole) if body is not None or method in _BODY_EXPECTED else None
    head = request_head(
        method,
        target,
        headers,
        content_length=content_length,
        chunked=stream is not None and content_length is None,
        upgrade=upgrade,
    )
    return Call(
        method=method,
        first_bytes=head + whole,
        stream=stream,
        content_length=content_length,
        hijack=hijack,
        upgrade=upgrade,
    )
