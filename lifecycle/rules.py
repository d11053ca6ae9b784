"""The policy in force, asked about one owner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lifecycle.ports import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from host.users import Users
    from policy.compile import Policy
    from policy.grants import TimeOver
    from policy.model import Uid


class PolicyRules:
    """What policy says of an owner now: a change of the files counts for leases that there are already."""

    def __init__(self, policy: Callable[[], Policy], users: Users) -> None:
        self._policy = policy
        self._users = users

    async def time_over(self, uid: Uid) -> TimeOver:
        """What becomes of an owner's containers whose time is over.

        Raises: Unavailable: the uid has no account, so nobody can tell which groups it is in; a directory service that is
            down looks the same.
        """
        account = await self._users.find(uid)
        if account is None:
            raise Unavailable(f"uid {uid} has no account on this server")
        return self._policy().for_actor(account.actor()).gpu.time_over
