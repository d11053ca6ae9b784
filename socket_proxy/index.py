"""Who owns which container, network and volume: ds01's picture of the engine, held in memory.

The truth is in the engine (sealed labels); the index is built from its lists at start, kept by its events and by ds01's
own answers. An id never changes hands, so an entry can be late but never wrong: what it cannot know is absent.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from policy import names
from policy.model import Adopted, Kind, LeaseId, ObjectFact, Uid

_PREDEFINED_NETWORKS = frozenset({"bridge", "host", "none"})
_REMEMBERED = 4096  # destroyed objects whose last events may still be on their way to users
_EXECS = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object as the index knows it. `owner` None: nobody's that ds01 can prove."""

    kind: Kind
    id: str
    name: str  # inside dockerd
    owner: Uid | None
    lease: LeaseId | None = None
    shared: bool = False
    created_by: str = ""  # the request that made it, from its sealed labels
    adopted: Adopted | None = None  # a container that ds01 did not make, and that was given to its owner

    def fact(self) -> ObjectFact:
        return ObjectFact(
            kind=self.kind,
            id=self.id,
            owner=self.owner,
            shared=self.shared,
            name=self.name,
            lease=self.lease,
            adopted=self.adopted,
        )


def nobodys(entry: Entry) -> Entry:
    """The same of something whose labels prove nothing."""
    return replace(entry, owner=None, lease=None, created_by="")


@dataclass(slots=True)
class _Shelf:
    """All objects of one kind, by id, by name and in id order (for prefixes)."""

    by_id: dict[str, Entry] = field(default_factory=dict)
    ids_by_name: dict[str, set[str]] = field(default_factory=dict)
    ids_by_owner: dict[Uid | None, list[str]] = field(default_factory=dict)  # sorted
    ids_by_request: dict[str, str] = field(default_factory=dict)
    gone: OrderedDict[str, Entry] = field(default_factory=OrderedDict)

    def put(self, entry: Entry) -> None:
        """Add or replace one object.

        SECURITY: one request makes one object. A second one with the same sealed labels has them from an image that was
        committed with them; it is nobody's, and no lease is its.
        """
        self.drop(entry.id)
        self.gone.pop(entry.id, None)
        if entry.created_by and self.ids_by_request.setdefault(entry.created_by, entry.id) != entry.id:
            entry = nobodys(entry)
        self.by_id[entry.id] = entry
        self.ids_by_name.setdefault(entry.name, set()).add(entry.id)
        insort(self.ids_by_owner.setdefault(entry.owner, []), entry.id)

    def drop(self, object_id: str) -> Entry | None:
        entry = self.by_id.pop(object_id, None)
        if entry is None:
            return None
        namesakes = self.ids_by_name[entry.name]
        namesakes.discard(object_id)
        if not namesakes:
            del self.ids_by_name[entry.name]
        owned = self.ids_by_owner[entry.owner]
        del owned[bisect_left(owned, object_id)]
        if not owned:
            del self.ids_by_owner[entry.owner]
        self.ids_by_request.pop(entry.created_by, None)
        self.gone[object_id] = entry
        if len(self.gone) > _REMEMBERED:
            self.gone.popitem(last=False)
        return entry

    def named(self, real_name: str, owner: Uid | None) -> list[str]:
        """Ids of one owner's objects that have this name inside dockerd."""
        return [found for found in self.ids_by_name.get(real_name, ()) if self.by_id[found].owner == owner]

    def own(self, name: str, owner: Uid) -> list[str]:
        """Ids of one owner's objects that their owner knows by this name."""
        found = self.named(names.real(owner, name), owner)
        # What was named before names were per user, or by dockerd, shows under its real name.
        return found or (self.named(name, owner) if names.plain(owner, name) == name else [])

    def with_prefix(self, owner: Uid | None, prefix: str) -> list[str]:
        """At most two ids of one owner that start with `prefix`: two are already ambiguous."""
        owned = self.ids_by_owner.get(owner, [])
        at = bisect_left(owned, prefix)
        return [object_id for object_id in owned[at : at + 2] if object_id.startswith(prefix)]


def _plain(entry: Entry) -> str:
    """What its owner calls it."""
    return names.plain(entry.owner, entry.name)


class Index:
    """Lookups by full id, and by the references users write, among what a user may see."""

    def __init__(self) -> None:
        self._shelves = {kind: _Shelf() for kind in (Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME)}
        self._execs: OrderedDict[str, tuple[str, Uid | None]] = OrderedDict()

    def put(self, entry: Entry) -> None:
        """Add or replace one object."""
        if entry.kind is Kind.NETWORK and entry.name in _PREDEFINED_NETWORKS and entry.owner is None:
            entry = replace(entry, shared=True)
        self._shelves[entry.kind].put(entry)

    def drop(self, kind: Kind, object_id: str) -> Entry | None:
        """Take an object out; it stays known to `seen` for a while, for its last events."""
        return self._shelves[kind].drop(object_id)

    def rename(self, kind: Kind, object_id: str, name: str) -> None:
        entry = self._shelves[kind].by_id.get(object_id)
        if entry is not None:
            self.put(replace(entry, name=name))

    def replace_all(self, kind: Kind, entries: list[Entry], *, known: frozenset[str]) -> None:
        """Take over a full list.

        Args:
            entries: what the engine listed, oldest first.
            known: the ids that were here when the list was asked for. What came later is not in it and stays.
        """
        for object_id in known - {entry.id for entry in entries}:
            self.drop(kind, object_id)
        for entry in entries:
            self.put(entry)

    def ids(self, kind: Kind) -> frozenset[str]:
        return frozenset(self._shelves[kind].by_id)

    def get(self, kind: Kind, object_id: str) -> Entry | None:
        return self._shelves[kind].by_id.get(object_id)

    def seen(self, kind: Kind, object_id: str) -> Entry | None:
        """Like `get`, but also objects that are gone since not long ago."""
        shelf = self._shelves[kind]
        return shelf.by_id.get(object_id) or shelf.gone.get(object_id)

    def all(self, kind: Kind) -> Iterator[Entry]:
        return iter(tuple(self._shelves[kind].by_id.values()))

    def made_by(self, kind: Kind, request_id: str) -> bool:
        """Whether the object that this request was to make is here."""
        return request_id in self._shelves[kind].ids_by_request

    def count(self, kind: Kind, owner: Uid) -> int:
        return len(self._shelves[kind].ids_by_owner.get(owner, ()))

    def owned(self, kind: Kind, owner: Uid) -> list[Entry]:
        shelf = self._shelves[kind]
        return [shelf.by_id[object_id] for object_id in shelf.ids_by_owner.get(owner, ())]

    def has_adopted(self, owner: Uid) -> bool:
        """Whether any container of this owner is one that ds01 did not make."""
        return any(entry.adopted is not None for entry in self.owned(Kind.CONTAINER, owner))

    def owners(self, kind: Kind) -> list[Uid]:
        """Everybody who owns an object of this kind."""
        return [owner for owner in self._shelves[kind].ids_by_owner if owner is not None]

    def means_own(self, kind: Kind, text: str, uid: Uid) -> bool:
        """Whether a reference is a name, id or id prefix of anything of the user's own; it may stand for several."""
        shelf = self._shelves[kind]
        return bool(shelf.own(text, uid) or shelf.with_prefix(uid, text))

    def find(self, kind: Kind, text: str, uid: Uid, *, everything: bool) -> Entry | None:
        """What `text` means to this user, or None: absent, another's, or ambiguous.

        The order is dockerd's: full id, exact name, unique id prefix (a volume has a name only). It is applied to the
        user's own objects first and to shared ones after, so that nobody else's name can capture a reference. Own objects
        go by the names their user knows, all others, which only admins reach, by those inside dockerd.

        Args:
            text: as the client wrote it; a container name may start with a slash.
            everything: the user sees all objects (role admin).
        """
        text = text.removeprefix("/") if kind is Kind.CONTAINER else text
        shelf = self._shelves[kind]
        own = self._among(shelf, kind, text, owner=uid, named=shelf.own(text, uid))
        if own is not None or (not everything and kind is not Kind.NETWORK):
            return own
        owners = shelf.ids_by_owner if everything else [None]
        matches = [
            found
            for owner in owners
            if (found := self._among(shelf, kind, text, owner=owner, named=shelf.named(text, owner)))
            is not None
        ]
        exact = [found for found in matches if text in (found.id, found.name)]
        candidates = exact or matches
        if len(candidates) != 1 or not (everything or candidates[0].shared):
            return None
        return candidates[0]

    def named(self, kind: Kind, name: str, uid: Uid) -> Entry | None:
        """The user's own object that the user knows by this very name."""
        shelf = self._shelves[kind]
        return next((shelf.by_id[found] for found in shelf.own(name, uid)), None)

    def shares(self, entry: Entry, listed: frozenset[str]) -> bool:
        """Whether a network is root's own and has one of these names: a user cannot make one that passes for it."""
        return entry.kind is Kind.NETWORK and entry.owner in (None, 0) and _plain(entry) in listed

    def find_shared(self, text: str, listed: frozenset[str]) -> Entry | None:
        """The network of one of these names that `text` means: by name or full id."""
        for entry in self._shelves[Kind.NETWORK].by_id.values() if listed else ():
            if text in (entry.id, _plain(entry)) and self.shares(entry, listed):
                return replace(entry, shared=True)
        return None

    @staticmethod
    def _among(shelf: _Shelf, kind: Kind, text: str, *, owner: Uid | None, named: list[str]) -> Entry | None:
        entry = shelf.by_id.get(text) if kind is not Kind.VOLUME else None
        if entry is not None and entry.owner == owner:
            return entry
        if len(named) == 1:
            return shelf.by_id[named[0]]
        if named or kind is Kind.VOLUME or not text:
            return None
        prefixed = shelf.with_prefix(owner, text)
        return shelf.by_id[prefixed[0]] if len(prefixed) == 1 else None

    def remember_exec(self, exec_id: str, container_id: str, maker: Uid | None = None) -> None:
        """An exec belongs to its container; the engine forgets it with the container, ds01 after 65,536 others.

        maker: who had it made, for whoever may use a container that is another's. Nobody knows after a restart of ds01.
        """
        self._execs[exec_id] = container_id, maker or self.maker_of_exec(exec_id)
        if len(self._execs) > _EXECS:
            self._execs.popitem(last=False)

    def container_of_exec(self, exec_id: str) -> str | None:
        found = self._execs.get(exec_id)
        return found[0] if found else None

    def maker_of_exec(self, exec_id: str) -> Uid | None:
        found = self._execs.get(exec_id)
        return found[1] if found else None
