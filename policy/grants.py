"""What one actor may do, as numbers and lists: the result of merging the policy file for them.

Owns the shape and the built-in values (used where the file is silent); `policy.compile` fills it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from policy.model import GroupGpus, Share

SUBNETS = frozenset({"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"})
UNLIMITED = Fraction(-1)
MIB = 1024**2
GIB = 1024**3


class Role(StrEnum):
    """Ordered from less to more; `none` may not even ping."""

    NONE = "none"
    USER = "user"
    ADMIN = "admin"


ROLE_ORDER: tuple[Role, ...] = (Role.NONE, Role.USER, Role.ADMIN)


class Handling(StrEnum):
    """What to do with a wish that is refused but often written without need."""

    DROP = "drop"  # leave it out and say so in the Warnings of the answer
    DENY = "deny"


class Builds(StrEnum):
    """Which builders may be used, ordered from less to more."""

    CLASSIC = "classic"  # BuildKit is refused, with the advice to use the classic builder
    MEDIATED = "mediated"  # BuildKit, each of its calls decided and rewritten
    OPAQUE = "opaque"  # BuildKit as it comes: nothing is looked at, so it is for whom one trusts with the builder of all


BUILDS_ORDER: tuple[Builds, ...] = (Builds.CLASSIC, Builds.MEDIATED, Builds.OPAQUE)


class TimeOver(StrEnum):
    """What becomes of a container that still runs when the time of its lease is over, ordered from less to more."""

    REPORT = "report"  # it is shown as overdue and logged, and goes on
    STOP = "stop"  # after warnings it is stopped, and kept


TIME_OVER_ORDER: tuple[TimeOver, ...] = (TimeOver.REPORT, TimeOver.STOP)


class DefaultNetwork(StrEnum):
    """Where a container is that names no network."""

    OWN = "own"  # a bridge of its user's own, made when it is first needed
    SHARED = "shared"  # the engine's bridge, the same for all users


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers per container, except `gpus`, `gpu_equivalents`, `containers`, `networks`, `connections` and `uploads`, which count per user."""

    memory_bytes: int = 4 * GIB
    cpu_millis: int = 2000  # thousandths of a CPU
    pids: int = 1024
    shm_bytes: int = 1 * GIB
    nofile: int = 65536
    gpus: int = 0  # devices held at once
    gpus_default: int = 1  # what `--gpus all` means
    gpu_equivalents: Fraction = UNLIMITED  # of whole GPUs, by compute slices, held at once
    gpus_per_container: int = -1  # -1: as many as `gpus`
    gpu_seconds: int = -1  # how long a lease lasts; -1: until its container is removed
    gpu_hold_seconds: int = -1  # how long its container may not run; -1: until it is removed
    containers: int = 20
    networks: int = 20  # besides the user's default one
    connections: int = 64
    uploads_bytes: int = 32 * GIB  # image tars and build contexts on their way, all together
    wait_seconds: int = 0  # how long a create waits for a GPU if it does not say
    wait_most_seconds: int = 3600  # how long it may wait if it does
    log_bytes: int = 100 * MIB  # all log files of one container together
    restarts: int = 10  # most retries of a restart policy
    memlock_bytes: int = -1  # -1: unlimited, which NCCL wants; locked memory still counts in the cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class BindPath:
    """A host directory that may be bind mounted, with all below it."""

    path: str  # absolute and clean, or "~" for the actor's home
    read_only: bool = False
    setuid_ok: bool = False  # accept a host mount that is not nosuid,nodev


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Where containers may be published on the host."""

    host_ip: str = (
        "127.0.0.1"  # put where the request names none; the only other address permitted is loopback
    )
    first: int = 1024
    last: int = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTerms:
    """Which devices somebody may have, and how far ahead in the queue.

    classes: best first: "gpu", "mig", or a MIG profile.
    groups: every policy group of the actor, with what all its members together may hold.
    """

    classes: tuple[str, ...] = ("gpu", "mig")
    weight: int = 1
    priority: int = 0
    time_over: TimeOver = TimeOver.STOP
    groups: tuple[GroupGpus, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """GPUs that policy keeps at set times, for a policy group or, if that is empty, for a user."""

    group: str = ""
    user: str = ""
    gpus: int = 1
    profile: str = "full"
    when: str = ""  # as `policy.when` reads it
    lead_seconds: int = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Everything the rules ask about one actor."""

    role: Role = Role.NONE
    groups: tuple[str, ...] = ()  # policy groups, sorted
    limits: Limits = Limits()
    gpu: GpuTerms = GpuTerms()
    capabilities: frozenset[str] = frozenset()  # without CAP_, upper case
    devices: frozenset[str] = frozenset()
    sysctls: frozenset[str] = frozenset()
    networks: frozenset[str] = (
        frozenset()
    )  # beyond the own ones: "host", and names of root's that are for all
    subnets: frozenset[str] = SUBNETS  # where a network's addresses may be chosen
    default_network: DefaultNetwork = DefaultNetwork.OWN
    host_network: Handling = Handling.DENY
    registries: frozenset[str] = frozenset()  # host names; "*" = any
    fetch_hosts: frozenset[str] = frozenset({"*"})  # where ADD may fetch from; "*" = any but private ones
    binds: tuple[BindPath, ...] = ()  # sorted by path; the home is always there
    ports: tuple[Ports, ...] = (Ports(),)
    security_opt: Handling = Handling.DROP
    ipc_host: Handling = Handling.DROP
    builds: Builds = Builds.MEDIATED
    images_private: bool = True  # what the actor builds, commits, loads or imports is nobody else's to read
    shares: tuple[
        tuple[str, Share], ...
    ] = ()  # policy groups whose members have each other's containers, sorted
    user_socket: str = ""  # the actor's own ds01 socket, mounted where a container asks for Docker's

    @property
    def admin(self) -> bool:
        return self.role is Role.ADMIN

    @property
    def label(self) -> str:
        """How messages name the origin of a limit."""
        return f"group {', '.join(self.groups)}" if self.groups else "your account"
