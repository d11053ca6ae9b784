"""What this room needs from others, as the few calls it makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from policy.dockerapi.model import Incoming, Request
    from policy.model import Actor, LeaseId, Reason


class Reader(Protocol):
    """`policy.dockerapi.read.read`, with the engine's API version bound."""

    def __call__(self, incoming: Incoming) -> Request:
        """Read a request completely. Raises: whatever says that it has no single meaning."""


class Checker(Protocol):
    """`policy.evaluate.check` on the policy in force."""

    def __call__(self, actor: Actor, request: Request, *, leases: tuple[LeaseId, ...]) -> tuple[Reason, ...]:
        """Every reason against the request that needs no facts; empty means none."""


class Actors(Protocol):
    """Accounts of the host."""

    def known(self, uid: int) -> Actor | None:
        """The actor if it is in memory; never blocks."""

    def find(self, uid: int) -> Awaitable[Actor | None]:
        """The actor, None when the uid has no account."""


class StampKey(Protocol):
    """The proxy's public key."""

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the key made this signature over this message."""
