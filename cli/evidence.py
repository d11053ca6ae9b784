"""What `ds01 doctor` judges: settings and files of dockerd, sockets, mounts and containers, as they are now.

Reads only. What cannot be read is None, and judged as unknown.
"""

from __future__ import annotations

import grp
import json
import os
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cli.outcome import Failed
from cli.policy_check import check
from cli.server import fetch
from host.files import FileUntrusted, read_trusted
from host.tree import Tree
from policy.document import PolicyInvalid
from policy.grants import BindPath
from socket_proxy.settings import DaemonSettings, SettingsInvalid, load

HOME = "~"
_DEFAULT_SETTINGS = "/etc/docker/daemon.json"
_PLUGIN_SOCKETS = "run/docker/plugins"
_UCRED = struct.Struct("3i")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """Owner and permission bits of a file."""

    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A host path that users may bind mount, and whether its mount is nosuid,nodev. `guarded` None: unknown."""

    path: str
    guarded: bool | None
    setuid_ok: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerd:
    """The daemon behind the engine socket.

    arguments: its command line, without the program.
    settings: daemon.json; None when it cannot be trusted or read, and `problem` says why.
    stale_plugins: plugin sockets that nobody listens on.
    data_root: owner and mode of the directory that holds images and volumes.
    """

    pid: int
    arguments: tuple[str, ...]
    settings_path: str
    settings: Mapping[str, Any] | None = None
    problem: str = ""
    stale_plugins: tuple[str, ...] = ()
    data_root: Owned | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that was found."""

    status: Mapping[str, Any] | None = None
    info: Mapping[str, Any] | None = None
    containers: tuple[Mapping[str, Any], ...] | None = None
    engine_socket: Owned | None = None
    docker_group: tuple[str, ...] = ()
    dockerd: Dockerd | None = None
    places: tuple[Place, ...] | None = None
    policy_problem: str = ""
    audit_free_bytes: int | None = None
    engine_sockets: frozenset[str] = field(default_factory=frozenset)


def gather(tree: Tree) -> Evidence:
    """Look at everything; needs root. Raises nothing: what fails is unknown."""
    try:
        daemon = load(tree.daemon_settings)
    except SettingsInvalid:
        daemon = DaemonSettings()
    engine = Path(daemon.engine_socket) if daemon.engine_socket else tree.engine_socket
    places, problem = _places(tree, daemon)
    info = _ask(tree, "/v1.41/info")
    listed = _ask(tree, "/v1.41/containers/json?all=1")
    dockerd = _dockerd(engine, info)
    return Evidence(
        status=_ask(tree, "/ds01/v1/status"),
        info=info,
        containers=tuple(listed) if isinstance(listed, list) else None,
        engine_socket=_owned(engine),
        docker_group=_members("docker"),
        dockerd=dockerd,
        places=places,
        policy_problem=problem,
        audit_free_bytes=_free(tree.log),
        engine_sockets=frozenset({str(engine), "/run/containerd/containerd.sock"}),
    )


def _ask(tree: Tree, target: str) -> Any:
    """An answer of the proxy's to root, None if there is none."""
    try:
        status, body = fetch(tree.admin_socket, target)
        return json.loads(body) if status == 200 else None
    except (Failed, ValueError):
        return None


def _owned(path: Path) -> Owned | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return Owned(uid=found.st_uid, gid=found.st_gid, mode=found.st_mode & 0o7777)


def _members(group: str) -> tuple[str, ...]:
    """Who is in a group: as a supplementary member, or by the account's own group."""
    try:
        found = grp.getgrnam(group)
    except KeyError:
        return ()
    primary = (account.pw_name for account in pwd.getpwall() if account.pw_gid == found.gr_gid)
    return tuple(sorted({*found.gr_mem, *primary}))


def _dockerd(engine: Path, info: Any) -> Dockerd | None:
    """The process that listens on the engine socket; None when nobody does, or a socket unit holds it."""
    pid = _listener(engine)
    if pid is None:
        return None
    root = Path(f"/proc/{pid}/root")
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return None
    arguments = tuple(os.fsdecode(word) for word in words[1:])
    path = _option(arguments, "--config-file") or _DEFAULT_SETTINGS
    settings, problem = _settings(root / path.removeprefix("/"), path)
    data_root = info.get("DockerRootDir") if isinstance(info, dict) else None
    return Dockerd(
        pid=pid,
        arguments=arguments,
        settings_path=path,
        settings=settings,
        problem=problem,
        stale_plugins=_stale(root / _PLUGIN_SOCKETS),
        data_root=_owned(root / data_root.removeprefix("/")) if isinstance(data_root, str) else None,
    )


def _listener(path: Path) -> int | None:
    """Who made the socket listen. SOURCE: unix(7), SO_PEERCRED of a connected stream socket is set at listen(2)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(2)
        try:
            asked.connect(str(path))
            pid, _, _ = _UCRED.unpack(asked.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
        except OSError:
            return None
    return pid if pid > 1 else None


def _option(arguments: tuple[str, ...], name: str) -> str | None:
    for at, word in enumerate(arguments):
        if word == name and at + 1 < len(arguments):
            return arguments[at + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _settings(path: Path, shown: str) -> tuple[Mapping[str, Any] | None, str]:
    try:
        found = json.loads(read_trusted(path))
    except FileUntrusted as error:
        return None, str(error).replace(str(path), shown)
    except OSError as error:
        return None, f"{shown}: {error.strerror}"
    except ValueError as error:
        return None, f"{shown} is no JSON: {error}"
    return (found, "") if isinstance(found, dict) else (None, f"{shown} is no JSON object")


def _stale(directory: Path) -> tuple[str, ...]:
    stale = []
    for path in sorted(directory.glob("**/*.sock")):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
            asked.settimeout(2)
            try:
                asked.connect(str(path))
            except ConnectionRefusedError:
                stale.append("/" + str(path.relative_to(directory.parents[2])))
            except OSError:
                continue
    return tuple(stale)


def _places(tree: Tree, daemon: DaemonSettings) -> tuple[tuple[Place, ...] | None, str]:
    """Every path the policy permits, "~" as each user's home; None and the reason when the policy cannot be read."""
    try:
        document = check((), tree).document
    except (Failed, PolicyInvalid) as error:
        return None, str(error)
    blocks = (document.defaults, *document.groups.values(), *document.users.values())
    paths = [one for block in blocks for one in block.allow.get("binds", ()) if isinstance(one, BindPath)]
    home_ok = any(one.path == HOME and one.setuid_ok for one in paths)
    homes = (BindPath(path=home, setuid_ok=home_ok) for home in map(_home, daemon.users) if home)
    named = (one for one in paths if one.path != HOME)
    return tuple(
        Place(path=one.path, guarded=_guarded(one.path), setuid_ok=one.setuid_ok) for one in (*homes, *named)
    ), ""


def _home(name: str) -> str | None:
    try:
        return pwd.getpwnam(name).pw_dir
    except KeyError:
        return None


def _guarded(path: str) -> bool | None:
    """Whether a path lies on a mount with nosuid and nodev; what is mounted below it is looked at when it is used."""
    try:
        flags = os.statvfs(path).f_flag
    except OSError:
        return None
    return bool(flags & os.ST_NOSUID) and bool(flags & os.ST_NODEV)


def _free(path: Path) -> int | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize
