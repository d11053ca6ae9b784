"""A bundle, as dockerd has written it for runc: the parts of config.json that decide what of the host a container has.

Owns reading them into values and writing pinned sources back. SOURCE: OCI runtime specification 1.0 to 1.2.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from host.files import FileUntrusted, read_trusted, write_atomic
from policy.gpus import VISIBLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class BundleUnreadable(Exception):  # noqa: N818  the name says what is wrong
    """The bundle is missing, not root's, or not in the form of the specification."""


class _Spec(msgspec.Struct):
    pass


class Mount(_Spec):
    """One entry of `mounts`."""

    destination: str
    type: str = ""
    source: str = ""
    options: list[str] | None = None

    @property
    def is_bind(self) -> bool:
        """Whether runc takes it for a bind: by its type, or by an option of a mount of any type."""
        return self.type == "bind" or not {"bind", "rbind"}.isdisjoint(self.options or ())

    @property
    def is_read_only(self) -> bool:
        """Whether it says so and nothing takes it back: of two options the later one counts.

        SOURCE: runc specconv, parseMountOptions: `rro` and `rrw` are of this mount and all below it; dockerd from 25 on
        writes `rro`.
        """
        options = set(self.options or ())
        return not options.isdisjoint(("ro", "rro")) and options.isdisjoint(("rw", "rrw"))


class Hook(_Spec):
    """A program that runc runs beside the container."""

    path: str
    args: list[str] | None = None


class Namespace(_Spec):
    """A namespace: a new one, or with a path an existing one."""

    type: str
    path: str = ""


class Node(_Spec):
    """A device node to make in the container."""

    path: str
    type: str = ""
    major: int = 0
    minor: int = 0


class DeviceRule(_Spec):
    """One line of the device control group; None stands for every number."""

    allow: bool = False
    type: str = ""
    major: int | None = None
    minor: int | None = None
    access: str = ""


class _Capabilities(_Spec):
    bounding: list[str] | None = None
    effective: list[str] | None = None
    inheritable: list[str] | None = None
    permitted: list[str] | None = None
    ambient: list[str] | None = None


class _Process(_Spec):
    env: list[str] | None = None
    capabilities: _Capabilities | None = None


class _Resources(_Spec):
    devices: list[DeviceRule] | None = None


class _Linux(_Spec):
    resources: _Resources | None = None
    cgroups_path: str = msgspec.field(default="", name="cgroupsPath")
    namespaces: list[Namespace] | None = None
    devices: list[Node] | None = None
    masked_paths: list[str] | None = msgspec.field(default=None, name="maskedPaths")
    readonly_paths: list[str] | None = msgspec.field(default=None, name="readonlyPaths")


class _Config(_Spec):
    process: _Process
    linux: _Linux
    mounts: list[Mount] | None = None
    hooks: dict[str, list[Hook] | None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """What a container is about to get.

    capabilities: of all sets together. masked: /proc and /sys are covered as in every container that is not privileged.
    """

    mounts: tuple[Mount, ...] = ()
    cgroup: str = ""
    env: tuple[str, ...] = ()
    capabilities: frozenset[str] = frozenset()
    hooks: tuple[Hook, ...] = ()
    namespaces: Mapping[str, str] = field(default_factory=dict)  # path by type
    nodes: tuple[Node, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    masked: bool = False

    @property
    def visible_devices(self) -> str | None:
        """The last NVIDIA_VISIBLE_DEVICES, which is the one that counts."""
        name = VISIBLE + "="
        return next(
            (entry.removeprefix(name) for entry in reversed(self.env) if entry.startswith(name)), None
        )


def read_bundle(directory: Path) -> Bundle:
    """Read `config.json`. Raises: BundleUnreadable."""
    try:
        config = msgspec.json.decode(read_trusted(directory / "config.json"), type=_Config)
    except (OSError, FileUntrusted, msgspec.DecodeError) as error:
        raise BundleUnreadable(str(error)) from error
    linux, capabilities = config.linux, config.process.capabilities or _Capabilities()
    namespaces = linux.namespaces or []
    if len({each.type for each in namespaces}) != len(namespaces):
        raise BundleUnreadable("a namespace is named twice")
    sets = (
        capabilities.bounding,
        capabilities.effective,
        capabilities.inheritable,
        capabilities.permitted,
        capabilities.ambient,
    )
    return Bundle(
        mounts=tuple(config.mounts or ()),
        cgroup=linux.cgroups_path,
        env=tuple(config.process.env or ()),
        capabilities=frozenset(name for names in sets for name in names or ()),
        hooks=tuple(hook for hooks in (config.hooks or {}).values() for hook in hooks or ()),
        namespaces={each.type: each.path for each in namespaces},
        nodes=tuple(linux.devices or ()),
        device_rules=tuple(linux.resources.devices or ()) if linux.resources else (),
        masked=bool(linux.masked_paths and linux.readonly_paths),
    )


def rewrite(directory: Path, *, sources: Mapping[int, str], hide_devices: bool) -> None:
    """Put pinned sources, by their place among the mounts, into `config.json`; the rest of it stays.

    Args: hide_devices: every NVIDIA_VISIBLE_DEVICES becomes void.
    Raises: BundleUnreadable, OSError.
    """
    path = directory / "config.json"
    try:
        config: dict[str, Any] = msgspec.json.decode(read_trusted(path))
        for place, source in sources.items():
            config["mounts"][place]["source"] = source
        if hide_devices:
            config["process"]["env"] = [_hidden(entry) for entry in config["process"]["env"]]
    except (FileUntrusted, msgspec.DecodeError, LookupError, TypeError) as error:
        raise BundleUnreadable(str(error)) from error
    write_atomic(path, msgspec.json.encode(config), mode=path.stat().st_mode & 0o777, durable=False)


def _hidden(entry: str) -> str:
    return f"{VISIBLE}=void" if entry.partition("=")[0] == VISIBLE else entry
