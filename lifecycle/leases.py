"""The allocator's client: which leases there are, and when each ends (docs/allocator-api.yaml)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec

from lifecycle.asking import UnixHttp
from lifecycle.ports import Lease
from policy.model import ContainerId, LeaseId, Uid

if TYPE_CHECKING:
    from pathlib import Path


# SECURITY: both become part of a path on a socket of root's, and the allocator is no root.
_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9A-Za-z-]{1,64}\Z")]
_ContainerId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Lease(msgspec.Struct):
    id: _Id
    owner_uid: Annotated[int, msgspec.Meta(ge=0)]
    owner_name: str
    state: str
    container_id: _ContainerId | None
    seconds: Annotated[int, msgspec.Meta(gt=0)] | None
    ends_in_seconds: int | None


class AllocatorClient:
    """Reads leases, and changes none."""

    def __init__(self, socket: Path) -> None:
        self._http = UnixHttp(socket, name="allocator")

    async def close(self) -> None:
        await self._http.close()

    async def live(self) -> tuple[Lease, ...]:
        """Every live lease; one that cannot be read makes the whole answer unreadable. Raises: Unavailable."""
        status, body = await self._http.ask("GET", "/v1/leases")
        listed = self._http.parse(body, list[_Lease], status=status)
        if not all(map(_is_whole, listed)):
            raise self._http.odd(status)
        return tuple(map(_lease, listed))

    async def find(self, lease: LeaseId) -> Lease | None:
        """One lease now; None: there is none of that id. Raises: Unavailable."""
        status, body = await self._http.ask("GET", f"/v1/leases/{lease}")
        if status == 404:
            return None
        found = self._http.parse(body, _Lease, status=status)
        if not _is_whole(found) or found.id != lease:
            raise self._http.odd(status)
        return _lease(found)


def _is_whole(answer: _Lease) -> bool:
    """Whether its time and its end are of one mind."""
    return (answer.seconds is None) == (answer.ends_in_seconds is None)


def _lease(answer: _Lease) -> Lease:
    return Lease(
        id=LeaseId(answer.id),
        owner_uid=Uid(answer.owner_uid),
        owner_name=answer.owner_name,
        container=None if answer.container_id is None else ContainerId(answer.container_id),
        state=answer.state,
        seconds=answer.seconds,
        left_seconds=answer.ends_in_seconds,
    )
