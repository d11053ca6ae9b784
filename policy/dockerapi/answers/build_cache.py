"""The build cache as one user may see it: records whose owner is known (`policy.buildkit.records`).

Source: Engine API 1.39-1.51, SystemDataUsage, BuildCache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from policy.buildkit.records import is_own
from policy.dockerapi.answers.pieces import Piece, read, read_array, read_fields

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policy.model import Uid


class CacheRecord(msgspec.Struct, frozen=True):
    """One record; sizes in bytes, times as RFC 3339."""

    ID: str
    Type: str = ""
    Description: str = ""
    InUse: bool = False
    Shared: bool = False
    Size: int = 0
    CreatedAt: str = ""
    LastUsedAt: str | None = None


_RECORD = msgspec.json.Decoder(CacheRecord)


def own_records(cache: Piece, uid: Uid) -> Iterator[tuple[CacheRecord, msgspec.Raw]]:
    """Those of this user, each also as the engine wrote it. Raises: UnreadableAnswer."""
    for raw in read_array(cache) or ():
        record = read(_RECORD, raw)
        if is_own(uid, kind=record.Type, description=record.Description):
            yield record, raw


def cache_of(usage: bytes) -> msgspec.Raw:
    """The build cache in an answer of /system/df. Raises: UnreadableAnswer."""
    return read_fields(usage).get("BuildCache", msgspec.Raw(b"null"))
