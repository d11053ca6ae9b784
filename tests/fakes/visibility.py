"""What one user sees, as plain sets."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class SetVisibility:
    """Sees exactly what it was given; short ids match the full ones, as the index does it."""

    containers: frozenset[str] = frozenset()
    volumes: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()
    own_networks: frozenset[str] = frozenset()
    images: frozenset[str] = frozenset()  # ids and references
    shared: Mapping[str, str] = field(
        default_factory=dict
    )  # others' containers by id, and what they are called

    def sees_container(self, container_id: str, /) -> bool:
        return container_id in self.containers or container_id in {full[:12] for full in self.containers}

    def shown_as(self, container_id: str, /) -> str | None:
        return self.shared.get(container_id)

    def sees_volume(self, real_name: str, /) -> bool:
        return real_name in self.volumes

    def sees_network(self, network_id: str, /) -> bool:
        return network_id in self.networks | self.own_networks

    def network_name(self, network_id: str, /) -> str | None:
        return f"u1001.net-{network_id[0]}" if self.sees_network(network_id) else None

    def owns_network(self, network_id: str, /) -> bool:
        return network_id in self.own_networks

    def sees_image(self, image_id: str, references: Sequence[str], /) -> bool:
        return image_id in self.images or any(reference in self.images for reference in references)

    def sees_reference(self, reference: str, /) -> bool:
        return reference in self.images
