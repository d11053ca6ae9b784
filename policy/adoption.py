"""Whether the owner of a container that ds01 did not make could have had it made so: its inspect, read as a create. Pure.

What gives no power over the host and no look at others' things is left out: limits, ports, restart policies, GPUs, which are
another's by nobody's leave. The rest goes to the same rules as every create (ADR 0023).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from policy.compile import Policy
from policy.dockerapi.bodies import CONTAINER_CREATE
from policy.dockerapi.model import MalformedRequest, Operation, Request, UnknownField
from policy.dockerapi.routes import VERSION_MAX
from policy.evaluate import evaluate
from policy.fields import as_list, as_object, as_strings, as_text, shown
from policy.gpus import is_gpu_node
from policy.model import (
    GUARDED_RUNTIME,
    PLAIN_RUNTIME,
    Actor,
    CheckBind,
    Decision,
    EngineFacts,
    EnsureVolume,
    Facts,
    Json,
    SetField,
    Usage,
)

_POWERLESS = frozenset(
    {"AutoRemove", "BlkioWeight", "CapDrop", "CgroupParent", "CgroupnsMode", "ConsoleSize", "ContainerIDFile"}
    | {
        "CpuPeriod",
        "CpuQuota",
        "CpuRealtimePeriod",
        "CpuRealtimeRuntime",
        "CpuShares",
        "CpusetCpus",
        "CpusetMems",
    }
    | {"DeviceRequests", "Dns", "DnsOptions", "DnsSearch", "ExtraHosts", "Init", "Isolation", "KernelMemory"}
    | {
        "KernelMemoryTCP",
        "Links",
        "LogConfig",
        "Memory",
        "MemoryReservation",
        "MemorySwap",
        "MemorySwappiness",
    }
    | {"NanoCpus", "OomKillDisable", "OomScoreAdj", "PidsLimit", "PortBindings", "PublishAllPorts"}
    | {"ReadonlyRootfs", "RestartPolicy", "ShmSize", "StorageOpt", "Tmpfs", "Ulimits"}
    | {"Binds", "Mounts", "VolumeDriver"}  # what came of them stands in the inspect's own Mounts
)
_RUNTIMES = frozenset({"", PLAIN_RUNTIME, GUARDED_RUNTIME, "nvidia"})
# SOURCE: moby oci/defaults.go; what every engine from 20.10 on hides at least, and what it lets nobody write.
_HIDDEN = {
    "MaskedPaths": frozenset({"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/scsi", "/sys/firmware"}),
    "ReadonlyPaths": frozenset({"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}),
}
_ANONYMOUS = re.compile("[0-9a-f]{64}", re.ASCII)  # a volume that dockerd named for this container


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """closed: each thing that the rules do not let the owner have, in words. binds: host paths that are still to be looked at."""

    closed: tuple[str, ...]
    binds: tuple[CheckBind, ...] = ()


def judge(policy: Policy, owner: Actor, inspect: Mapping[str, Json], engine: EngineFacts) -> Judged:
    """Ask the rules; never raises.

    SOURCE of `inspect`: Engine API 1.24 to 1.51, ContainerInspect.
    """
    try:
        body = _as_create(inspect)
    except (TypeError, MalformedRequest, UnknownField) as error:
        return Judged(closed=(f"it has what ds01 cannot read: {error}",))
    request = Request(operation=Operation.CONTAINER_CREATE, version=VERSION_MAX, body=body)
    # No container is made here, so how many there are has no bearing; and whatever it joins is absent.
    facts = Facts(engine=engine, usage=Usage(containers=0, networks=0, gpus=0))
    decision = evaluate(policy, owner, request, facts)
    binds = tuple(item for item in decision.obligations if isinstance(item, CheckBind))
    closed = [*_refused(body, decision)]
    if binds and restarts(inspect):
        # SECURITY: programs of its owner in it would be started again with the mounts of that moment.
        closed.append(
            "a restart policy starts it again past ds01, with whatever is then at the paths that it mounts"
        )
    return Judged(closed=tuple(closed), binds=binds)


def restarts(inspect: Mapping[str, Json]) -> bool:
    """Whether the engine may start it again by itself. Raises: TypeError: an answer of another shape."""
    policy = as_object(as_object(inspect.get("HostConfig")).get("RestartPolicy"))
    return as_text(policy.get("Name")) not in {"", "no"}


def _as_create(inspect: Mapping[str, Json]) -> Mapping[str, Json]:
    """The body of a create that asks for the same powers. Raises: TypeError, MalformedRequest, UnknownField."""
    host = as_object(inspect.get("HostConfig"))
    asked = {name: value for name, value in host.items() if name not in _POWERLESS and name not in _HIDDEN}
    for name, least in _HIDDEN.items():
        paths = as_strings(host.get(name))
        if not least <= {*paths}:
            asked[name] = [*paths]
    if as_text(asked.get("Runtime")) in _RUNTIMES:
        asked.pop("Runtime", None)
    if (mode := as_text(asked.get("NetworkMode"))) != "host" and not mode.startswith("container:"):
        asked.pop("NetworkMode", None)
    nodes = as_list(host.get("Devices"))
    asked["Devices"] = [node for node in nodes if not is_gpu_node(as_text(as_object(node).get("PathOnHost")))]
    mounts = map(as_object, as_list(inspect.get("Mounts")))
    asked["Mounts"] = [dict(asking) for mount in mounts if (asking := _asked(mount)) is not None]
    return as_object(CONTAINER_CREATE.read({"HostConfig": asked}, ""))


def _asked(mount: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """A mount of an inspect as a create would ask for it; None for what is the container's own."""
    kind, name = as_text(mount.get("Type")), as_text(mount.get("Name"))
    if kind == "tmpfs" or (
        kind == "volume" and _ANONYMOUS.fullmatch(name) and as_text(mount.get("Driver")) in {"", "local"}
    ):
        return None
    asked: dict[str, Json] = {
        "Type": kind,
        "Source": name if kind == "volume" else mount.get("Source"),
        "Target": mount.get("Destination"),
        "ReadOnly": mount.get("RW") is False,
    }
    propagation = as_text(mount.get("Propagation"))
    return asked | ({"BindOptions": {"Propagation": propagation}} if kind == "bind" and propagation else {})


def _refused(create: Mapping[str, Json], decision: Decision) -> Iterator[str]:
    """What a rule would have changed counts: the container has it unchanged. So does a named volume, which may hold anybody's."""
    host = as_object(create.get("HostConfig"))
    for reason in decision.reasons:
        yield f"{reason.field}={reason.asked} (rule {reason.rule})"
    if decision.missing is not None:
        yield f"it joins the {decision.missing.kind} {shown(decision.missing.text)}"
    for item in decision.obligations:
        match item:
            case SetField(path=("HostConfig", name), value=value) if name in host and value != host[name]:
                yield f"HostConfig.{name}={shown(host[name])}"
            case EnsureVolume(name=name):
                yield f"the volume {shown(name)} may hold what is others'"
