"""The values every room speaks: actors, references, facts, decisions, obligations.

Owns the vocabulary of asking and answering; leaves the meaning of Docker's requests to
`policy.dockerapi` and the rules themselves to `policy.rules`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import NewType

Uid = NewType("Uid", int)
Gid = NewType("Gid", int)
ContainerId = NewType("ContainerId", str)  # 64 lower-case hex digits
LeaseId = NewType("LeaseId", str)
DeviceUuid = NewType("DeviceUuid", str)  # GPU-... or MIG-...
RequestId = NewType("RequestId", str)  # 12 lower-case hex digits, one for each decided request

PLAIN_RUNTIME = "runc"
GUARDED_RUNTIME = "ds01"  # the name of ds01-runtime in daemon.json

JsonScalar = bool | int | float | str | None
Json = JsonScalar | list["Json"] | dict[str, "Json"]


class Door(StrEnum):
    """The socket a request came in by."""

    USER = "user"  # run/users/<name>/docker.sock
    FRONT = "front"  # run/docker.sock
    ADMIN = "admin"  # run/admin.sock


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who asks. Built by `socket_proxy.identity` from the socket and the peer, never from request bytes."""

    uid: Uid
    gid: Gid
    name: str
    groups: frozenset[str] = frozenset()  # Unix group names, the primary one included
    gids: frozenset[int] = frozenset()  # the same groups by number
    home: str = "/nonexistent"
    door: Door = Door.USER
    peer_pid: int | None = None
    peer_container: ContainerId | None = None  # set when the peer runs inside one of the actor's containers
    login_uid: Uid | None = None  # /proc/<pid>/loginuid, so that sudo has a name in the audit


class Kind(StrEnum):
    """The kinds of Engine object that have an owner."""

    CONTAINER = "container"
    EXEC = "exec"
    IMAGE = "image"
    NETWORK = "network"
    VOLUME = "volume"


class Share(StrEnum):
    """How much of a container its owner's group, or its owner, lets others have; each holds the ones before it."""

    NONE = "none"
    VIEW = "view"  # see that it is there and how it does
    USE = "use"  # run programs in it, read its logs, stop it


SHARE_ORDER: tuple[Share, ...] = (Share.NONE, Share.VIEW, Share.USE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A name, id or id prefix in a request that stands for an object.

    `new`: a name that the call gives. Its fact is what has it already: for a container, network or volume the actor's own
    object that has the very name, ids and other users do not count.
    `literal`: an image as dockerd knows it by this name, whatever local name of the actor's own is spelled so: what is pulled.
    """

    kind: Kind
    text: str  # as the client wrote it
    new: bool = False
    literal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """What is known of a container that ds01 did not make and an admin gave to its owner (ADR 0023).

    closed: why its owner runs no programs in it, in words; empty: they may.
    """

    closed: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectFact:
    """What is known of one existing object the actor may at least see."""

    kind: Kind
    id: str  # full immutable id: 64 hex (container, network, exec), sha256:... (image), real name (volume)
    owner: Uid | None  # None: unmanaged, or shared by everybody (predefined networks, pulled images)
    shared: bool = False  # readable by every user
    name: str = ""  # the name inside dockerd
    lease: LeaseId | None = None
    private_ipc: bool = True
    container: ContainerId | None = None  # for an exec, its container
    check_intervals_ns: tuple[int, int] = (0, 0)  # of an image's health check: Interval, StartInterval
    share: Share = Share.NONE  # of another's container, or of an own exec in it: what the actor may do there
    adopted: Adopted | None = None  # of a container that ds01 did not make, or of an exec in it


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineFacts:
    """What the engine said of itself in /version and /info."""

    engine_id: str
    version: str  # "20.10.24"
    api_version: tuple[int, int]  # the highest it serves
    min_api_version: tuple[int, int]
    cgroup_driver: str  # "cgroupfs" or "systemd"
    cgroup_version: int  # 1 or 2
    gpu_path: str  # "hook" or "cdi": how a grant is written
    runtime: str = PLAIN_RUNTIME  # what every create names: the guarded one wherever the engine has it
    data_root: str = "/var/lib/docker"  # dockerd's, without symbolic links


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What the actor holds now. None means unknown, and unknown is never zero."""

    containers: int | None = None
    networks: int | None = None  # the default one not among them
    gpus: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything outside the request that a decision may rest on.

    `objects` has a key for every Reference asked for; None = absent *or another user's*: rules cannot
    tell the two apart, so no message can (I4).
    """

    engine: EngineFacts
    objects: Mapping[Reference, ObjectFact | None] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)


class Effect(StrEnum):
    """How a decision ends."""

    ALLOW = "allow"
    DENY = "deny"  # 403: the user may know, and change the request
    NOT_VISIBLE = "not_visible"  # 404 in dockerd's own words


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a request was refused, or what was changed. Everything a user needs to act (I11)."""

    rule: str  # rule id = module name under policy/rules and page under docs/rules
    field: str  # spelled as in the Engine API: HostConfig.Privileged
    asked: str  # what the request holds, shortened
    limit: str  # what policy permits
    next_step: str  # an imperative sentence without full stop

    def text(self) -> str:
        """One line: what was refused, the limit, the rule, the next step."""
        return f"{self.field}={self.asked} is not permitted, limit is {self.limit} (rule {self.rule}); {self.next_step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetField:
    """Obligation: put `value` at `path` of the JSON body. An empty `note` means the user need not be told."""

    path: tuple[str, ...]  # ("HostConfig", "Memory")
    value: Json
    note: str = ""  # goes into Warnings of the answer to a create or update


@dataclass(frozen=True, slots=True, kw_only=True)
class SetQuery:
    """Obligation: give the query key exactly these values; an empty tuple removes it."""

    key: str
    values: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetHeader:
    """Obligation: give a forwarded header this value; an empty one removes it."""

    name: str  # lower-case
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupGpus:
    """A policy group, and what all its members together may hold: devices, and whole GPUs; None: no such limit."""

    name: str
    devices: int | None = None
    equivalents: Fraction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGpus:
    """Obligation: the create holds only with a lease.

    Exactly one of `count` and `device_ids` is set. `limit` is the most devices the owner may hold at once, `equivalents`
    the most whole GPUs. `profile`: a MIG profile, "full" or "any". `seconds` and `hold_seconds`: how long the lease lasts,
    and how long a stopped container keeps it; None: until the container is removed. `wait_most_seconds`: how long it may wait
    if it says so.
    """

    count: int | None = None
    device_ids: tuple[str, ...] = ()  # as asked: UUIDs, indices, "0:1"
    profile: str | None = None
    memory_mib: int | None = None  # at least, on each device
    classes: tuple[str, ...] = ("gpu", "mig")  # best first
    limit: int
    equivalents: Fraction | None = None
    groups: tuple[GroupGpus, ...] = ()
    seconds: int | None = None
    hold_seconds: int | None = None
    wait_seconds: int = 0
    wait_most_seconds: int = 0
    weight: int = 1
    priority: int = 0
    capabilities: tuple[str, ...] = ("compute", "utility")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckBind:
    """Obligation: a host path is looked at, as its owner, before the request may go on."""

    source: str
    target: str
    read_only: bool
    create: bool  # a missing directory is made, as the user (HostConfig.Binds and -v do that)
    setuid_ok: bool  # policy accepts a host mount without nosuid,nodev
    field: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsureVolume:
    """Obligation: the named volume exists and is the actor's, created with labels if it was missing."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOwnNetwork:
    """Obligation: where the request means the default network, it gets its user's own, made if it was missing."""

    name: str  # inside dockerd
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealLabels:
    """Obligation: drop every `ds01.*` label and set the owner's sealed ones at `path`."""

    path: tuple[str, ...]  # ("Labels",); () = the `labels` query of a build


Obligation = (
    SetField | SetQuery | SetHeader | LeaseGpus | CheckBind | EnsureVolume | JoinOwnNetwork | SealLabels
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome. Obligations are what must happen for an allow to hold; a denial has none."""

    effect: Effect
    reasons: tuple[Reason, ...] = ()
    obligations: tuple[Obligation, ...] = ()
    missing: Reference | None = None  # for NOT_VISIBLE: the reference to name in dockerd's words
