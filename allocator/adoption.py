"""Whose a container is that ds01 did not create: an inspect and what the host knows in, an owner and the evidence out. Pure.

Only ds01's seal is proof. All else is evidence, weighed strongest first: whoever starts a container past ds01 can
give it any label, name and mount. It decides who is shown a container and asked about it, never who may use it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from policy import ownership
from policy.fields import as_list, as_object, as_text
from policy.foreign import LEGACY_LABELS, PROJECT_LABELS
from policy.model import ContainerId, Json, Uid
from policy.paths import is_under

# SOURCE: AIME mlc 1 and 2, as in policy.foreign.
_LEGACY_NAME = re.compile(r".+\._\.([0-9]{1,10})", re.ASCII)


class Evidence(StrEnum):
    """What an owner rests on, strongest first."""

    SEAL = "seal"
    LEGACY_LABEL = "legacy_label"
    NAME = "name"
    HOME_MOUNT = "home_mount"
    PROJECT_PATH = "project_path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An account of a person."""

    uid: Uid
    name: str
    home: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What counts of an inspect. binds: host paths that are bind mounted, as the engine has them."""

    id: ContainerId
    name: str
    labels: Mapping[str, str]
    binds: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the host says of what `Inspected` names: `path_owners` has each path of `paths_to_ask` that there is."""

    people: Collection[Person] = ()
    path_owners: Mapping[str, Uid] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """Whose it is; owner and evidence are None together: unknown, and `why` says what was found."""

    owner: Uid | None
    evidence: Evidence | None
    why: str


def read_inspect(inspect: Mapping[str, Json]) -> Inspected:
    """SOURCE: Engine API 1.24 to 1.51, ContainerInspect. Raises: TypeError: an answer of another shape."""
    labels = as_object(as_object(inspect.get("Config")).get("Labels"))
    mounts = [as_object(item) for item in as_list(inspect.get("Mounts"))]
    return Inspected(
        id=ContainerId(as_text(inspect.get("Id"))),
        name=as_text(inspect.get("Name")).removeprefix("/"),
        labels={key: as_text(value) for key, value in labels.items()},
        binds=tuple(as_text(one.get("Source")) for one in mounts if as_text(one.get("Type")) == "bind"),
    )


def paths_to_ask(container: Inspected) -> tuple[str, ...]:
    """The host paths whose owner is wanted, as lstat(2) gives it; what is not there is left out of the answer."""
    return tuple(dict.fromkeys((*container.binds, *_projects(container))))


def logins_to_ask(container: Inspected) -> tuple[str, ...]:
    """The login names that are wanted, if there are such accounts."""
    found = (container.labels.get(key, "") for key in LEGACY_LABELS)
    return tuple(dict.fromkeys(filter(None, found)))


def uids_to_ask(container: Inspected) -> tuple[Uid, ...]:
    """The uids that are wanted, beside those of the owners of paths."""
    found = _LEGACY_NAME.fullmatch(container.name)
    return (Uid(int(found[1])),) if found else ()


def whose(container: Inspected, facts: HostFacts, *, sealed: Uid | None) -> Ownership:
    """Weigh the evidence.

    Args: sealed: whom the seal proves to own it; None without a seal, and with one that does not verify.
    """
    if sealed is not None:
        return Ownership(owner=sealed, evidence=Evidence.SEAL, why="ds01's seal")
    for evidence, found in _weighed(container, facts):
        if len({person.uid for person, _ in found}) > 1:
            said = ", ".join(sorted({person.name for person, _ in found}))
            return Ownership(owner=None, evidence=None, why=f"{evidence.value}: of several users: {said}")
        for person, why in found:
            return Ownership(owner=person.uid, evidence=evidence, why=why)
    return Ownership(owner=None, evidence=None, why="no label, name, mount or project tells")


_Found = Sequence[tuple[Person, str]]


def _weighed(container: Inspected, facts: HostFacts) -> Sequence[tuple[Evidence, _Found]]:
    return (
        (Evidence.LEGACY_LABEL, _by_label(container, facts)),
        (Evidence.NAME, _by_name(container, facts)),
        (Evidence.HOME_MOUNT, _by_home(container, facts)),
        (Evidence.PROJECT_PATH, _by_project(container, facts)),
    )


def _by_label(container: Inspected, facts: HostFacts) -> _Found:
    # SECURITY: labels beside a seal that does not verify come from an image or a commit; they say nothing.
    broken = ownership.SEAL in container.labels
    labels = [key for key in LEGACY_LABELS if not (broken and ownership.is_reserved_label(key))]
    return [
        (person, f"label {key}={person.name}")
        for key in labels
        for person in facts.people
        if container.labels.get(key) == person.name
    ]


def _by_name(container: Inspected, facts: HostFacts) -> _Found:
    uids = uids_to_ask(container)
    return [(person, f"name {container.name}") for person in facts.people if person.uid in uids]


def _by_home(container: Inspected, facts: HostFacts) -> _Found:
    """A mount of a person's own home, or of what is that person's in it: the engine mounts anybody's for anybody."""
    return [
        (person, f"mount of {source}")
        for source in container.binds
        for person in facts.people
        if person.home.count("/") > 1
        if is_under(source, person.home) and facts.path_owners.get(source) == person.uid
    ]


def _by_project(container: Inspected, facts: HostFacts) -> _Found:
    return [
        (person, f"project in {path}")
        for path in _projects(container)
        for person in facts.people
        if facts.path_owners.get(path) == person.uid
    ]


def _projects(container: Inspected) -> tuple[str, ...]:
    paths = (container.labels.get(key, "") for key in PROJECT_LABELS)
    return tuple(path for path in paths if path.startswith("/"))
