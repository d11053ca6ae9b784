"""What is done with one gRPC call, as the relay carries it out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from buildkit.status import Headers, Status

Reshape = Callable[[bytes], bytes | None]
"""One message of the answer as it comes, to what the client gets; None leaves it out. Raises: BadMessage: end the call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call as the client made it: the method's path, its metadata (names lower-case), the one message."""

    path: str
    metadata: Headers
    message: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Refuse:
    """The call ends here."""

    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """ds01 answers itself."""

    messages: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """The call goes on, written afresh.

    reshape: None relays the answer as it comes.
    ended: called once when the call is over, however it ends, if it was begun.
    """

    path: str
    metadata: Headers
    message: bytes
    reshape: Reshape | None = None
    ended: Callable[[], None] | None = None


Verdict = Refuse | Answer | Forward
