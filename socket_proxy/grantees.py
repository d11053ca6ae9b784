"""With whom something is shared: users and policy groups, as people write them and as they stand on record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from host.users import Users, look_up_name
from policy.compile import Policy
from policy.model import Uid
from socket_proxy.image_owners import group_grantee, user_grantee
from socket_proxy.refusals import Refusal


class Grantees:
    """Looks names up, and uids."""

    def __init__(self, *, users: Users, policy: Callable[[], Policy]) -> None:
        self._users = users
        self._policy = policy

    async def find(self, name: str) -> str | Refusal:
        """What NAME, user:NAME or group:NAME stands for."""
        kind, colon, bare = name.partition(":")
        bare = bare if colon else name
        account = await asyncio.to_thread(look_up_name, bare) if kind != "group" or not colon else None
        group = (kind != "user" or not colon) and bare in self._policy().document.groups
        if colon and kind not in ("user", "group"):
            account, group = None, False
        if account is not None and group:
            return Refusal(
                status=400,
                message=f"ds01: {bare} is a user and a policy group; write user:{bare} or group:{bare}",
            )
        if account is not None:
            return user_grantee(account.uid)
        if group:
            return group_grantee(bare)
        return Refusal(
            status=404,
            message=f"ds01: there is no user and no policy group {name[:64]}; ds01 whoami lists your policy groups",
        )

    async def shown(self, grantee: str) -> str:
        """A user by login, everything else as it is on record."""
        return (
            await self.name(Uid(int(grantee.removeprefix("user:"))))
            if grantee.startswith("user:")
            else grantee
        )

    async def name(self, uid: Uid) -> str:
        account = await self._users.find(uid)
        return account.name if account else f"uid {uid}"
