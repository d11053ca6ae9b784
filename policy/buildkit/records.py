"""Whose a record of the build cache is.

SOURCE: moby/buildkit v0.25: the description of a cache mount ends in `with id "NAMESPACE/ID"` (tried on engine 28.5).
Of other records nothing says whose they are, and unknown is never one's own.
"""

from __future__ import annotations

from policy.buildkit import names
from policy.model import Uid

CACHE_MOUNT = "exec.cachemount"


def is_own(uid: Uid, *, kind: str, description: str) -> bool:
    """Whether a record is a cache mount in this user's namespace.

    The command of a RUN stands before the id and is its user's to choose, so the last `with id` counts, and the whole of it.
    """
    _, found, last = description.rpartition(' with id "')
    return (
        kind == CACHE_MOUNT
        and bool(found)
        and last.endswith('"')
        and last.startswith(f"{names.cache_namespace(uid)}/")
    )
