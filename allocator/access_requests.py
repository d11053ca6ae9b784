"""Asking for access outside containers: bodies read strictly, answers made, errors told by their status. No HTTP.

For `/v1/host-access`: GET lists, POST grants, POST /v1/host-access/revoke takes away. Who asks, and whether they may, is the caller's to know.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from allocator.host_access import LONGEST_SECONDS, SHORTEST_SECONDS, AccessFailed, HostAccess
from allocator.host_grants import HostGrant
from allocator.model import Moment, Refusal
from policy.model import Uid

_REASON = re.compile(r"[ -~]{1,300}")
_USER = re.compile(r"[!-~]{1,64}")
_DEVICE = re.compile(r"[!-~]{1,128}")
_MOST_DEVICES = 64

Answer = tuple[int, dict[str, Any]]  # HTTP status, body


class Malformed(Exception):  # noqa: N818  the name says what is wrong
    """A body that cannot be read; the text names the field."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody to whom access can be given."""

    uid: Uid
    name: str
    is_person: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A grant as asked for. devices: names of GPUs and MIG devices; none: every GPU."""

    user: str
    seconds: int
    reason: str
    devices: tuple[str, ...] = ()


def read_wish(body: Mapping[str, Any]) -> Wish:
    """Raises: Malformed."""
    _only(body, {"user", "seconds", "reason"}, {"devices"})
    seconds, devices = body["seconds"], body.get("devices", [])
    if type(seconds) is not int or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
        raise Malformed(f"seconds: a whole number from {SHORTEST_SECONDS} to {LONGEST_SECONDS} is needed")
    if not isinstance(devices, list) or len(devices) > _MOST_DEVICES or not all(map(_is_device, devices)):
        raise Malformed(f"devices: a list of names like 2, 2:1 or a UUID, at most {_MOST_DEVICES}, is needed")
    reason = body["reason"]
    if not isinstance(reason, str) or not _REASON.fullmatch(reason) or not reason.strip():
        raise Malformed("reason: one line of 1 to 300 ASCII characters is needed; say what it is for")
    return Wish(user=_user(body["user"]), seconds=seconds, reason=reason.strip(), devices=tuple(devices))


def read_user(body: Mapping[str, Any]) -> str:
    """Whose access is taken away. Raises: Malformed."""
    _only(body, {"user"}, set())
    return _user(body["user"])


def _only(body: Mapping[str, Any], required: set[str], optional: set[str]) -> None:
    missing, unknown = required - body.keys(), body.keys() - required - optional
    if missing or unknown:
        raise Malformed(f"{min(missing or unknown)[:80]}: {'missing' if missing else 'unknown field'}")


def _is_device(value: Any) -> bool:
    return isinstance(value, str) and _DEVICE.fullmatch(value) is not None


def _user(value: Any) -> str:
    if not isinstance(value, str) or not _USER.fullmatch(value):
        raise Malformed("user: a login name is needed")
    return value


class AccessRequests:
    """Answers for one `HostAccess`."""

    def __init__(
        self,
        access: HostAccess,
        *,
        account: Callable[[str], Awaitable[Account | None]],
        now: Callable[[], Moment],
        utc_seconds: Callable[[], float],
    ) -> None:
        """Look names up with `account`."""
        self._access = access
        self._account = account
        self._now = now
        self._utc_seconds = utc_seconds

    async def grants(self, owner: Uid | None) -> Answer:
        """The live grants of one user, or of all. Raises: LedgerUnavailable."""
        live = await self._access.live()
        return 200, {"grants": [self._shown(one) for one in live if owner in (None, one.uid)]}

    async def grant(self, body: Mapping[str, Any], *, by: str) -> Answer:
        """Raises: Malformed, LedgerUnavailable, InventoryUnavailable."""
        wish = read_wish(body)
        account = await self._account(wish.user)
        if account is None:
            return _message(404, f"there is no user {wish.user}")
        if not account.is_person:
            return _message(
                409,
                f"{wish.user} is root or a system account, whose slice ds01 does not close; name a person",
            )
        if not self._access.sessions_are_closed():
            return _message(
                409,
                "every session may use GPUs here, so there is nothing to grant; close them: ds01 gpu sessions --close",
            )
        try:
            made = await self._access.grant(
                uid=account.uid,
                name=account.name,
                devices=wish.devices,
                seconds=wish.seconds,
                by=by,
                reason=wish.reason,
            )
        except AccessFailed as failed:
            return _message(503, f"no access was given: {failed}; mend it and try again")
        if isinstance(made, Refusal):
            return _message(409, made.message)
        return 201, self._shown(made)

    async def revoke(self, body: Mapping[str, Any], *, by: str) -> Answer:
        """Raises: Malformed, LedgerUnavailable."""
        user = read_user(body)
        account = await self._account(user)
        uids = {one.name: one.uid for one in await self._access.live()}
        uid = uids.get(user) if account is None else account.uid  # an account may be gone before its grant
        found = None if uid is None else await self._revoke(uid, by)
        if isinstance(found, AccessFailed):
            return _message(503, f"the access of {user} is over, but {found}")
        if found is None:
            return _message(404, f"{user} has no access outside containers; see ds01 gpu grants")
        return 200, self._shown(found)

    async def _revoke(self, uid: Uid, by: str) -> HostGrant | AccessFailed | None:
        try:
            return await self._access.revoke(uid, by=by, why="revoked")
        except AccessFailed as failed:
            return failed

    def _shown(self, grant: HostGrant) -> dict[str, Any]:
        left = grant.left(now=self._now(), utc_seconds=self._utc_seconds())
        return {
            "uid": grant.uid,
            "user": grant.name,
            "devices": [{"uuid": one.uuid, "index": self._access.index(one.uuid)} for one in grant.devices],
            "granted_at": grant.granted_utc,
            "granted_by": grant.granted_by,
            "reason": grant.reason,
            "ends_at": grant.ends_utc,
            "left_seconds": max(0, round(left)),
        }


def _message(status: int, text: str) -> Answer:
    return status, {"message": f"ds01: {text}"}
