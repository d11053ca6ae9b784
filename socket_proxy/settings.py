"""The proxy's settings: flags and `etc/daemon.yaml`, one table for both (the file wins over a default, a flag over the file)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from host.daemon_file import BLOCKS
from host.tree import Tree


class SettingsInvalid(Exception):  # noqa: N818  names the state, for whoever must mend it
    """`daemon.yaml` is wrong; the text says where and what to write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """Keys of `daemon.yaml`. Every one has a default, so an empty file is fine.

    users: login names that get a socket of their own.
    engine_socket: dockerd's socket, when it is not the tree's own.
    plugin_required: close the doors while the AuthZ plugin is not in dockerd's path.
    connections: open connections per listening socket.
    connections_per_user: open connections of one uid on one listening socket.
    metrics_port: where Prometheus finds /metrics on 127.0.0.1; 0 means nowhere.
    gpu_path: how grants are written, `hook`, `cdi` or `auto` (by the engine's version and features).
    """

    users: tuple[str, ...] = ()
    engine_socket: str = ""
    plugin_required: bool = True
    connections: int = 4096
    connections_per_user: int = 512
    metrics_port: int = 0
    gpu_path: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the proxy is started with."""

    tree: Tree
    daemon: DaemonSettings

    @property
    def engine_socket(self) -> Path:
        return Path(self.daemon.engine_socket) if self.daemon.engine_socket else self.tree.engine_socket


def parse(arguments: Sequence[str] | None) -> Settings:
    """Read flags and the file they point to. Raises: SettingsInvalid, SystemExit (argparse)."""
    parser = argparse.ArgumentParser(
        prog="ds01-proxy", description="ds01's filtering proxy in front of dockerd."
    )
    parser.add_argument(
        "--root", type=Path, help="keep run/, etc/, lib/ and log/ below this directory (the lab)"
    )
    options = parser.parse_args(arguments)
    tree = Tree.under(options.root) if options.root else Tree.production()
    return Settings(tree=tree, daemon=load(tree.daemon_settings))


def load(path: Path) -> DaemonSettings:
    """Read `daemon.yaml`; a missing file means defaults. Raises: SettingsInvalid."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return DaemonSettings()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"{path}: {error}") from error
    if document is None:
        return DaemonSettings()
    if not isinstance(document, dict):
        raise SettingsInvalid(f"{path}: expected keys and values, such as users: [alice, bob]")
    defaults = DaemonSettings()
    known = {field.name for field in fields(DaemonSettings)}
    given: dict[str, Any] = {}
    for key, value in document.items():
        if key in BLOCKS:  # said to other daemons
            continue
        if key not in known:
            raise SettingsInvalid(f"{path}: unknown key {key}; known are {', '.join(sorted(known))}")
        given[key] = _checked(path, key, value, getattr(defaults, key))
    return replace(defaults, **given)


def _checked(path: Path, key: str, value: object, default: object) -> object:
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise SettingsInvalid(f"{path}: {key} must be a list of names")
    if type(value) is not type(default):
        raise SettingsInvalid(f"{path}: {key} must be of the kind {type(default).__name__}, not {value!r}")
    return value
