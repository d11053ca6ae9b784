"""What the guard needs from other rooms, as values in and values out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from policy.model import ContainerId, DeviceUuid, LeaseId


class LeasesUnavailable(Exception):  # noqa: N818  named by what it means to a start
    """The allocator cannot say."""


class LeaseOver(Exception):  # noqa: N818  named by what it means to a start
    """The container may not start with its devices; the text is the user's, in the form of every denial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A grant of devices as it is now. `container` None: not confirmed."""

    state: str  # active: it may start; every other: it may not
    devices: frozenset[DeviceUuid]
    container: ContainerId | None


class Leases(Protocol):
    """The allocator, as the guard uses it."""

    def start(self, lease: LeaseId, container: ContainerId) -> Lease | None:
        """The lease of a container that is about to start, None when there is none.

        Blocks, for some seconds at most. Raises: LeaseOver, LeasesUnavailable.
        """
