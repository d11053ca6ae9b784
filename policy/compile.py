"""Document → policy: who is in which group, and what all entries about one actor come to.

Order, weakest first: built-in values, `defaults`, groups, the user's own entry.
- Groups: a number that groups state replaces the default's; of several groups the larger counts. Lists are united with
  the default's. The most powerful role counts; `drop` counts over `deny`, private images over shared ones, a network of one's own
  over the shared one, and of `builds` the one that permits more. What a group shares, its members share among themselves alone.
- The user's entry replaces whatever it names, numbers and lists alike, so that an admin can also take away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import chain
from typing import Any

from policy.document import Document, Entry
from policy.grants import (
    BUILDS_ORDER,
    ROLE_ORDER,
    TIME_OVER_ORDER,
    BindPath,
    DefaultNetwork,
    GpuTerms,
    Grants,
    Handling,
    Limits,
    Ports,
    Role,
)
from policy.model import Actor, GroupGpus, Share

UID_MIN = 1000
USER_SOCKET = "/run/ds01/users/{name}/docker.sock"
CACHE_ENTRIES = 4096

_LISTS = ("capabilities", "devices", "sysctls", "networks", "registries")
_HANDLING = ("security_opt", "ipc_host", "host_network")

Key = tuple[int, str, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A compiled policy. INVARIANT: never changes; the cache holds only what `for_actor` would compute again.

    user_socket_template: where a user's own socket is, with {name}.
    digest: SHA-256 of the meaning, in hex: equal for files that differ in comments or order alone.
    """

    document: Document
    digest: str
    user_socket_template: str = USER_SOCKET
    uid_min: int = UID_MIN
    _cache: dict[Key, Grants] = field(default_factory=dict, repr=False, compare=False)

    def for_actor(self, actor: Actor) -> Grants:
        """What this actor may do; uid 0 is always admin, other accounts below `uid_min` only if listed."""
        key = (actor.uid, actor.name, actor.groups)
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= CACHE_ENTRIES:
                self._cache.clear()
            found = self._cache[key] = self._merge(actor)
        return found

    @property
    def shares_containers(self) -> bool:
        """Whether members of any group have each other's containers."""
        return any(_share(entry) for entry in self.document.groups.values())

    def _merge(self, actor: Actor) -> Grants:
        document = self.document
        names = sorted(name for name, entry in document.groups.items() if _is_member(actor, entry))
        groups = [document.groups[name] for name in names]
        user = document.users.get(actor.name, Entry())
        return Grants(
            role=self._role(actor, groups, user),
            groups=tuple(names),
            limits=_limits(document.defaults, groups, user),
            gpu=_gpu(document, names, user),
            images_private=_images_private(document.defaults, groups, user),
            shares=tuple((name, share) for name in names if (share := _share(document.groups[name]))),
            user_socket=self.user_socket_template.format(name=actor.name),
            **_allowed(document.defaults, groups, user),
        )

    def _role(self, actor: Actor, groups: Sequence[Entry], user: Entry) -> Role:
        if actor.uid == 0:
            return Role.ADMIN
        if _is_system(actor.uid, self.uid_min) and actor.name not in self.document.system_accounts:
            return Role.NONE
        if user.role is not None:
            return user.role
        stated = [entry.role for entry in groups if entry.role is not None]
        return max(stated, key=ROLE_ORDER.index) if stated else self.document.defaults.role or Role.NONE


def _is_system(uid: int, uid_min: int) -> bool:
    """A service's uid, not a person's: below UID_MIN, nobody, or one of the two that mean "no uid"."""
    return uid < uid_min or uid in {65534, 65535, 4294967294, 4294967295}


def compile_policy(
    document: Document, *, user_socket_template: str = USER_SOCKET, uid_min: int = UID_MIN
) -> Policy:
    """Make a document ready to be asked."""
    canonical = repr(_canonical(asdict(document))).encode()
    return Policy(
        document=document,
        digest=hashlib.sha256(canonical).hexdigest(),
        user_socket_template=user_socket_template,
        uid_min=uid_min,
    )


def _canonical(value: Any) -> Any:
    if isinstance(value, Mapping):
        return sorted((key, _canonical(item)) for key, item in value.items())
    if isinstance(value, tuple | list):
        return [_canonical(item) for item in value]
    return str(value)


def _is_member(actor: Actor, entry: Entry) -> bool:
    return actor.name in entry.members or (bool(entry.unix_group) and entry.unix_group in actor.groups)


def _share(entry: Entry) -> Share | None:
    """What members of a group let each other have; None if that is nothing."""
    share = entry.share.get("containers", Share.NONE)
    return None if share is Share.NONE else share


def _limits(defaults: Entry, groups: Sequence[Entry], user: Entry) -> Limits:
    stated: dict[str, int | Fraction] = {}
    for entry in groups:
        for name, value in entry.limits.items():
            stated[name] = _larger(stated.get(name, value), value)
    merged: dict[str, Any] = {**defaults.limits, **stated, **user.limits}
    return replace(Limits(), **merged)


def _gpu(document: Document, names: Sequence[str], user: Entry) -> GpuTerms:
    """The user's own words, else the groups', else the default: classes of all groups, the larger weight and priority, and `report` over `stop`."""
    groups = [document.groups[name] for name in names]
    found: dict[str, Any] = {}
    for key in ("classes", "weight", "priority", "time_over"):
        for entries in ([user], groups, [document.defaults]):
            stated = [entry.gpu[key] for entry in entries if key in entry.gpu]
            if stated:
                found[key] = _together(key, stated)
                break
    limits = tuple(
        GroupGpus(
            name=name,
            devices=entry.gpu.get("group_gpus"),
            equivalents=entry.gpu.get("group_equivalents"),
        )
        for name, entry in zip(names, groups, strict=True)
    )
    return GpuTerms(groups=limits, **found)


def _together(key: str, stated: Sequence[Any]) -> Any:
    """What several entries of one rank come to: what permits most."""
    match key:
        case "classes":
            return tuple(dict.fromkeys(chain(*stated)))
        case "time_over":
            return min(stated, key=TIME_OVER_ORDER.index)
    return max(stated)


def _larger(one: int | Fraction, other: int | Fraction) -> int | Fraction:
    return -1 if -1 in (one, other) else max(one, other)  # -1 is unlimited


def _images_private(defaults: Entry, groups: Sequence[Entry], user: Entry) -> bool:
    for entries in ([user], groups, [defaults]):
        stated = [entry.images["private"] for entry in entries if "private" in entry.images]
        if stated:
            return any(stated)
    return True


def _allowed(defaults: Entry, groups: Sequence[Entry], user: Entry) -> dict[str, Any]:
    united = [defaults, *groups]
    found: dict[str, Any] = {}
    for name in _LISTS:
        found[name] = frozenset(_union(name, united, user))
    for name in _HANDLING:
        stated = [
            entry.allow[name] for entry in _speaking(name, [defaults], groups, user) if name in entry.allow
        ]
        if stated:
            found[name] = Handling.DROP if Handling.DROP in stated else Handling.DENY
    builds = [
        entry.allow["builds"]
        for entry in _speaking("builds", [defaults], groups, user)
        if "builds" in entry.allow
    ]
    if builds:
        found["builds"] = max(builds, key=BUILDS_ORDER.index)
    defaults_of = [
        entry.allow["default_network"]
        for entry in _speaking("default_network", [defaults], groups, user)
        if "default_network" in entry.allow
    ]
    if defaults_of:
        found["default_network"] = (
            DefaultNetwork.OWN if DefaultNetwork.OWN in defaults_of else DefaultNetwork.SHARED
        )
    for name in ("subnets", "fetch_hosts"):  # where something is stated, nothing else is permitted
        if any(name in entry.allow for entry in (*united, user)):
            found[name] = frozenset(_union(name, united, user))
    found["binds"] = _binds(_union("binds", united, user))
    ports = tuple(
        sorted(set(_union("ports", united, user)), key=lambda one: (one.host_ip, one.first, one.last))
    )
    if ports:
        found["ports"] = ports
    return found


def _speaking(name: str, defaults: Sequence[Entry], groups: Sequence[Entry], user: Entry) -> Sequence[Entry]:
    """The entries that count for one word: the user's, else the groups', else the default."""
    if name in user.allow:
        return [user]
    stating = [entry for entry in groups if name in entry.allow]
    return stating or defaults


def _union(name: str, entries: Sequence[Entry], user: Entry) -> list[Any]:
    counted: Iterable[Entry] = [user] if name in user.allow else entries
    return [item for entry in counted for item in _items(entry.allow.get(name, ()))]


def _items(value: Any) -> tuple[str, ...] | tuple[BindPath, ...] | tuple[Ports, ...]:
    return value if isinstance(value, tuple) else ()


def _binds(paths: Sequence[BindPath]) -> tuple[BindPath, ...]:
    """One entry for each path; where several entries name it, the wider one counts."""
    merged: dict[str, BindPath] = {}
    for one in paths:
        other = merged.get(one.path, one)
        merged[one.path] = BindPath(
            path=one.path,
            read_only=one.read_only and other.read_only,
            setuid_ok=one.setuid_ok or other.setuid_ok,
        )
    return tuple(merged[path] for path in sorted(merged))
