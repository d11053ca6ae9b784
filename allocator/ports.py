"""What parts of the service need of others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from allocator.model import Snapshot
    from policy.model import LeaseId


class Inventory(Protocol):
    """Where devices are seen: NVML in its own process, or a fake."""

    async def read(self) -> Snapshot:
        """All devices now. Raises: InventoryUnavailable."""


class Release(Protocol):
    """Gives devices back."""

    async def __call__(self, lease: LeaseId, *, who: str, why: str) -> object:
        """Raises: LedgerUnavailable."""
