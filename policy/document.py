"""Policy files as text → a checked document, or every mistake in them at once.

Owns the shape of policy.yaml and how it is read: the safe loader with lines kept, duplicate and unknown keys refused, no
anchors, no tags, capped in size and depth. What may stand behind a key is `policy.document_values`', what the
entries mean together `policy.compile`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import yaml

from policy.document_gpu import GPU, GPU_LIMITS, GPU_OF_GROUP, read_reservations
from policy.document_mig import MigLayout, read_mig
from policy.document_values import (
    ALLOW,
    IMAGES,
    LIMITS,
    SHARE,
    Allowed,
    Read,
    Wrong,
    is_null,
    line_of,
    read_name,
    read_names,
    read_role,
    text_of,
)
from policy.grants import Reservation, Role
from policy.host_processes import FIELDS, KEYS, HostProcesses
from policy.model import Share
from policy.monitors import Monitor, read_monitors
from policy.nearest import hint

MAX_CHARS = 512 * 1024
MAX_DEPTH = 12
MAX_NODES = 20_000
_IN_ONE_FILE = frozenset({"defaults", "system_accounts", "gpu"})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What one block says; a key that is absent was not written. Limits in base units, named as in `Limits`."""

    role: Role | None = None
    limits: Mapping[str, int | Fraction] = field(default_factory=dict)
    gpu: Mapping[str, Any] = field(default_factory=dict)
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
    gpu: HostProcesses = field(default_factory=HostProcesses)
    mig: tuple[MigLayout, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    reservations: tuple[Reservation, ...] = ()


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
    reader.check_reservations()
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
        gpu=reader.gpu,
        mig=reader.mig,
        monitors=reader.monitors,
        reservations=reader.reservations,
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
        self.gpu = HostProcesses()
        self.mig: tuple[MigLayout, ...] = ()
        self.monitors: tuple[Monitor, ...] = ()
        self.reservations: tuple[Reservation, ...] = ()
        self.reserved_at = ("", 0)  # file and line
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
            "gpu": self._gpu,
        }
        for key, node in self._keys(root, "", top):
            if key not in _IN_ONE_FILE or self._first(key, node, key):
                top[key](node, key)

    def _compose(self, text: str) -> yaml.Node | None:
        if len(text) > MAX_CHARS:
            self._wrong(0, "", f"longer than {MAX_CHARS} characters")
            return None
        try:
            _refuse_bombs(text)
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except Wrong as wrong:
            self._wrong(wrong.line, "", str(wrong))
            return None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._wrong(line_of(mark), "", f"not YAML: {error.problem or error.context}")
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
        self._wrong(line_of(node.start_mark), path, message)

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
            if not is_null(node):
                self._at(node, path, "must be a block of `key: value` lines")
            return
        seen: set[str] = set()
        for key_node, value in node.value:
            key = text_of(key_node)
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
            self._at(value, _join(path, key), f"unknown key; {hint(key, names)}")

    def _version(self, node: yaml.Node, path: str) -> None:
        self.saw_version = True
        if text_of(node) is not None or getattr(node, "value", None) != "1":
            self._at(node, path, "must be 1")

    def _defaults(self, node: yaml.Node, path: str) -> None:
        self.defaults = self._entry(node, path, {})

    def _groups(self, node: yaml.Node, path: str) -> None:
        for name, value in self._pairs(node, path):
            where = _join(path, name)
            if self._first(where, value, where):
                entry = self._entry(
                    value, where, {"unix_group": read_name, "members": read_names, "share": read_name}
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
        found = self._parsed(node, path, read_names)
        self.system_accounts = found if isinstance(found, tuple) else ()

    def _gpu(self, node: yaml.Node, path: str) -> None:
        found: dict[str, Any] = {}
        table = {key: (FIELDS.get(key, key), read) for key, read in KEYS.items()}
        more = {"mig": read_mig, "monitors": read_monitors, "reservations": read_reservations}
        self._table(node, path, {**table, **{key: (key, read) for key, read in more.items()}}, found)
        self.mig = found.pop("mig", ())
        self.monitors = found.pop("monitors", ())
        self.reservations = found.pop("reservations", ())
        self.reserved_at = (self.file, line_of(node.start_mark))
        self.gpu = HostProcesses(**found)

    def check_reservations(self) -> None:
        """Whoever GPUs are kept for must be a group of the policy; groups may stand in any file."""
        self.file, line = self.reserved_at
        for item in self.reservations:
            if item.group and item.group not in self.groups:
                said = f"there is no group {item.group}; {hint(item.group, self.groups)}"
                self._wrong(line, "gpu.reservations", said)

    def _entry(self, node: yaml.Node, path: str, more: Mapping[str, Read]) -> Entry:
        plain: dict[str, Any] = {}
        limits: dict[str, Any] = {}
        allow: dict[str, Any] = {}
        images: dict[str, Any] = {}
        share: dict[str, Any] = {}
        gpu: dict[str, Any] = {}
        for key, value in self._keys(node, path, ["role", "limits", "gpu", "allow", "images", *more]):
            where = _join(path, key)
            match key:
                case "limits":
                    self._table(value, where, {**LIMITS, **GPU_LIMITS}, limits)
                case "gpu":
                    known = GPU_OF_GROUP if "members" in more else GPU
                    self._table(value, where, {name: (name, read) for name, read in known.items()}, gpu)
                case "allow":
                    self._table(value, where, {key: (key, read) for key, read in ALLOW.items()}, allow)
                case "images":
                    self._table(value, where, {key: (key, read) for key, read in IMAGES.items()}, images)
                case "share":
                    self._table(value, where, {key: (key, read) for key, read in SHARE.items()}, share)
                case _:
                    found = self._parsed(value, where, {"role": read_role, **more}[key])
                    plain.update({key: found} if found is not None else {})
        return Entry(limits=limits, gpu=gpu, allow=allow, images=images, share=share, **plain)

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
        except Wrong as wrong:
            self._at(node, path, str(wrong))
            return None


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _refuse_bombs(text: str) -> None:
    """Walk the events before any node is built: no aliases, no tags, not deep, not many.

    SECURITY: an alias can name a node that holds it, or a thousand that hold a thousand.
    """
    depth = 0
    for count, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Wrong("anchors and aliases are not read; write it out", line=line_of(event.start_mark))
        if getattr(event, "tag", None):
            raise Wrong("tags (!name) are not read", line=line_of(event.start_mark))
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise Wrong("nested too deeply or too long")
