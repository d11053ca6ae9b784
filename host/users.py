"""Accounts of the host: who a uid is and which groups it is in. NSS may be LDAP: use `find` in a loop."""

from __future__ import annotations

import asyncio
import grp
import os
import pwd
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from policy.model import Actor, Door, Gid, Uid

if TYPE_CHECKING:
    from collections.abc import Callable

LOGIN_DEFS = Path("/etc/login.defs")
DEFAULT_UID_MIN = 1000
_FRESH_SECONDS = 30.0
_MOST_KEPT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """One Unix account. Group names without an entry are left out of `groups` but stay in `gids`."""

    uid: Uid
    gid: Gid
    name: str
    groups: frozenset[str]
    gids: frozenset[int]
    home: str

    def actor(self, *, door: Door = Door.USER) -> Actor:
        """The actor this account is, before anything is known of its peer."""
        return Actor(
            uid=self.uid,
            gid=self.gid,
            name=self.name,
            groups=self.groups,
            gids=self.gids,
            home=self.home,
            door=door,
        )


def uid_min(login_defs: Path = LOGIN_DEFS) -> int:
    """The first uid of people; 1000 where the file does not say. Raises: OSError other than missing."""
    try:
        text = login_defs.read_text(errors="replace")
    except FileNotFoundError:
        return DEFAULT_UID_MIN
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "UID_MIN" and words[1].isdecimal():
            return int(words[1])
    return DEFAULT_UID_MIN


def look_up_uid(uid: int) -> Account | None:
    """The account of a uid, None when there is none. Blocks as long as NSS does."""
    try:
        return _account(pwd.getpwuid(uid))
    except KeyError:
        return None


def look_up_name(name: str) -> Account | None:
    """The account of a login name, None when there is none. Blocks as long as NSS does."""
    try:
        return _account(pwd.getpwnam(name))
    except (KeyError, ValueError):  # ValueError: a null byte in the name
        return None


def _account(entry: pwd.struct_passwd) -> Account:
    gids = frozenset(os.getgrouplist(entry.pw_name, entry.pw_gid))
    return Account(
        uid=Uid(entry.pw_uid),
        gid=Gid(entry.pw_gid),
        name=entry.pw_name,
        groups=frozenset(filter(None, map(_group_name, gids))),
        gids=gids,
        home=entry.pw_dir,
    )


def _group_name(gid: int) -> str | None:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return None


class Users:
    """Accounts by uid, each remembered for 30 s, so that a group change is seen soon and a request is cheap.

    An unknown uid is not remembered: a new account works at once.
    """

    def __init__(
        self,
        *,
        look_up: Callable[[int], Account | None] = look_up_uid,
        clock: Callable[[], float] = time.monotonic,
        first_uid: int | None = None,
    ) -> None:
        """Use `look_up` for what is not remembered; `first_uid` replaces UID_MIN of /etc/login.defs."""
        self._look_up = look_up
        self._clock = clock
        self._first_uid = uid_min() if first_uid is None else first_uid
        self._kept: dict[int, tuple[float, Account]] = {}

    def is_system(self, uid: int) -> bool:
        """Whether the uid is a service's, not a person's: below UID_MIN, or nobody, or no uid at all."""
        return uid < self._first_uid or uid in (65534, 65535, 4294967294, 4294967295)

    def known(self, uid: int) -> Account | None:
        """The account if it is fresh in memory; never blocks."""
        kept = self._kept.get(uid)
        if kept is None or self._clock() >= kept[0]:
            return None
        return kept[1]

    def get(self, uid: int) -> Account | None:
        """The account, None when there is none. Blocks as long as NSS does when it is not in memory."""
        return self.known(uid) or self._remember(self._look_up(uid))

    async def find(self, uid: int) -> Account | None:
        """The account, None when there is none; a slow NSS holds up this call only."""
        return self.known(uid) or self._remember(await asyncio.to_thread(self._look_up, uid))

    def forget(self) -> None:
        """Ask NSS again for everybody (on reload)."""
        self._kept.clear()

    def _remember(self, account: Account | None) -> Account | None:
        if account is not None:
            if len(self._kept) >= _MOST_KEPT:
                self._kept.clear()
            self._kept[account.uid] = (self._clock() + _FRESH_SECONDS, account)
        return account
