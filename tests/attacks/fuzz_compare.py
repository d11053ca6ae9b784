"""Whether what the engine made is what ds01 decided on, and whether it is harmless whatever was decided.

`differences` compares the body that was sent with what root finds, every field of HostConfig and Config. `harms` knows of no body:
it says what no container of a user may be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Body = Mapping[str, Any]

# What the engine fills in where a body says nothing, or writes in a form of its own.
_ENGINES_OWN_HOST = frozenset({"ConsoleSize", "Isolation"})
_ENGINES_OWN = frozenset({"Hostname", "HostConfig", "NetworkingConfig", "ExposedPorts", "Image"})
_ANONYMOUS = re.compile(r"[0-9a-f]{64}")
_DEFAULT_CAPABILITIES = frozenset(
    [
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    ]
)


def plain(value: Any) -> Any:
    """A value without what is zero, so that absent, null, empty and 0 are one."""
    if isinstance(value, Mapping):
        return {
            key: kept
            for key, item in value.items()
            if (kept := plain(item)) not in (None, "", 0, [], {}, False)
        }
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def _is_same(sent: Any, found: Any) -> bool:
    one, other = (plain({"x": value}) for value in (sent, found))
    return bool(one == other)


def differences(sent: Body, found: Body, image: Body, networks: Mapping[str, str]) -> Iterator[str]:
    """One line for each field of the container that is not as it was sent.

    Args:
        sent: the JSON that dockerd was given.
        found: the container as root inspects it.
        image: the image's Config; dockerd takes from it what the body leaves out.
        networks: names by id; dockerd shows the name of what it was given by id.
    """
    yield from _host(sent.get("HostConfig") or {}, found["HostConfig"], networks)
    yield from _config(sent, found["Config"], image)
    yield from _mounts(sent, found)


def _host(sent: Body, found: Body, networks: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*sent, *found} - _ENGINES_OWN_HOST):
        value = sent.get(name)
        if name == "NetworkMode":
            value = networks.get(value or "", value or "default")
        if name in ("MaskedPaths", "ReadonlyPaths") and value is None:
            if not found.get(name):
                yield f"HostConfig.{name} is empty in the engine"
            continue
        if name == "NanoCpus" and not value and (quota := sent.get("CpuQuota") or 0) > 0:
            value = (
                quota * 10**9 // (sent.get("CpuPeriod") or 100_000)
            )  # ds01 shows a quota in this form, too
        if name == "MemorySwappiness" and value is None and found.get(name) == -1:
            continue
        if name == "LogConfig" and (value or {}).get("Type") == "none":
            value = {"Type": "none", "Config": (value or {}).get("Config")}
        if not _is_same(value, found.get(name)):
            yield f"HostConfig.{name} was sent as {value!r} and is {found.get(name)!r}"


def _config(sent: Body, found: Body, image: Body) -> Iterator[str]:
    for name in sorted({*sent, *found} - _ENGINES_OWN):
        value, inherited = sent.get(name), image.get(name)
        if name in ("Cmd", "Entrypoint", "User", "WorkingDir") and not value:
            # An entrypoint that was sent empties the image's command.
            value = found.get(name) if found.get(name) in (inherited, None, [], "") else value
        if name == "WorkingDir" and value and found.get(name) == value.rstrip("/"):
            continue
        if name == "Env":
            value = [*(value or ()), *(entry for entry in inherited or () if not _is_set(entry, value or ()))]
        if not _is_same(value, found.get(name)):
            yield f"{name} was sent as {value!r} and is {found.get(name)!r}"


def _is_set(entry: str, env: Iterable[str]) -> bool:
    return any(one.partition("=")[0] == entry.partition("=")[0] for one in env)


def _mounts(sent: Body, found: Body) -> Iterator[str]:
    """Every mount point is one that was sent, or comes from the container that VolumesFrom names."""
    host = sent.get("HostConfig") or {}
    sources = {text.partition(":")[0] for text in host.get("Binds") or () if ":" in text}
    sources |= {mount.get("Source", "") for mount in host.get("Mounts") or ()}
    for mount in found["Mounts"]:
        source = mount.get("Name") if mount["Type"] == "volume" else mount.get("Source", "")
        anonymous = mount["Type"] == "volume" and _ANONYMOUS.fullmatch(source or "") is not None
        if (
            not anonymous
            and mount["Type"] != "tmpfs"
            and source not in sources
            and not host.get("VolumesFrom")
        ):
            yield f"a mount of {source} that was not sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Whose the container must be, and what is theirs."""

    name: str
    uid: int
    home: str
    socket: str
    containers: frozenset[str]  # ids
    networks: frozenset[str]
    most_memory_bytes: int = 16 << 30
    most_pids: int = 4096


def harms(found: Body, owner: Owner) -> Iterator[str]:
    """What of this container no user may have."""
    for name, is_harmless in _HARMLESS.items():
        if not is_harmless(found, owner):
            value = found["HostConfig"].get(name, found.get(name, found["Config"].get(name)))
            yield f"{name} is {value!r}"


def _is_joined(mode: str, owner: Owner) -> bool:
    return mode.startswith("container:") and mode.removeprefix("container:") in owner.containers


def _capabilities(found: Body, _owner: Owner) -> bool:
    added = {name.upper().removeprefix("CAP_") for name in found["HostConfig"]["CapAdd"] or ()}
    return added <= _DEFAULT_CAPABILITIES


def _mount_is_own(mount: Body, owner: Owner) -> bool:
    if mount["Type"] == "bind":
        source = mount["Source"]
        return bool(source == owner.socket or source.startswith(f"{owner.home}/"))
    if mount["Type"] == "volume":
        name = mount["Name"]  # inside dockerd
        return name.startswith(f"u{owner.uid}.") or _ANONYMOUS.fullmatch(name) is not None
    return bool(mount["Type"] == "tmpfs")


def _gpus(found: Body, _owner: Owner) -> bool:
    host, config = found["HostConfig"], found["Config"]
    requests = host["DeviceRequests"] or []
    visible = [entry for entry in config["Env"] if entry.startswith("NVIDIA_VISIBLE_DEVICES")]
    if len(visible) != 1:
        return False
    if not config["Labels"].get("ds01.lease"):
        return not requests and visible == ["NVIDIA_VISIBLE_DEVICES=void"]
    ids = requests[0]["DeviceIDs"] if len(requests) == 1 else ()
    return len(ids) == 1 and not requests[0]["Count"] and "all" not in ids


def _networks(found: Body, owner: Owner) -> bool:
    return set(found["NetworkSettings"]["Networks"] or ()) <= owner.networks


_HARMLESS: dict[str, Callable[[Body, Owner], bool]] = {
    "Privileged": lambda found, _: found["HostConfig"]["Privileged"] is False,
    "CapAdd": _capabilities,
    "CapDrop": lambda found, _: bool(
        {"MKNOD", "ALL", "CAP_MKNOD", "CAP_ALL"} & {*found["HostConfig"]["CapDrop"]}
    ),
    "PidMode": lambda found, owner: (mode := found["HostConfig"]["PidMode"]) == "" or _is_joined(mode, owner),
    "IpcMode": lambda found, owner: (
        (mode := found["HostConfig"]["IpcMode"]) in ("private", "shareable", "none")
        or _is_joined(mode, owner)
    ),
    "NetworkMode": lambda found, owner: (
        (mode := found["HostConfig"]["NetworkMode"]) in owner.networks or _is_joined(mode, owner)
    ),
    "Networks": _networks,
    "UTSMode": lambda found, _: not found["HostConfig"]["UTSMode"],
    "UsernsMode": lambda found, _: not found["HostConfig"]["UsernsMode"],
    "CgroupnsMode": lambda found, _: found["HostConfig"]["CgroupnsMode"] == "private",
    "CgroupParent": lambda found, owner: (
        found["HostConfig"]["CgroupParent"] in (f"/ds01/{owner.uid}", f"ds01-{owner.uid}.slice")
    ),
    "Runtime": lambda found, _: found["HostConfig"]["Runtime"] == "ds01",
    "Devices": lambda found, _: not found["HostConfig"]["Devices"],
    "DeviceCgroupRules": lambda found, _: not found["HostConfig"]["DeviceCgroupRules"],
    "DeviceRequests": _gpus,
    "SecurityOpt": lambda found, _: (
        {*(found["HostConfig"]["SecurityOpt"] or ())}
        <= {"no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"}
    ),
    "MaskedPaths": lambda found, _: "/proc/kcore" in found["HostConfig"]["MaskedPaths"],
    "ReadonlyPaths": lambda found, _: "/proc/sys" in found["HostConfig"]["ReadonlyPaths"],
    "Sysctls": lambda found, _: {*(found["HostConfig"].get("Sysctls") or ())} <= {"net.core.somaxconn"},
    "LogConfig": lambda found, _: found["HostConfig"]["LogConfig"]["Type"] in ("json-file", "local", "none"),
    "RestartPolicy": lambda found, _: (
        found["HostConfig"]["RestartPolicy"]["Name"] in ("", "no", "on-failure")
    ),
    "Memory": lambda found, owner: 0 < found["HostConfig"]["Memory"] <= owner.most_memory_bytes,
    "MemorySwap": lambda found, owner: 0 < found["HostConfig"]["MemorySwap"] <= owner.most_memory_bytes,
    "PidsLimit": lambda found, owner: 0 < (found["HostConfig"]["PidsLimit"] or 0) <= owner.most_pids,
    "OomKillDisable": lambda found, _: not found["HostConfig"]["OomKillDisable"],
    "OomScoreAdj": lambda found, _: found["HostConfig"]["OomScoreAdj"] >= 0,
    "Links": lambda found, _: not found["HostConfig"]["Links"],
    "Mounts": lambda found, owner: all(_mount_is_own(mount, owner) for mount in found["Mounts"]),
    "Labels": lambda found, owner: (
        (labels := found["Config"]["Labels"])["ds01.owner"] == owner.name
        and labels["ds01.uid"] == str(owner.uid)
        and labels["ds01.seal"].startswith("v1.")
    ),
    "MacAddress": lambda found, _: not found["Config"].get("MacAddress"),
}
