"""Memory, CPU, processes and the OOM killer, at create and at update: at most what policy gives."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.cpus import LEAST_QUOTA_US, PERIOD_US, as_nano
from policy.dockerapi.model import Operation
from policy.fields import as_bool, as_int, as_list, as_object, as_text, shown, size_text
from policy.model import Json, Reason, SetField

RULE_ID = "resources"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE, Operation.CONTAINER_UPDATE})
NEEDS_FACTS = False

DENIED = ("CpuRealtimePeriod", "CpuRealtimeRuntime")
DROPPED = ("KernelMemory", "KernelMemoryTCP")
THROTTLES = (
    "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps",
    "BlkioDeviceReadIOps",
    "BlkioDeviceWriteIOps",
    "BlkioWeightDevice",
)
BLOCK_DEVICE = re.compile(r"/dev/(?:mapper/)?[A-Za-z0-9][A-Za-z0-9_-]{0,63}", re.ASCII)


def decide(ask: Ask) -> Iterable[Finding]:
    """A create gets every bound; an update only those it touches, since the others hold already."""
    creating = ask.request.operation is Operation.CONTAINER_CREATE
    asked = ask.host_config if creating else ask.body
    at: tuple[str, ...] = ("HostConfig",) if creating else ()
    yield from _memory(ask, asked, at, creating=creating)
    yield from _cpu(ask, asked, at, creating=creating)
    yield from _pids(ask, asked, at, creating=creating)
    yield from _oom(asked, at)
    if creating:
        yield from _throttles(asked, at)
    for name in DENIED:
        if as_int(asked.get(name)):
            yield _refused(at, name, asked[name], "ordinary scheduling", "leave it out")
    for name in (*DROPPED, *(() if creating else THROTTLES)):
        # An empty throttle list in an update clears the engine's rules (API 1.55), so updates never carry one.
        if name in asked:
            yield SetField(path=(*at, name), value=None)


def _memory(ask: Ask, asked: Mapping[str, Json], at: tuple[str, ...], *, creating: bool) -> Iterable[Finding]:
    limit = ask.grants.limits.memory_bytes
    memory = as_int(asked.get("Memory"))
    swap = as_int(asked.get("MemorySwap"))
    if creating or memory:
        bound = memory if 0 < memory <= limit else limit
        note = (
            f"Memory lowered to {size_text(limit)}, the limit of {ask.grants.label}" if memory > limit else ""
        )
        yield SetField(path=(*at, "Memory"), value=bound, note=note)
        # Swap equal to memory means no swap beyond it; dockerd's own default is as much again.
        yield SetField(path=(*at, "MemorySwap"), value=bound)
        if as_int(asked.get("MemoryReservation")) > bound:
            yield SetField(path=(*at, "MemoryReservation"), value=bound)
    elif swap and not 0 < swap <= limit:
        yield SetField(
            path=(*at, "MemorySwap"), value=limit, note=f"MemorySwap lowered to {size_text(limit)}"
        )


def _cpu(ask: Ask, asked: Mapping[str, Json], at: tuple[str, ...], *, creating: bool) -> Iterable[Finding]:
    """Clamp the form that was used: dockerd refuses NanoCpus beside a quota."""
    millis = ask.grants.limits.cpu_millis
    note = f"CPUs lowered to {millis / 1000:g}, the limit of {ask.grants.label}"
    nano, quota, period = (as_int(asked.get(name)) for name in ("NanoCpus", "CpuQuota", "CpuPeriod"))
    if nano:
        bound = nano if 0 < nano <= millis * 1_000_000 else millis * 1_000_000
        yield SetField(path=(*at, "NanoCpus"), value=bound, note=note if bound < nano else "")
        if quota > 0 and period > 0 and as_nano(quota_us=quota, period_us=period) == nano:
            # Both say the same, as an inspect does that a client makes a create of.
            yield from (SetField(path=(*at, name), value=None) for name in ("CpuQuota", "CpuPeriod"))
        elif quota or period:
            yield _refused(at, "NanoCpus", nano, "NanoCpus or CpuQuota, not both", "use --cpus alone")
    elif creating or quota or period:
        # SECURITY: both always, since a quota alone counts against whatever period the container had before.
        # A quota has no upper bound by the number of CPUs of the host, where NanoCpus has.
        period = period if period > 0 else PERIOD_US
        most = max(LEAST_QUOTA_US, millis * period // 1000)
        bound = quota if 0 < quota <= most else most
        yield SetField(path=(*at, "CpuPeriod"), value=period)
        yield SetField(path=(*at, "CpuQuota"), value=bound, note=note if bound < quota else "")


def _pids(ask: Ask, asked: Mapping[str, Json], at: tuple[str, ...], *, creating: bool) -> Iterable[Finding]:
    limit = ask.grants.limits.pids
    pids = as_int(asked.get("PidsLimit"))
    if creating or "PidsLimit" in asked:
        note = f"PidsLimit lowered to {limit}, the limit of {ask.grants.label}" if pids > limit else ""
        yield SetField(path=(*at, "PidsLimit"), value=pids if 0 < pids <= limit else limit, note=note)


def _oom(asked: Mapping[str, Json], at: tuple[str, ...]) -> Iterable[Finding]:
    if as_int(asked.get("OomScoreAdj")) < 0:
        yield _refused(at, "OomScoreAdj", asked["OomScoreAdj"], "0 or more", "leave out --oom-score-adj")
    if as_bool(asked.get("OomKillDisable")):
        yield _refused(at, "OomKillDisable", asked["OomKillDisable"], "false", "leave out --oom-kill-disable")


def _throttles(asked: Mapping[str, Json], at: tuple[str, ...]) -> Iterable[Finding]:
    """A container may slow itself down.

    SECURITY: dockerd looks a path up as root and says whether something is there, so a path names a block device.
    """
    for name in THROTTLES:
        for row in as_list(asked.get(name)):
            path = as_text(as_object(row).get("Path"))
            if not BLOCK_DEVICE.fullmatch(path):
                yield _refused(at, name, path, "a block device like /dev/sda", "name the device itself")


def _refused(at: tuple[str, ...], name: str, asked: Json, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=".".join((*at, name)), asked=shown(asked), limit=limit, next_step=next_step
    )
