"""What the engine says of a container, a network or a volume, as the index is to know it: whose it is, and by what."""

from __future__ import annotations

from collections.abc import Mapping

from policy import ownership
from policy.model import Kind, LeaseId
from socket_proxy.adoptions import Adoptions
from socket_proxy.index import Entry
from socket_proxy.records import Records
from socket_proxy.seal import SealedContainers, Sealer

Labels = Mapping[str, str] | None  # None: the engine names none


class Entries:
    """Makes entries. Names are those inside dockerd."""

    def __init__(
        self, *, sealer: Sealer, sealed: SealedContainers, adoptions: Adoptions, records: Records
    ) -> None:
        self._sealer = sealer
        self._sealed = sealed
        self._adoptions = adoptions
        self._records = records

    def container(self, container_id: str, name: str, labels: Labels, *, state: str) -> Entry:
        """By its seal, or else by its adoption. Args: state: as for `SealedContainers.owner`."""
        owner = self._sealed.owner(container_id, labels, state=state)
        if owner is not None and labels is not None:
            lease = labels.get(ownership.LEASE)
            return Entry(
                kind=Kind.CONTAINER,
                id=container_id,
                name=name,
                owner=owner,
                lease=LeaseId(lease) if lease else None,
                created_by=labels[ownership.CREATED_BY],
            )
        adoption = self._adoptions.of(container_id)
        return Entry(
            kind=Kind.CONTAINER,
            id=container_id,
            name=name,
            owner=adoption.owner if adoption else None,
            lease=adoption.lease if adoption else None,
            adopted=adoption.fact() if adoption else None,
        )

    def may_run(self, container: Entry) -> bool:
        """Whether a container that is somebody's by its seal is still, once it was started."""
        return not container.created_by or self._sealed.came_through(container.id)

    def network(self, network_id: str, name: str, labels: Labels) -> Entry:
        """By its seal."""
        return Entry(kind=Kind.NETWORK, id=network_id, name=name, owner=self._sealer.owner(labels))

    def volume(self, name: str, labels: Labels) -> Entry:
        """By its seal, or else by the record of who used it first."""
        owner = self._sealer.owner(labels)
        if owner is None:
            owner = self._records.volume_owner(name)
        return Entry(kind=Kind.VOLUME, id=name, name=name, owner=owner)
