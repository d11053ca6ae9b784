"""What one actor sees: the index and the record of images, as the response filters ask them."""

from __future__ import annotations

from collections.abc import Sequence

from policy.model import Kind
from socket_proxy.image_owners import ImageOwners, Reader
from socket_proxy.index import Index
from socket_proxy.shared_containers import SharedContainers


class ActorVisibility:
    """Visibility of one actor; made for each filtered answer, holds no state of its own."""

    __slots__ = ("_everything", "_images", "_index", "_reader", "_shared", "_uid")

    def __init__(
        self, index: Index, images: ImageOwners, reader: Reader, shared: SharedContainers | None = None
    ) -> None:
        """`shared` None: an answer that tells of own containers alone."""
        self._index = index
        self._images = images
        self._reader = reader
        self._uid = reader.uid
        self._everything = reader.everything
        self._shared = shared

    def _owns(self, kind: Kind, object_id: str) -> bool:
        entry = self._index.seen(kind, object_id)
        return entry is not None and entry.owner == self._uid

    def sees_container(self, container_id: str) -> bool:
        return self._everything or self._owns(Kind.CONTAINER, container_id)

    def shown_as(self, container_id: str) -> str | None:
        return self._shared.name(self._reader, container_id) if self._shared is not None else None

    def sees_volume(self, real_name: str) -> bool:
        return self._everything or self._owns(Kind.VOLUME, real_name)

    def sees_network(self, network_id: str) -> bool:
        if self._everything:
            return True
        entry = self._index.seen(Kind.NETWORK, network_id)
        return entry is not None and (
            entry.shared or entry.owner == self._uid or self._index.shares(entry, self._reader.networks)
        )

    def network_name(self, network_id: str) -> str | None:
        entry = self._index.get(Kind.NETWORK, network_id) if self.sees_network(network_id) else None
        return entry.name if entry is not None else None

    def owns_network(self, network_id: str) -> bool:
        return self._everything or self._owns(Kind.NETWORK, network_id)

    def sees_image(self, image_id: str, references: Sequence[str]) -> bool:
        return self._images.may_read(self._reader, image_id, references)

    def sees_reference(self, reference: str) -> bool:
        shadowed = not self._everything and self._images.shadows(self._uid, reference)
        return not shadowed and self.shows_reference(reference)

    def shows_reference(self, reference: str) -> bool:
        """Whether the tag or digest may be read, also where it is not what the user means by the name."""
        return self._images.shows_tag(self._reader, reference)
