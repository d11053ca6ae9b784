"""What the service needs from outside its room's pure part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from allocator.model import Snapshot


class Inventory(Protocol):
    """Where devices are seen: NVML in its own process, or a fake."""

    async def read(self) -> Snapshot:
        """All devices now. Raises: InventoryUnavailable."""
