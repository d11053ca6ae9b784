"""Which containers that ds01 did not make an admin has given to whom. Rows are durable (`records`) and held in memory.

A row is of one full id and ends with the container: an id never comes again (ADR 0023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from policy.model import Adopted, ContainerId, LeaseId, Uid
from socket_proxy.records import Records


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """closed: why its owner runs no programs in it; empty: they may. lease: on the devices it has, if any.

    started: when the run of it began that was looked at, in the engine's words.
    """

    container: ContainerId
    owner: Uid
    closed: str = ""
    started: str = ""
    lease: LeaseId | None = None

    def fact(self) -> Adopted:
        """What rules are told."""
        return Adopted(closed=self.closed)


class Adoptions:
    """All of them."""

    def __init__(self, records: Records) -> None:
        """Raises: RecordsUnavailable."""
        self._records = records
        self._by_container = {
            ContainerId(container): Adoption(
                container=ContainerId(container),
                owner=owner,
                closed=closed,
                started=started,
                lease=LeaseId(lease) if lease else None,
            )
            for container, owner, closed, started, lease in records.adoptions()
        }

    def of(self, container: str) -> Adoption | None:
        return self._by_container.get(ContainerId(container))

    def add(self, adoption: Adoption) -> None:
        """Durable when this returns. Raises: RecordsUnavailable: it may be there after a restart."""
        self._records.adopt(
            adoption.container,
            adoption.owner,
            closed=adoption.closed,
            started=adoption.started,
            lease=adoption.lease or "",
        )
        self._by_container[adoption.container] = adoption

    def end(self, container: ContainerId) -> None:
        """Raises: RecordsUnavailable: it goes on."""
        if container in self._by_container:
            self._records.disown(container)
            del self._by_container[container]

    def sweep(self, exists: Callable[[ContainerId], bool]) -> None:
        """End those whose container is gone. Raises: RecordsUnavailable."""
        for container in [each for each in self._by_container if not exists(each)]:
            self.end(container)
