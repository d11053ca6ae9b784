"""What a share of a container is good for: one table, from operation to how much of a share it takes.

An operation that is not in the table is the owner's alone, whatever is shared. Start, restart and `docker cp` are not
among them: dockerd resolves bind sources for them, and those are looked at with the owner's rights.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

from policy.dockerapi.model import Operation
from policy.grants import Grants
from policy.model import SHARE_ORDER, Share

NEEDS: Mapping[Operation, Share] = MappingProxyType(
    {
        Operation.CONTAINER_LIST: Share.VIEW,  # as a reference in `before` and `since`
        Operation.CONTAINER_INSPECT: Share.VIEW,  # masked: policy.dockerapi.answers.shared
        Operation.CONTAINER_STATS: Share.VIEW,
        Operation.CONTAINER_WAIT: Share.VIEW,
        # Arguments of programs and what they print can hold secrets.
        Operation.CONTAINER_TOP: Share.USE,
        Operation.CONTAINER_LOGS: Share.USE,
        Operation.CONTAINER_STOP: Share.USE,
        Operation.CONTAINER_EXEC: Share.USE,
        Operation.EXEC_START: Share.USE,
        Operation.EXEC_RESIZE: Share.USE,
        Operation.EXEC_INSPECT: Share.USE,
    }
)


def permits(share: Share, operation: Operation) -> bool:
    """Whether a share of a container is enough for an operation on it."""
    needed = NEEDS.get(operation)
    return needed is not None and SHARE_ORDER.index(needed) <= SHARE_ORDER.index(share)


def by_policy(owner: Grants, viewer_groups: Collection[str]) -> Share:
    """What policy lets a member of these groups have of the owner's containers: the most of the groups they share."""
    return largest(share for group, share in owner.shares if group in viewer_groups)


def largest(shares: Iterable[Share]) -> Share:
    """The one that holds all others; none of none."""
    return max(shares, key=SHARE_ORDER.index, default=Share.NONE)
