"""Which containers of others a user may see or use now, and what they are called there.

Two ways lead to one: the owner shared it (`container_shares`), or both are members of a group whose members share by
policy. Both are judged anew each time, so that an end takes effect at the next look. Whose group one is in is asked of
the host beforehand (`refresh`); who has not been asked about shares nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from host.users import Users
from policy import names
from policy.compile import Policy
from policy.model import Actor, ContainerId, Kind, Share, Uid
from policy.sharing import by_policy, largest
from socket_proxy.container_shares import ContainerShares
from socket_proxy.image_owners import Reader
from socket_proxy.index import Entry, Index


class SharedContainers:
    """Asked by viewer and container; one for the whole proxy."""

    def __init__(
        self, *, index: Index, granted: ContainerShares, policy: Callable[[], Policy], users: Users
    ) -> None:
        self._index = index
        self._granted = granted
        self._policy = policy
        self._users = users
        self._people: dict[Uid, Actor | None] = {}  # None: there is no such account any more

    async def refresh(self, *viewers: Uid) -> None:
        """Learn who these viewers are now, and owners who are new; it costs nothing where nothing is shared."""
        by_group = self._policy().shares_containers
        if not by_group and not self._granted:
            self._people.clear()
            return
        owners = self._index.owners(Kind.CONTAINER) if by_group else ()
        for uid in {*viewers, *(uid for uid in owners if uid not in self._people)}:
            account = await self._users.find(uid)
            self._people[uid] = account.actor() if account else None

    def known(self) -> tuple[Uid, ...]:
        """Whom `refresh` has asked about; to ask again is up to the clock (`tethers`), so that no request waits for it."""
        return tuple(self._people)

    def _groups(self, reader: Reader) -> frozenset[str]:
        """A reader's policy groups now; a stream may be older than the policy."""
        if reader.uid not in self._people:
            return reader.groups
        person = self._people[reader.uid]
        return frozenset(self._policy().for_actor(person).groups) if person else frozenset()

    def share(self, reader: Reader, container_id: str) -> Share:
        """What the reader may do with a container because it is shared; nothing for its owner and admins, who need no share."""
        entry = self._index.seen(Kind.CONTAINER, container_id)
        if entry is None or entry.owner is None or entry.owner == reader.uid or reader.everything:
            return Share.NONE
        return self._share(Reader(uid=reader.uid, groups=self._groups(reader)), entry)

    def _share(self, reader: Reader, entry: Entry) -> Share:
        granted = (
            each.share
            for each in self._granted.of(ContainerId(entry.id))
            if each.owner == entry.owner and reader.is_among((each.grantee,))
        )
        owner = self._people.get(entry.owner) if entry.owner is not None else None
        group = by_policy(self._policy().for_actor(owner), reader.groups) if owner else Share.NONE
        return largest((*granted, group))

    def all(self, reader: Reader) -> Iterator[tuple[Entry, Share]]:
        """Every container that is shared with the reader."""
        if reader.everything:
            return
        current = Reader(uid=reader.uid, groups=self._groups(reader))
        owners = (
            uid for uid in self._index.owners(Kind.CONTAINER) if self._people.get(uid) and uid != reader.uid
        )
        by_id = {entry.id: entry for uid in owners for entry in self._index.owned(Kind.CONTAINER, uid)}
        for container in self._granted.containers():
            entry = self._index.get(Kind.CONTAINER, container)
            if entry is not None and entry.owner not in (None, reader.uid):
                by_id[entry.id] = entry
        for entry in by_id.values():
            share = self._share(current, entry)
            if share is not Share.NONE:
                yield entry, share

    def name(self, reader: Reader, container_id: str) -> str | None:
        """What the reader calls it: the first of its names that is not one of the reader's own; None: it is not shared."""
        entry = self._index.seen(Kind.CONTAINER, container_id)
        if entry is None or self.share(reader, container_id) is Share.NONE:
            return None
        free = (
            name for name in self._names(entry) if not self._index.means_own(Kind.CONTAINER, name, reader.uid)
        )
        return next(free, entry.id)

    def _names(self, entry: Entry) -> tuple[str, ...]:
        if entry.owner is None:
            return ()
        owner = self._people.get(entry.owner)
        granted = self._granted.of(ContainerId(entry.id))
        login = owner.name if owner else next((each.login for each in granted), "")
        return names.of_another(entry.owner, login, entry.name)

    def find(self, reader: Reader, text: str) -> tuple[Entry, Share] | None:
        """What `text` means among what is shared with the reader: by id, name or unique id prefix.

        SECURITY: whatever could be one of the reader's own objects is none of these, so that nobody's share captures a name.
        """
        text = text.removeprefix("/")
        if not text or self._index.means_own(Kind.CONTAINER, text, reader.uid):
            return None
        shared = list(self.all(reader))
        exact = [found for found in shared if text == found[0].id or text in self._names(found[0])]
        matches = exact or [found for found in shared if found[0].id.startswith(text)]
        return matches[0] if len(matches) == 1 else None
