"""Which blobs of BuildKit's content store each user may read: those that the history of their own builds has named to them.

Kept in memory alone: after a restart the history is asked again before any blob is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from policy.model import Uid

_MOST: Final = 4096


class SeenContent:
    """Digests by user, the latest few thousand each."""

    def __init__(self) -> None:
        self._by_uid: dict[Uid, OrderedDict[str, None]] = {}

    def add(self, uid: Uid, digests: Iterable[str]) -> None:
        seen = self._by_uid.setdefault(uid, OrderedDict())
        for digest in digests:
            seen[digest] = None
            seen.move_to_end(digest)
        while len(seen) > _MOST:
            seen.popitem(last=False)

    def has(self, uid: Uid, digest: str) -> bool:
        return digest in self._by_uid.get(uid, ())
