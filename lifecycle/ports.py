"""What lifecycle needs from outside, as values in and values out: leases, containers, the policy, terminals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from policy.grants import TimeOver
    from policy.model import ContainerId, LeaseId, Uid


class Unavailable(Exception):  # noqa: N818  one of the project's kinds of error
    """Somebody does not answer, or answers what cannot be read: nothing is known, so nothing is done."""


class NotStopped(Exception):  # noqa: N818  the name says what became of the container
    """The engine was asked to stop a container, and did not. The text is its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A live lease as the allocator shows it.

    state: the allocator's word; only `active` and `lost` ones have a container that may run.
    seconds: how long it lasts from its create. left_seconds: until its end, in whole seconds towards 0, so that it is
        over for certain below 0 and not at 0. Both None: it has no end.
    """

    id: LeaseId
    owner_uid: Uid
    owner_name: str
    container: ContainerId | None
    state: str
    seconds: int | None
    left_seconds: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A container as the engine has it now.

    name: the one inside dockerd. lease: the one it carries, by its label; None: none.
    stop_seconds: what it may take to stop; None: the engine's default.
    """

    id: ContainerId
    name: str
    lease: LeaseId | None
    running: bool  # paused ones too
    stop_seconds: int | None


class Leases(Protocol):
    """The allocator."""

    async def live(self) -> tuple[Lease, ...]:
        """Every live lease. Raises: Unavailable."""

    async def find(self, lease: LeaseId) -> Lease | None:
        """One lease now; None: there is none of that id. Raises: Unavailable."""


class Containers(Protocol):
    """The engine, through ds01's own admin socket: each call is decided and audited like everybody's."""

    async def look(self, container: ContainerId) -> Container | None:
        """The container now; None: there is none. Raises: Unavailable."""

    async def stop(self, container: Container) -> None:
        """Stop it as `docker stop` does; return when it has stopped. Raises: NotStopped, Unavailable."""


class Rules(Protocol):
    """The policy in force."""

    async def time_over(self, uid: Uid) -> TimeOver:
        """What becomes of an owner's containers whose time is over. Raises: Unavailable: nobody knows the owner."""


class Terminals(Protocol):
    """The terminals that users have open."""

    async def tell(self, uid: Uid, text: str) -> int:
        """Write one line to each; to how many it went."""
