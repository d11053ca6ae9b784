"""What a share is good for: as few operations as the table says, and more only with more."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation
from policy.grants import Grants
from policy.model import SHARE_ORDER, Share
from policy.sharing import NEEDS, by_policy, largest, permits

NEVER = {
    Operation.CONTAINER_DELETE,
    Operation.CONTAINER_RENAME,
    Operation.CONTAINER_UPDATE,
    Operation.CONTAINER_START,
    Operation.CONTAINER_RESTART,
    Operation.CONTAINER_ATTACH,
    Operation.CONTAINER_ATTACH_WEBSOCKET,
    Operation.CONTAINER_ARCHIVE,
    Operation.CONTAINER_ARCHIVE_INFO,
    Operation.PUT_CONTAINER_ARCHIVE,
    Operation.CONTAINER_EXPORT,
    Operation.CONTAINER_CHANGES,
    Operation.CONTAINER_CREATE,
    Operation.IMAGE_COMMIT,
    Operation.NETWORK_CONNECT,
    Operation.NETWORK_DISCONNECT,
}


def test_the_table_is_the_one_that_is_documented() -> None:
    """To view is to list, inspect, watch numbers and wait; to use adds logs, top, stop and exec; the rest is the owner's."""
    view = {operation for operation in Operation if permits(Share.VIEW, operation)}
    use = {operation for operation in Operation if permits(Share.USE, operation)}
    assert view == {
        Operation.CONTAINER_LIST,
        Operation.CONTAINER_INSPECT,
        Operation.CONTAINER_STATS,
        Operation.CONTAINER_WAIT,
    }
    assert use - view == {
        Operation.CONTAINER_LOGS,
        Operation.CONTAINER_TOP,
        Operation.CONTAINER_STOP,
        Operation.CONTAINER_EXEC,
        Operation.EXEC_START,
        Operation.EXEC_RESIZE,
        Operation.EXEC_INSPECT,
    }
    assert not NEVER & use


@pytest.mark.parametrize("operation", Operation)
def test_no_share_permits_nothing_and_more_never_less(operation: Operation) -> None:
    """The shares are in an order, and every operation keeps to it."""
    permitted = [permits(share, operation) for share in SHARE_ORDER]
    assert permitted[0] is False
    assert permitted == sorted(permitted)
    assert any(permitted) == (operation in NEEDS)


def test_a_group_shares_among_its_members_alone() -> None:
    """The largest of the groups that both are in; none where there is none."""
    owner = Grants(shares=(("a", Share.VIEW), ("b", Share.USE)))
    assert by_policy(owner, {"a"}) is Share.VIEW
    assert by_policy(owner, {"a", "b"}) is Share.USE
    assert by_policy(owner, {"c"}) is Share.NONE
    assert by_policy(Grants(groups=("a",)), {"a"}) is Share.NONE
    assert largest(()) is Share.NONE
