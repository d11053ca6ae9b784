"""Whose the containers may be that ds01 did not make: evidence, looked for on the host beside everything else.

It is shown to admins, who ask that person; nothing is decided by it. Looking blocks where NSS or a dead network file system
does: one thread does it, and while it has not returned no second one is begun.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from allocator.adoption import HostFacts, Ownership, Person, logins_to_ask, paths_to_ask, uids_to_ask, whose
from host.users import look_up_name, look_up_uid
from observability import events
from observability.logging import log
from policy.model import Uid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from allocator.adoption import Inspected
    from host.users import Account
    from policy.model import ContainerId


def _owner_of(path: str) -> int:
    """A link is whose the link is: it may lead anywhere."""
    return Path(path).lstat().st_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where is looked. Everything blocks. owner_of: of a path by lstat(2); raises OSError. first_uid: of people."""

    first_uid: int
    owner_of: Callable[[str], int] = _owner_of
    by_name: Callable[[str], Account | None] = look_up_name
    by_uid: Callable[[int], Account | None] = look_up_uid


def look(container: Inspected, host: Host) -> Ownership:
    """Ask the host for all that the container's evidence names, and weigh it. Blocks."""
    owners: dict[str, Uid] = {}
    for path in paths_to_ask(container):
        with suppress(OSError, ValueError):
            owners[path] = Uid(host.owner_of(path))
    uids = {*uids_to_ask(container), *owners.values()}
    accounts = [*map(host.by_name, logins_to_ask(container)), *map(host.by_uid, sorted(uids))]
    people = {
        account.uid: Person(uid=account.uid, name=account.name, home=account.home)
        for account in accounts
        if account is not None and account.uid >= host.first_uid
    }
    return whose(container, HostFacts(people=tuple(people.values()), path_owners=owners), sealed=None)


class ForeignOwners:
    """What was found last of each container that there is."""

    def __init__(self, look: Callable[[Inspected], Ownership]) -> None:
        """Args: look: blocks."""
        self._look = look
        self._wanted: dict[ContainerId, Inspected] = {}
        self._found: dict[ContainerId, tuple[Inspected, Ownership]] = {}
        self._looking: asyncio.Task[Any] | None = None

    def tell(self, containers: Iterable[Inspected]) -> None:
        """All that are of interest; what is new of them is looked at from now on. Needs a running loop."""
        self._wanted = {one.id: one for one in containers}
        self._found = {key: kept for key, kept in self._found.items() if key in self._wanted}
        if self._next() is not None and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._look_at_all())

    def of(self, container: ContainerId) -> Ownership | None:
        """None while nothing is known of it."""
        found = self._found.get(container)
        return None if found is None else found[1]

    async def _look_at_all(self) -> None:
        while (one := self._next()) is not None:
            try:
                found = await asyncio.to_thread(self._look, one)
            except OSError as error:
                log(events.ATTRIBUTION_FAILED, problem=str(error))
                return  # the next telling tries again
            if one.id in self._wanted:
                self._found[one.id] = (one, found)

    def _next(self) -> Inspected | None:
        """One that was not looked at as it is now."""
        for one in self._wanted.values():
            known = self._found.get(one.id)
            if known is None or known[0] != one:
                return one
        return None
