"""Which containers of ds01's own carry which lease, as the proxy told last, whether the lease still lasts or not.

A stopped container names its devices as long as it exists, and its lease may be over by time before that. Kept in memory alone: all
are told again every half minute, and before anything was told nothing is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from allocator.reconcile import Carrier
    from policy.model import LeaseId


class Carried:
    """The carriers of the latest evidence."""

    def __init__(self) -> None:
        self._told: tuple[Carrier, ...] | None = None

    @property
    def is_known(self) -> bool:
        """Whether anything was told since the start; until then there may be any container."""
        return self._told is not None

    def tell(self, carriers: Collection[Carrier]) -> None:
        """All that there are, in place of what was told before."""
        self._told = tuple(carriers)

    def forget(self, lease: LeaseId) -> None:
        """Its proxy gave it back: no container carries it, until evidence says otherwise."""
        if self._told is not None:
            self._told = tuple(one for one in self._told if one.lease != lease)

    def without(self, live: Collection[LeaseId]) -> Iterator[Carrier]:
        """Those whose lease is none of `live`."""
        return (one for one in self._told or () if one.lease not in live)
