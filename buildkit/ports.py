"""What the relay and the mediation need from others, as values in and values out."""

from __future__ import annotations

from typing import Protocol

from buildkit.status import Headers
from buildkit.verdicts import Call, Refuse, Verdict
from policy.buildkit import model
from policy.buildkit.model import Builder
from policy.model import Reason, RequestId


class Failed(Exception):  # noqa: N818  named by what became of the call
    """dockerd did not answer a call of ds01's own, or not well."""


class Ask(Protocol):
    """A call of ds01's own to the same engine, answered with all its messages. Raises: Failed."""

    async def __call__(self, path: str, message: bytes, metadata: Headers = ()) -> tuple[bytes, ...]: ...


class Judge(Protocol):
    """Decides calls."""

    def known(self, path: str) -> Refuse | None:
        """Refuse a method before its message has come; None: send it to `decide`."""

    async def decide(self, call: Call, ask: Ask) -> Verdict: ...


class Tags(Protocol):
    """Who owns image names."""

    async def reserve(self, tags: tuple[str, ...]) -> Reason | None:
        """Take the names for a build of one's own, or say why not: another's, or being written by another."""

    def release(self, tags: tuple[str, ...]) -> None:
        """The build is over."""

    def built(self, tags: tuple[str, ...], image_ids: tuple[str, ...]) -> None:
        """The build has written these names and images."""


class Confine(Protocol):
    """Makes the limits of the user's builds hold."""

    async def __call__(self, builder: Builder) -> None:
        """Before a build goes on. Raises: OSError: it must not."""


class Images(Protocol):
    """What of the engine's images is whose."""

    async def readable(self) -> model.Images:
        """Which of them the user's builds may read, and by which names."""


class Trail(Protocol):
    """The record of what was decided."""

    def allowed(self, path: str, detail: dict[str, object]) -> None:
        """Record before it is sent. Raises: AuditUnavailable, or whatever means that it must not go on."""

    def refused(self, path: str, status: int, message: str, rules: tuple[str, ...]) -> RequestId:
        """Record, and give the number to explain it by."""
