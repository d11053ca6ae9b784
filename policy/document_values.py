"""What may stand behind each key of a policy file, and how it is read: names, sizes, durations, ranges, paths.

Every reader takes a YAML node and raises Wrong with what to write instead.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, TypeVar

import yaml

from policy.gpu_bounds import MOST_DEVICES, MOST_WAIT_SECONDS
from policy.grants import BindPath, Builds, DefaultNetwork, Handling, Ports, Role
from policy.model import Share
from policy.paths import clean_path, is_forbidden_source, is_under
from policy.spoken import duration, parse_seconds

Allowed = tuple[str, ...] | tuple[BindPath, ...] | tuple[Ports, ...] | Handling | DefaultNetwork | Builds
Read = Callable[[yaml.Node], Any]
Choice = TypeVar("Choice", bound=StrEnum)

UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
MIN_CPUS = 0.01
MAX_PORT = 65535
# SECURITY: each of these is root on the host, or another user's data, for whoever holds it.
NEVER_CAPABILITIES = frozenset(
    "ALL SYS_ADMIN SYS_MODULE SYS_RAWIO SYS_BOOT SYS_TIME DAC_READ_SEARCH BPF PERFMON MAC_ADMIN MAC_OVERRIDE SYSLOG MKNOD".split()  # noqa: SIM905  a word list reads better
)


class Wrong(Exception):  # noqa: N818  a mistake in flight, caught by the reader of the whole
    """A value that cannot be read; the text says what to write."""

    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def line_of(mark: Any) -> int:
    return int(mark.line) + 1 if mark else 0


def is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def text_of(node: yaml.Node) -> str | None:
    """The text of a string; None for anything YAML takes for another type (`no` is False, 0123 a number)."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        return str(node.value)
    return None


def scalar_of(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or is_null(node):
        raise Wrong("must be one value")
    return str(node.value)


def _name(node: yaml.Node) -> str:
    text = text_of(node)
    if text is None:
        raise Wrong(
            f'must be text; write "{_shown(node)}" in quotes'
            if isinstance(node, yaml.ScalarNode)
            else "must be text"
        )
    if not text or text != text.strip() or not text.isprintable():
        raise Wrong("must be text without spaces around it")
    return text


def _shown(node: yaml.ScalarNode) -> str:
    return str(node.value)[:40]


def read_name(node: yaml.Node) -> str:
    return _name(node)


def read_items(node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise Wrong("must be a list, like [a, b]")
    return list(node.value)


def read_names(node: yaml.Node) -> tuple[str, ...]:
    return tuple(sorted({_name(item) for item in read_items(node)}))


def read_role(node: yaml.Node) -> Role:
    return read_choice(node, Role)


def _read_handling(node: yaml.Node) -> Handling:
    return read_choice(node, Handling)


def _read_builds(node: yaml.Node) -> Builds:
    return read_choice(node, Builds)


def _read_share(node: yaml.Node) -> Share:
    return read_choice(node, Share)


def read_choice(node: yaml.Node, kind: type[Choice]) -> Choice:
    names = [str(one) for one in kind]
    text = text_of(node)
    if text not in names:
        raise Wrong(f"must be one of {', '.join(names)}")
    return kind(text)


def whole(first: int, last: int) -> Read:
    def read(node: yaml.Node) -> int:
        text = scalar_of(node)
        if (
            text_of(node) is not None
            or not re.fullmatch(r"[0-9]{1,9}", text)
            or not first <= int(text) <= last
        ):
            raise Wrong(f"must be a whole number from {first} to {last}")
        return int(text)

    return read


def _read_cpus(node: yaml.Node) -> int:
    text = scalar_of(node)
    if (
        not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text)
        or text_of(node) is not None
        or float(text) < MIN_CPUS
    ):
        raise Wrong("must be a number of CPUs of at least 0.01, like 8 or 0.5")
    return round(float(text) * 1000)


def _size(*, least: int, unlimited: bool = False) -> Read:
    def read(node: yaml.Node) -> int:
        text = scalar_of(node)
        if unlimited and text == "unlimited":
            return -1
        found = re.fullmatch(r"([0-9]{1,6})(\.[0-9])? ?(KiB|MiB|GiB|TiB)", text)
        size = int(float(found[1] + (found[2] or "")) * UNITS[found[3]]) if found else 0
        if size < least:
            more = " or unlimited" if unlimited else ""
            raise Wrong(f"must be a size of at least {least // 1024**2}MiB, like 512MiB or 16GiB{more}")
        return size

    return read


def read_duration(node: yaml.Node) -> int:
    seconds = parse_seconds(scalar_of(node))
    if seconds is None:
        raise Wrong("must be a time, like 30s, 10m or 2h")
    return seconds


def time_up_to(most_seconds: int) -> Read:
    def read(node: yaml.Node) -> int:
        seconds = read_duration(node)
        if seconds > most_seconds:
            raise Wrong(f"must be at most {duration(most_seconds)}")
        return seconds

    return read


def _read_capabilities(node: yaml.Node) -> tuple[str, ...]:
    names = tuple(name.upper().removeprefix("CAP_") for name in read_names(node))
    for name in names:
        if name in NEVER_CAPABILITIES or not re.fullmatch(r"[A-Z_]{3,32}", name):
            raise Wrong(f"{name} is never given: it is root on the host, or no capability")
    return names


def _read_devices(node: yaml.Node) -> tuple[str, ...]:
    for name in (names := read_names(node)):
        path = clean_path(name)
        if path != name or not is_under(name, "/dev") or name == "/dev" or name.startswith("/dev/nvidia"):
            raise Wrong(f"{name} must be one device under /dev that is no GPU, like /dev/fuse")
    return names


def _read_networks(node: yaml.Node) -> tuple[str, ...]:
    names = read_names(node)
    if set(names) & {"bridge", "none", "default"}:
        raise Wrong("list host, or networks that root has made; none and own networks are always allowed")
    return names


def _read_default_network(node: yaml.Node) -> DefaultNetwork:
    return read_choice(node, DefaultNetwork)


def _read_subnets(node: yaml.Node) -> tuple[str, ...]:
    return tuple(sorted({_subnet(item) for item in read_items(node)}))


def _subnet(node: yaml.Node) -> str:
    try:
        return str(ipaddress.ip_network(_name(node)))
    except ValueError:
        raise Wrong("must be a subnet, like 172.16.0.0/12") from None


def _read_hosts(node: yaml.Node) -> tuple[str, ...]:
    return tuple(sorted({_host(item) for item in read_items(node)}))


def _host(node: yaml.Node) -> str:
    text = _name(node).lower()
    if not re.fullmatch(r"\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", text):
        raise Wrong("must be a host, like files.example.org, 10.1.2.3 or [fd00::1], or *")
    return text


def _read_binds(node: yaml.Node) -> tuple[BindPath, ...]:
    return tuple(_bind(item) for item in read_items(node))


def _bind(node: yaml.Node) -> BindPath:
    found = read_fields(node, {"path": read_name, "read_only": read_bool, "setuid_ok": read_bool})
    path = str(found.get("path", ""))
    if path != "~" and (clean_path(path) != path or is_forbidden_source(path)):
        raise Wrong(f"{path or 'path'} must be a full path like /data, and outside the system's own folders")
    return BindPath(
        path=path, read_only=found.get("read_only", False), setuid_ok=found.get("setuid_ok", False)
    )


def _read_ports(node: yaml.Node) -> tuple[Ports, ...]:
    return tuple(_port_range(item) for item in read_items(node))


def _port_range(node: yaml.Node) -> Ports:
    found = read_fields(node, {"host_ip": _read_ip, "range": _read_range})
    first, last = found.get("range", (1024, 65535))
    return Ports(host_ip=found.get("host_ip", "127.0.0.1"), first=first, last=last)


def _read_range(node: yaml.Node) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", scalar_of(node))
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last <= MAX_PORT:
        raise Wrong("must be two ports, like 8000-9999")
    return first, last


def _read_ip(node: yaml.Node) -> str:
    try:
        return str(ipaddress.ip_address(_name(node)))
    except ValueError:
        raise Wrong("must be an IP address, like 127.0.0.1 or 0.0.0.0") from None


def read_bool(node: yaml.Node) -> bool:
    text = scalar_of(node)
    if node.tag != "tag:yaml.org,2002:bool" or text.lower() not in {"true", "false"}:
        raise Wrong("must be true or false")
    return text.lower() == "true"


def read_fields(node: yaml.Node, known: Mapping[str, Read]) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise Wrong(f"each item must have the keys {', '.join(known)}")
    found: dict[str, Any] = {}
    for key_node, value in node.value:
        key = text_of(key_node)
        if key is None or key not in known:
            raise Wrong(f"unknown key {key}; known are {', '.join(known)}")
        if key in found:
            raise Wrong(f"{key} is written twice")
        found[key] = known[key](value)
    return found


LIMITS: Mapping[str, tuple[str, Read]] = {
    "memory": ("memory_bytes", _size(least=6 * 1024**2)),
    "cpus": ("cpu_millis", _read_cpus),
    "pids": ("pids", whole(1, 1_000_000)),
    "shm": ("shm_bytes", _size(least=1024**2)),
    "nofile": ("nofile", whole(64, 1_048_576)),
    "memlock": ("memlock_bytes", _size(least=64 * 1024, unlimited=True)),
    "gpus": ("gpus", whole(0, MOST_DEVICES)),
    "gpus_default": ("gpus_default", whole(1, MOST_DEVICES)),
    "containers": ("containers", whole(0, 10_000)),
    "networks": ("networks", whole(0, 1000)),
    "connections": ("connections", whole(1, 10_000)),
    "uploads": ("uploads_bytes", _size(least=1024**2)),
    "wait": ("wait_seconds", time_up_to(MOST_WAIT_SECONDS)),
    "log_size": ("log_bytes", _size(least=1024**2)),
    "restarts": ("restarts", whole(0, 1000)),
}
ALLOW: Mapping[str, Read] = {
    "capabilities": _read_capabilities,
    "devices": _read_devices,
    "sysctls": read_names,
    "networks": _read_networks,
    "registries": read_names,
    "fetch_hosts": _read_hosts,
    "binds": _read_binds,
    "ports": _read_ports,
    "subnets": _read_subnets,
    "default_network": _read_default_network,
    "host_network": _read_handling,
    "security_opt": _read_handling,
    "ipc_host": _read_handling,
    "builds": _read_builds,
}
IMAGES: Mapping[str, Read] = {"private": read_bool}
SHARE: Mapping[str, Read] = {"containers": _read_share}
