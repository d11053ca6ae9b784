"""Policy files as text → a checked document, or every mistake in them at once.

Owns what may stand in policy.yaml and how it is read: the safe loader with lines kept, duplicate and unknown keys
refused, no anchors, no tags, capped in size and depth. What the entries mean together is `policy.compile`'s.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml

from policy.grants import BindPath, Builds, DefaultNetwork, Handling, Ports, Role
from policy.model import Share
from policy.paths import clean_path, is_forbidden_source, is_under

MAX_CHARS = 512 * 1024
MAX_DEPTH = 12
MAX_NODES = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Mistake:
    """One thing wrong with one line. Lines count from 1; 0 stands for the file as a whole."""

    file: str
    line: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.path or '(top)'}: {self.message}"


class PolicyInvalid(Exception):  # noqa: N818  the project's word for it
    """The files hold mistakes; the admin must fix them. The last good policy stays."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__("\n".join(str(mistake) for mistake in self.mistakes))


Allowed = tuple[str, ...] | tuple[BindPath, ...] | tuple[Ports, ...] | Handling | DefaultNetwork | Builds
Read = Callable[[yaml.Node], Any]
Choice = TypeVar("Choice", Role, Handling, DefaultNetwork, Builds, Share)

UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
MIN_CPUS = 0.01
MAX_PORT = 65535
# SECURITY: each of these is root on the host, or another user's data, for whoever holds it.
NEVER_CAPABILITIES = frozenset(
    "ALL SYS_ADMIN SYS_MODULE SYS_RAWIO SYS_BOOT SYS_TIME DAC_READ_SEARCH BPF PERFMON MAC_ADMIN MAC_OVERRIDE SYSLOG MKNOD".split()  # noqa: SIM905  a word list reads better
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one block says; a key that is absent was not written. Limits in base units, named as in `Limits`."""

    role: Role | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    allow: Mapping[str, Allowed] = field(default_factory=dict)
    images: Mapping[str, bool] = field(default_factory=dict)
    unix_group: str = ""  # groups only
    members: tuple[str, ...] = ()  # groups only
    share: Mapping[str, Share] = field(default_factory=dict)  # groups only


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """All files together."""

    defaults: Entry = field(default_factory=Entry)
    groups: Mapping[str, Entry] = field(default_factory=dict)
    users: Mapping[str, Entry] = field(default_factory=dict)
    system_accounts: tuple[str, ...] = ()


class _Wrong(Exception):  # noqa: N818  a mistake in flight, caught in this module
    def __init__(self, message: str, *, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


def parse(texts: Mapping[str, str] | str) -> Document:
    """Read policy files.

    Args: texts: text by file name; a key may stand in one file only, groups and users may be spread. A plain text
        counts as one file named policy.yaml.
    Raises: PolicyInvalid: with every mistake of every file.
    """
    reader = _Reader()
    files = {"policy.yaml": texts} if isinstance(texts, str) else texts
    for name, text in files.items():
        reader.read_file(name, text)
    if not reader.saw_version and not reader.mistakes:
        reader.mistakes.append(
            Mistake(
                file=next(iter(files), "policy.yaml"),
                line=0,
                path="version",
                message="missing; write version: 1",
            )
        )
    if reader.mistakes:
        raise PolicyInvalid(reader.mistakes)
    return Document(
        defaults=reader.defaults or Entry(),
        groups=reader.groups,
        users=reader.users,
        system_accounts=reader.system_accounts,
    )


class _Reader:
    """Collects mistakes and blocks while it walks the YAML nodes of each file."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.file = ""
        self.saw_version = False
        self.defaults: Entry | None = None
        self.groups: dict[str, Entry] = {}
        self.users: dict[str, Entry] = {}
        self.system_accounts: tuple[str, ...] = ()
        self.seen: dict[str, str] = {}

    def read_file(self, name: str, text: str) -> None:
        self.file = name
        root = self._compose(text)
        if root is None:
            return
        top = {
            "version": self._version,
            "defaults": self._defaults,
            "groups": self._groups,
            "users": self._users,
            "system_accounts": self._system_accounts,
        }
        for key, node in self._keys(root, "", top):
            if (
                key != "version"
                and key in {"defaults", "system_accounts"}
                and not self._first(key, node, key)
            ):
                continue
            top[key](node, key)

    def _compose(self, text: str) -> yaml.Node | None:
        if len(text) > MAX_CHARS:
            self._wrong(0, "", f"longer than {MAX_CHARS} characters")
            return None
        try:
            _refuse_bombs(text)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except _Wrong as wrong:
            self._wrong(wrong.line, "", str(wrong))
            return None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._wrong(_line(mark), "", f"not YAML: {error.problem or error.context}")
            return None
        except (yaml.YAMLError, ValueError, RecursionError) as error:
            self._wrong(0, "", f"not YAML: {str(error).splitlines()[0] if str(error) else 'unreadable'}")
            return None
        if root is None:
            self._wrong(0, "", "empty")
        return root

    def _wrong(self, line: int, path: str, message: str) -> None:
        self.mistakes.append(Mistake(file=self.file, line=line, path=path, message=message))

    def _at(self, node: yaml.Node, path: str, message: str) -> None:
        self._wrong(_line(node.start_mark), path, message)

    def _first(self, name: str, node: yaml.Node, path: str) -> bool:
        """Whether no other file has said this already."""
        if name in self.seen:
            self._at(node, path, f"also in {self.seen[name]}; keep one of them")
            return False
        self.seen[name] = self.file
        return True

    def _pairs(self, node: yaml.Node, path: str) -> Iterable[tuple[str, yaml.Node]]:
        """Keys and values of a mapping; duplicates and keys that are no text are mistakes."""
        if not isinstance(node, yaml.MappingNode):
            if not _is_null(node):
                self._at(node, path, "must be a block of `key: value` lines")
            return
        seen: set[str] = set()
        for key_node, value in node.value:
            key = _text(key_node)
            if key is None:
                self._at(key_node, path, "a key must be plain text; put it in quotes")
            elif key in seen:
                self._at(key_node, _join(path, key), "written twice")
            else:
                seen.add(key)
                yield key, value

    def _keys(self, node: yaml.Node, path: str, known: Iterable[str]) -> Iterable[tuple[str, yaml.Node]]:
        names = list(known)
        for key, value in self._pairs(node, path):
            if key in names:
                yield key, value
                continue
            near = difflib.get_close_matches(key[:60], names, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            self._at(value, _join(path, key), f"unknown key; {hint}")

    def _version(self, node: yaml.Node, path: str) -> None:
        self.saw_version = True
        if _text(node) is not None or getattr(node, "value", None) != "1":
            self._at(node, path, "must be 1")

    def _defaults(self, node: yaml.Node, path: str) -> None:
        self.defaults = self._entry(node, path, {})

    def _groups(self, node: yaml.Node, path: str) -> None:
        for name, value in self._pairs(node, path):
            where = _join(path, name)
            if self._first(where, value, where):
                entry = self._entry(
                    value, where, {"unix_group": _read_name, "members": _read_names, "share": _read_name}
                )
                self.groups[name] = entry
                if not entry.unix_group and not entry.members and not self.mistakes:
                    self._at(value, where, "nobody is in it; give unix_group or members")

    def _users(self, node: yaml.Node, path: str) -> None:
        for name, value in self._pairs(node, path):
            where = _join(path, name)
            if self._first(where, value, where):
                self.users[name] = self._entry(value, where, {})

    def _system_accounts(self, node: yaml.Node, path: str) -> None:
        found = self._parsed(node, path, _read_names)
        self.system_accounts = found if isinstance(found, tuple) else ()

    def _entry(self, node: yaml.Node, path: str, more: Mapping[str, Read]) -> Entry:
        plain: dict[str, Any] = {}
        limits: dict[str, Any] = {}
        allow: dict[str, Any] = {}
        images: dict[str, Any] = {}
        share: dict[str, Any] = {}
        for key, value in self._keys(node, path, ["role", "limits", "allow", "images", *more]):
            where = _join(path, key)
            match key:
                case "limits":
                    self._table(value, where, LIMITS, limits)
                case "allow":
                    self._table(value, where, {key: (key, read) for key, read in ALLOW.items()}, allow)
                case "images":
                    self._table(value, where, {key: (key, read) for key, read in IMAGES.items()}, images)
                case "share":
                    self._table(value, where, {key: (key, read) for key, read in SHARE.items()}, share)
                case _:
                    found = self._parsed(value, where, {"role": _read_role, **more}[key])
                    plain.update({key: found} if found is not None else {})
        return Entry(limits=limits, allow=allow, images=images, share=share, **plain)

    def _table(
        self, node: yaml.Node, path: str, table: Mapping[str, tuple[str, Read]], into: dict[str, Any]
    ) -> None:
        for key, value in self._keys(node, path, table):
            name, read = table[key]
            found = self._parsed(value, _join(path, key), read)
            if found is not None:
                into[name] = found

    def _parsed(self, node: yaml.Node, path: str, read: Read) -> Any:
        try:
            return read(node)
        except _Wrong as wrong:
            self._at(node, path, str(wrong))
            return None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _line(mark: Any) -> int:
    return int(mark.line) + 1 if mark else 0


def _refuse_bombs(text: str) -> None:
    """Walk the events before any node is built: no aliases, no tags, not deep, not many.

    SECURITY: an alias can name a node that holds it, or a thousand that hold a thousand.
    """
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _Wrong("anchors and aliases are not read; write it out", line=_line(event.start_mark))
        if getattr(event, "tag", None):
            raise _Wrong("tags (!name) are not read", line=_line(event.start_mark))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise _Wrong("nested too deeply or too long")


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _text(node: yaml.Node) -> str | None:
    """The text of a string; None for anything YAML takes for another type (`no` is False, 0123 a number)."""
    if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:str":
        return str(node.value)
    return None


def _scalar(node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode) or _is_null(node):
        raise _Wrong("must be one value")
    return str(node.value)


def _name(node: yaml.Node) -> str:
    text = _text(node)
    if text is None:
        raise _Wrong(
            f'must be text; write "{_shown(node)}" in quotes'
            if isinstance(node, yaml.ScalarNode)
            else "must be text"
        )
    if not text or text != text.strip() or not text.isprintable():
        raise _Wrong("must be text without spaces around it")
    return text


def _shown(node: yaml.ScalarNode) -> str:
    return str(node.value)[:40]


def _read_name(node: yaml.Node) -> str:
    return _name(node)


def _items(node: yaml.Node) -> list[yaml.Node]:
    if not isinstance(node, yaml.SequenceNode):
        raise _Wrong("must be a list, like [a, b]")
    return list(node.value)


def _read_names(node: yaml.Node) -> tuple[str, ...]:
    return tuple(sorted({_name(item) for item in _items(node)}))


def _read_role(node: yaml.Node) -> Role:
    return _choice(node, Role)


def _read_handling(node: yaml.Node) -> Handling:
    return _choice(node, Handling)


def _read_builds(node: yaml.Node) -> Builds:
    return _choice(node, Builds)


def _read_share(node: yaml.Node) -> Share:
    return _choice(node, Share)


def _choice(node: yaml.Node, kind: type[Choice]) -> Choice:
    names = [str(one) for one in kind]
    text = _text(node)
    if text not in names:
        raise _Wrong(f"must be one of {', '.join(names)}")
    return kind(text)


def _whole(first: int, last: int) -> Read:
    def read(node: yaml.Node) -> int:
        text = _scalar(node)
        if _text(node) is not None or not re.fullmatch(r"[0-9]{1,9}", text) or not first <= int(text) <= last:
            raise _Wrong(f"must be a whole number from {first} to {last}")
        return int(text)

    return read


def _read_cpus(node: yaml.Node) -> int:
    text = _scalar(node)
    if (
        not re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,3})?", text)
        or _text(node) is not None
        or float(text) < MIN_CPUS
    ):
        raise _Wrong("must be a number of CPUs of at least 0.01, like 8 or 0.5")
    return round(float(text) * 1000)


def _size(*, least: int, unlimited: bool = False) -> Read:
    def read(node: yaml.Node) -> int:
        text = _scalar(node)
        if unlimited and text == "unlimited":
            return -1
        found = re.fullmatch(r"([0-9]{1,6})(\.[0-9])? ?(KiB|MiB|GiB|TiB)", text)
        size = int(float(found[1] + (found[2] or "")) * UNITS[found[3]]) if found else 0
        if size < least:
            more = " or unlimited" if unlimited else ""
            raise _Wrong(f"must be a size of at least {least // 1024**2}MiB, like 512MiB or 16GiB{more}")
        return size

    return read


def _read_duration(node: yaml.Node) -> int:
    found = re.fullmatch(r"([0-9]{1,6})(s|m|h|d)", _scalar(node))
    if not found:
        raise _Wrong("must be a time, like 30s, 10m or 2h")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def _read_capabilities(node: yaml.Node) -> tuple[str, ...]:
    names = tuple(name.upper().removeprefix("CAP_") for name in _read_names(node))
    for name in names:
        if name in NEVER_CAPABILITIES or not re.fullmatch(r"[A-Z_]{3,32}", name):
            raise _Wrong(f"{name} is never given: it is root on the host, or no capability")
    return names


def _read_devices(node: yaml.Node) -> tuple[str, ...]:
    for name in (names := _read_names(node)):
        path = clean_path(name)
        if path != name or not is_under(name, "/dev") or name == "/dev" or name.startswith("/dev/nvidia"):
            raise _Wrong(f"{name} must be one device under /dev that is no GPU, like /dev/fuse")
    return names


def _read_networks(node: yaml.Node) -> tuple[str, ...]:
    names = _read_names(node)
    if set(names) & {"bridge", "none", "default"}:
        raise _Wrong("list host, or networks that root has made; none and own networks are always allowed")
    return names


def _read_default_network(node: yaml.Node) -> DefaultNetwork:
    return _choice(node, DefaultNetwork)


def _read_subnets(node: yaml.Node) -> tuple[str, ...]:
    return tuple(sorted({_subnet(item) for item in _items(node)}))


def _subnet(node: yaml.Node) -> str:
    try:
        return str(ipaddress.ip_network(_name(node)))
    except ValueError:
        raise _Wrong("must be a subnet, like 172.16.0.0/12") from None


def _read_hosts(node: yaml.Node) -> tuple[str, ...]:
    return tuple(sorted({_host(item) for item in _items(node)}))


def _host(node: yaml.Node) -> str:
    text = _name(node).lower()
    if not re.fullmatch(r"\*|[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]", text):
        raise _Wrong("must be a host, like files.example.org, 10.1.2.3 or [fd00::1], or *")
    return text


def _read_binds(node: yaml.Node) -> tuple[BindPath, ...]:
    return tuple(_bind(item) for item in _items(node))


def _bind(node: yaml.Node) -> BindPath:
    found = _fields(node, {"path": _read_name, "read_only": _read_bool, "setuid_ok": _read_bool})
    path = str(found.get("path", ""))
    if path != "~" and (clean_path(path) != path or is_forbidden_source(path)):
        raise _Wrong(f"{path or 'path'} must be a full path like /data, and outside the system's own folders")
    return BindPath(
        path=path, read_only=found.get("read_only", False), setuid_ok=found.get("setuid_ok", False)
    )


def _read_ports(node: yaml.Node) -> tuple[Ports, ...]:
    return tuple(_port_range(item) for item in _items(node))


def _port_range(node: yaml.Node) -> Ports:
    found = _fields(node, {"host_ip": _read_ip, "range": _read_range})
    first, last = found.get("range", (1024, 65535))
    return Ports(host_ip=found.get("host_ip", "127.0.0.1"), first=first, last=last)


def _read_range(node: yaml.Node) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,5})-([0-9]{1,5})", _scalar(node))
    first, last = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= first <= last <= MAX_PORT:
        raise _Wrong("must be two ports, like 8000-9999")
    return first, last


def _read_ip(node: yaml.Node) -> str:
    try:
        return str(ipaddress.ip_address(_name(node)))
    except ValueError:
        raise _Wrong("must be an IP address, like 127.0.0.1 or 0.0.0.0") from None


def _read_bool(node: yaml.Node) -> bool:
    text = _scalar(node)
    if node.tag != "tag:yaml.org,2002:bool" or text.lower() not in {"true", "false"}:
        raise _Wrong("must be true or false")
    return text.lower() == "true"


def _fields(node: yaml.Node, known: Mapping[str, Read]) -> dict[str, Any]:
    if not isinstance(node, yaml.MappingNode):
        raise _Wrong(f"each item must have the keys {', '.join(known)}")
    found: dict[str, Any] = {}
    for key_node, value in node.value:
        key = _text(key_node)
        if key is None or key not in known:
            raise _Wrong(f"unknown key {key}; known are {', '.join(known)}")
        if key in found:
            raise _Wrong(f"{key} is written twice")
        found[key] = known[key](value)
    return found


LIMITS: Mapping[str, tuple[str, Read]] = {
    "memory": ("memory_bytes", _size(least=6 * 1024**2)),
    "cpus": ("cpu_millis", _read_cpus),
    "pids": ("pids", _whole(1, 1_000_000)),
    "shm": ("shm_bytes", _size(least=1024**2)),
    "nofile": ("nofile", _whole(64, 1_048_576)),
    "memlock": ("memlock_bytes", _size(least=64 * 1024, unlimited=True)),
    "gpus": ("gpus", _whole(0, 1024)),
    "gpus_default": ("gpus_default", _whole(1, 1024)),
    "containers": ("containers", _whole(0, 10_000)),
    "networks": ("networks", _whole(0, 1000)),
    "connections": ("connections", _whole(1, 10_000)),
    "uploads": ("uploads_bytes", _size(least=1024**2)),
    "wait": ("wait_seconds", _read_duration),
    "log_size": ("log_bytes", _size(least=1024**2)),
    "restarts": ("restarts", _whole(0, 1000)),
}
ALLOW: Mapping[str, Read] = {
    "capabilities": _read_capabilities,
    "devices": _read_devices,
    "sysctls": _read_names,
    "networks": _read_networks,
    "registries": _read_names,
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
IMAGES: Mapping[str, Read] = {"private": _read_bool}
SHARE: Mapping[str, Read] = {"containers": _read_share}
