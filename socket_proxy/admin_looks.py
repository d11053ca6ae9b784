"""What the allocator shows to who may see everything, for admins of the policy: it knows uids, and the proxy knows roles.

GET `gpu/inventory`, `gpu/processes`, `gpu/queue`, `gpu/host-access` and `containers/foreign` below `/ds01/v1/`. Everybody may ask the
allocator itself for what is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from policy.model import Json
from socket_proxy.image_owners import Reader
from socket_proxy.refusals import Refusal

_PATHS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "gpu/inventory": "/v1/inventory",
        "gpu/processes": "/v1/processes",
        "gpu/queue": "/v1/queue",
        "gpu/host-access": "/v1/host-access",
        "containers/foreign": "/v1/foreign",
    }
)
_YOURS: Final = (
    "ds01: only admins see who uses and waits for GPUs; what is yours: ds01 gpu, ds01 gpu top, ds01 gpu queue"
)
_FOREIGN: Final = "ds01: only admins see the containers that ds01 did not make; ask one"


class Shows(Protocol):
    """The allocator, as far as it shows what there is."""

    async def look(self, path: str) -> Mapping[str, Json]: ...


def is_one(path: str) -> bool:
    """Whether it is such a look."""
    return path in _PATHS


async def look(path: str, reader: Reader, allocator: Shows) -> Mapping[str, Json] | Refusal:
    """The allocator's own answer, of everything. Raises: Unavailable; KeyError: it is none of these looks."""
    if reader.everything:
        return await allocator.look(_PATHS[path])
    return Refusal(status=403, message=_YOURS if path.startswith("gpu/") else _FOREIGN)
