"""Whose a process is: evidence about it in, an attribution out. Pure.

INVARIANT: a container is told by where the engine's own process of it is, never by a name in a path. What
contradicts itself or could not be read is UNKNOWN, never nobody's and never somebody's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from allocator import cgroup_paths
from allocator.cgroup_paths import Engine, Named
from policy.model import ContainerId, DeviceUuid, Uid

NOBODY = Uid(4294967295)  # the kernel's word for no uid; None in a record means that it could not be read
_NOT_PEOPLE = frozenset({65534, 65535, 4294967294, 4294967295})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One process on one device, as NVML listed it. pid: in this pid namespace; 0 when NVML could not say."""

    pid: int
    device: DeviceUuid
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    memory_mib: int | None = None  # None: not supported


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Which process: a pid alone is used again."""

    boot_id: str
    pid: int
    start_ticks: int  # field 22 of /proc/<pid>/stat, clock ticks after boot


@dataclass(frozen=True, slots=True, kw_only=True)
class UidRange:
    """`count` uids from `outside` on, as the host numbers them; `inside` is the first one in the namespace."""

    inside: int
    outside: int
    count: int

    def holds(self, uid: int) -> bool:
        return self.outside <= uid < self.outside + self.count


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFacts:
    """What `/proc` said of one process, all at a time at which it was alive. None: it could not be read."""

    identity: Identity
    cgroup: str | None  # the text of /proc/<pid>/cgroup
    login_uid: Uid | None  # NOBODY: nobody logged in to start it
    real_uid: Uid | None  # as the host numbers it
    uid_map: tuple[UidRange, ...] | None  # of its user namespace
    own_pid_namespace: bool | None  # False: it runs in another pid namespace than this daemon
    executable: str | None = None  # its path, only if the host's file of that path is the one that runs
    name: str = ""  # what it calls itself: for people, never for a decision


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownContainer:
    """A running container as its engine reports it, and where the kernel says that its first process is."""

    id: ContainerId
    paths: frozenset[str]  # cgroup paths of State.Pid; see `own_paths`
    owner: Uid | None  # None: unknown


@dataclass(frozen=True, slots=True, kw_only=True)
class SubuidRange:
    """One line of /etc/subuid with its name looked up."""

    owner: Uid
    first: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What is known beside the process. containers: `by_path`; first_uid: UID_MIN, the first uid of people."""

    containers: Mapping[str, KnownContainer] = field(default_factory=dict)
    subuids: Sequence[SubuidRange] = ()
    first_uid: int = 1000


class Kind(StrEnum):
    """What a process turned out to be."""

    CONTAINER = "container"  # in a container of the engine; `owner` None: one that nobody can be shown to own
    OTHER_CONTAINER = "other_container"  # in a container that the engine does not know
    BUILD_STEP = "build_step"
    USER = "user"  # a person's, on the host
    SERVICE = "service"  # of the system: nobody's
    UNKNOWN = "unknown"  # unattributed: `why` says what is missing


class Proof(StrEnum):
    """What an owner rests on."""

    CONTAINER = "container"  # the owner of the container it is in
    OWN_PARENT = "own_parent"  # in a cgroup that ds01 made for that user
    SLICE = "slice"
    LOGIN = "login"
    REAL_UID = "uid"
    SUBUID = "subuid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Whose a process is, with all three host uids kept whichever of them decided.

    owner: None with SERVICE: nobody's; with any other kind: unknown.
    container: with CONTAINER proven; with OTHER_CONTAINER, and for rootless podman with USER, as the path says.
    slice_uid, login_uid, real_uid: NOBODY where there is none, None where it could not be read.
    """

    kind: Kind
    owner: Uid | None = None
    proof: Proof | None = None
    container: ContainerId | None = None
    engine: Engine | None = None
    step: str = ""  # of a build
    unit: str = ""  # the systemd unit it is in
    slice_uid: Uid | None = None
    login_uid: Uid | None = None
    real_uid: Uid | None = None
    why: str = ""


def unseen(why: str) -> Attribution:
    """For what NVML counts and `/proc` does not show."""
    return Attribution(kind=Kind.UNKNOWN, why=why)


def own_paths(cgroup: str, container: ContainerId) -> frozenset[str]:
    """The cgroups of a container, from the `/proc/<pid>/cgroup` of its State.Pid.

    SECURITY: only paths that name the container itself, and down to that name: a first process that has just ended reads
    "/" on cgroup v1, and everything on the host is below that; one that has moved deeper (DinD, systemd) still stands
    for all of the container.
    """
    own = (cgroup_paths.cgroup_of(path, container) for path in cgroup_paths.paths(cgroup))
    return frozenset(path for path in own if path is not None)


def by_path(containers: Iterable[KnownContainer]) -> Mapping[str, KnownContainer]:
    """Containers by each of their cgroup paths, so that a thousand of them cost a process no more than one."""
    return {path: one for one in containers for path in one.paths}


def attribute(process: ProcessFacts, around: Surroundings) -> Attribution:
    """Say whose a process is. SOURCE: the order is that of docs/operating.md, "Whose is a GPU process?"."""
    if process.cgroup is None:
        return _record(process, (), Attribution(kind=Kind.UNKNOWN, why="its cgroup cannot be read"))
    found = cgroup_paths.paths(process.cgroup)
    return _record(process, found, _decide(process, found, around))


def _record(process: ProcessFacts, paths: Sequence[str], decided: Attribution) -> Attribution:
    slices = _slices(paths)
    units = (unit for path in paths if (unit := cgroup_paths.unit_in(path)))
    return replace(
        decided,
        unit=next(units, ""),
        slice_uid=None if process.cgroup is None or len(slices) > 1 else next(iter(slices), NOBODY),
        login_uid=process.login_uid,
        real_uid=process.real_uid,
    )


def _slices(paths: Iterable[str]) -> frozenset[Uid]:
    return frozenset(uid for path in paths if (uid := cgroup_paths.user_slice(path)) is not None)


def _decide(process: ProcessFacts, paths: Sequence[str], around: Surroundings) -> Attribution:
    if not paths:
        return unseen("its cgroup is empty")
    if any(map(cgroup_paths.is_foreign_view, paths)):
        return unseen(
            "its cgroup lies outside this daemon's; run the allocator in the host's cgroup namespace"
        )
    return (
        _known_container(paths, around.containers)
        or _build_step(paths)
        or _named_container(process, paths)
        or _person(process, paths, around)
        or _leftover(process)
    )


def _known_container(paths: Sequence[str], known: Mapping[str, KnownContainer]) -> Attribution | None:
    """By equality with the path of the container's own first process, or below it; the innermost known one."""
    found = (_innermost(path, known) for path in paths)
    inside = {one.id: one for one in found if one is not None}
    if len(inside) > 1:
        return unseen("its cgroups are of two containers")
    for one in inside.values():
        proof = None if one.owner is None else Proof.CONTAINER
        return Attribution(
            kind=Kind.CONTAINER, owner=one.owner, proof=proof, container=one.id, engine=Engine.DOCKER
        )
    return None


def _innermost(path: str, known: Mapping[str, KnownContainer]) -> KnownContainer | None:
    while path and path not in known:
        path = path.rpartition("/")[0]
    return known.get(path)


def _build_step(paths: Sequence[str]) -> Attribution | None:
    for path in paths:
        step = cgroup_paths.build_step_in(path)
        if step:
            owner = cgroup_paths.own_parent(path)
            proof = None if owner is None else Proof.OWN_PARENT
            return Attribution(kind=Kind.BUILD_STEP, owner=owner, proof=proof, step=step)
    return None


def _names(paths: Iterable[str]) -> list[Named]:
    return [named for path in paths if (named := cgroup_paths.container_in(path)) is not None]


def _named_container(process: ProcessFacts, paths: Sequence[str]) -> Attribution | None:
    """In a cgroup that is named like a container's, but of none that the engine knows: nobody's by name alone."""
    names = [named for named in _names(paths) if not named.by_user]
    if len({named.id for named in names}) > 1:
        return unseen("its cgroups name two containers")
    for named in names:
        # Podman has no daemon: whoever ran it is who logged in. A daemon's children have the daemon's login.
        login = process.login_uid if named.engine is Engine.PODMAN else None
        person = None if login in (None, NOBODY) else login
        return Attribution(
            kind=Kind.OTHER_CONTAINER,
            owner=person,
            proof=None if person is None else Proof.LOGIN,
            container=named.id,
            engine=named.engine,
            why="the engine does not know this container",
        )
    return None


def _person(process: ProcessFacts, paths: Sequence[str], around: Surroundings) -> Attribution | None:
    """Somebody's process on the host; the first hit counts. Sudo and su keep slice and login."""
    slices = _slices(paths)
    if len(slices) > 1:
        return unseen("it is in the slices of two users")
    for uid in slices:
        podman = _rootless(paths)
        return Attribution(
            kind=Kind.USER,
            owner=uid,
            proof=Proof.SLICE,
            container=podman.id if podman else None,
            engine=podman.engine if podman else None,
        )
    if process.login_uid not in (None, NOBODY):
        return Attribution(kind=Kind.USER, owner=process.login_uid, proof=Proof.LOGIN)
    return _by_uid(process, around)


def _rootless(paths: Sequence[str]) -> Named | None:
    """A rootless podman container; whatever its name says, it is its slice's owner's."""
    return next((one for one in _names(paths) if one.engine is Engine.PODMAN), None)


def _by_uid(process: ProcessFacts, around: Surroundings) -> Attribution | None:
    if process.real_uid is None:
        return None
    lent = {
        one.owner for one in around.subuids if one.first <= process.real_uid < one.first + one.count
    } | _mapped_people(process, around)
    if len(lent) == 1:
        return Attribution(kind=Kind.USER, owner=next(iter(lent)), proof=Proof.SUBUID)
    if lent:
        return unseen(f"uid {process.real_uid} is in the ranges of several users (/etc/subuid)")
    # In another pid namespace a uid is whatever that container says; only a user namespace maps it to a person.
    if process.own_pid_namespace and _is_person(process.real_uid, around):
        return Attribution(kind=Kind.USER, owner=process.real_uid, proof=Proof.REAL_UID)
    return None


def _mapped_people(process: ProcessFacts, around: Surroundings) -> frozenset[Uid]:
    """Whose single uid a user namespace maps: a rootless one holds its owner's beside the lent ranges."""
    return frozenset(
        Uid(one.outside)
        for one in process.uid_map or ()
        if one.count == 1 and _is_person(one.outside, around)
    )


def _is_person(uid: int, around: Surroundings) -> bool:
    lent = any(one.first <= uid < one.first + one.count for one in around.subuids)
    return uid >= around.first_uid and uid not in _NOT_PEOPLE and not lent


def _leftover(process: ProcessFacts) -> Attribution:
    """Nobody's, if everything that could have named somebody was read."""
    if process.real_uid is None or process.login_uid is None:
        return unseen("its login or its uid cannot be read")
    if process.own_pid_namespace is None:
        return unseen("its namespaces cannot be read")
    if not process.own_pid_namespace:
        return Attribution(
            kind=Kind.OTHER_CONTAINER, engine=Engine.UNKNOWN, why="it runs in a pid namespace of its own"
        )
    return Attribution(kind=Kind.SERVICE)
