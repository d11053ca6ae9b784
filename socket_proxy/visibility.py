"""What one actor sees: the index, as the response filters ask it."""

from __future__ import annotations

from collections.abc import Sequence

from policy.model import Kind, Uid
from socket_proxy.index import Index


class ActorVisibility:
    """Visibility of one actor; made for each filtered answer, holds no state of its own."""

    __slots__ = ("_everything", "_index", "_networks", "_uid")

    def __init__(
        self, index: Index, uid: Uid, *, everything: bool, networks: frozenset[str] = frozenset()
    ) -> None:
        """networks: names of root's networks that policy shares with the actor."""
        self._networks = networks
        self._index = index
        self._uid = uid
        self._everything = everything

    def _owns(self, kind: Kind, object_id: str) -> bool:
        entry = self._index.seen(kind, object_id)
        return entry is not None and entry.owner == self._uid

    def sees_container(self, container_id: str) -> bool:
        return self._everything or self._owns(Kind.CONTAINER, container_id)

    def sees_volume(self, real_name: str) -> bool:
        return self._everything or self._owns(Kind.VOLUME, real_name)

    def sees_network(self, network_id: str) -> bool:
        if self._everything:
            return True
        entry = self._index.seen(Kind.NETWORK, network_id)
        return entry is not None and (
            entry.shared or entry.owner == self._uid or self._index.shares(entry, self._networks)
        )

    def network_name(self, network_id: str) -> str | None:
        entry = self._index.get(Kind.NETWORK, network_id) if self.sees_network(network_id) else None
        return entry.name if entry is not None else None

    def owns_network(self, network_id: str) -> bool:
        return self._everything or self._owns(Kind.NETWORK, network_id)

    def sees_image(self, image_id: str, references: Sequence[str]) -> bool:
        """Images are readable by everybody in this release; ownership governs tags and removal."""
        del image_id, references
        return True

    def sees_reference(self, reference: str) -> bool:
        """A tag is as readable as its image."""
        del reference
        return True
