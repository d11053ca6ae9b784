"""Who is at the other end of a Unix socket: uid, process, and the container it runs in.

One look per connection. The peer's pid is only a number that may be reused at any time, so a pidfd is held
while `/proc` is read, and what was read counts only if the process was still alive afterwards.
What cannot be told for certain is Place.UNKNOWN, and the caller refuses it.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Protocol

from host.proc import has_ended, is_over, read
from policy.model import ContainerId, Gid, Uid

_SO_PEERPIDFD = 77  # SOURCE: asm-generic/socket.h, Linux 6.5
_CREDENTIALS = struct.Struct("=iII")
_NO_LOGIN_UID = 4294967295
_HEX_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
# SECURITY: below these a user's own service manager makes cgroups, with any name it likes (a user can
# create docker-<somebody's id>.scope there). No container of dockerd lives below them.
_USER_MANAGED = re.compile(r"/user\.slice(/|$)|/user@[0-9]+\.service(/|$)")


class Place(StrEnum):
    """Where a process runs."""

    HOST = "host"  # in this daemon's own pid and user namespace, in no container's cgroup
    CONTAINER = "container"
    UNKNOWN = "unknown"  # gone, unreadable, contradictory, or namespaces of an unknown kind


class HasSocketOptions(Protocol):
    """A socket, or what uvloop gives for one."""

    def getsockopt(self, level: int, option: int, length: int, /) -> bytes:
        """Read a socket option as bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process that called connect(2). A descriptor passed on keeps these.

    pid: 0 when the process is not visible from this daemon's pid namespace; `place` is UNKNOWN then.
    container: set exactly when `place` is CONTAINER.
    login_uid: who logged in, through sudo and su; None when nobody did or the process is unknown.
    """

    pid: int
    uid: Uid
    gid: Gid
    place: Place
    container: ContainerId | None = None
    login_uid: Uid | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """What `/proc` says of one process, true at one moment at which it was alive."""

    place: Place
    container: ContainerId | None = None
    login_uid: Uid | None = None


_NOWHERE = Whereabouts(place=Place.UNKNOWN)


def credentials(connection: HasSocketOptions) -> tuple[int, Uid, Gid]:
    """The peer's pid, uid and gid at connect(2). Raises: OSError: not a connected Unix socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, gid = _CREDENTIALS.unpack(raw)
    return pid, Uid(uid), Gid(gid)


def peer(connection: HasSocketOptions) -> Peer:
    """Look once at who is at the other end. Raises: OSError: not a connected Unix socket."""
    pid, uid, gid = credentials(connection)
    found = _NOWHERE
    pidfd = _peer_pidfd(connection, pid)
    if pidfd is not None:
        try:
            found = _look_held(pid, pidfd)
        finally:
            os.close(pidfd)
    return Peer(
        pid=pid, uid=uid, gid=gid, place=found.place, container=found.container, login_uid=found.login_uid
    )


@contextmanager
def hold_peer(connection: HasSocketOptions) -> Iterator[int]:
    """The peer's pid, and at the end the certainty that it was the peer's all the time. For a listener, who listens.

    Raises: OSError: the process is gone, or not visible from here.
    """
    pid, _, _ = credentials(connection)
    pidfd = _peer_pidfd(connection, pid)
    if pidfd is None:
        raise ProcessLookupError(errno.ESRCH, "the process at the other end cannot be seen")
    try:
        yield pid
        if has_ended(pidfd):
            raise ProcessLookupError(errno.ESRCH, "the process at the other end has ended")
    finally:
        os.close(pidfd)


def look(pid: int) -> Whereabouts:
    """Look at a process by pid; UNKNOWN when it is gone. The caller knows why this pid is the right one."""
    try:
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError):
        return _NOWHERE
    try:
        return _look_held(pid, pidfd)
    finally:
        os.close(pidfd)


def login_uid(pid: int) -> Uid | None:
    """Who logged in to start this process; None when nobody did or it is gone."""
    return look(pid).login_uid


def _peer_pidfd(connection: HasSocketOptions, pid: int) -> int | None:
    if pid <= 0:
        return None
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD, 4)
    except OSError:
        return _open_pidfd(pid)
    descriptor: int = struct.unpack("=i", raw)[0]
    return descriptor


def _open_pidfd(pid: int) -> int | None:
    """A pidfd on a kernel before 6.5.

    SECURITY: the pid may have been reused between connect(2) and now. That window is closed by nothing here
    but its shortness: an attacker must die, and have its pid handed to a process of another kind, before
    accept(2) returns. The uid is not affected: it comes from the socket.
    """
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _look_held(pid: int, pidfd: int) -> Whereabouts:
    """Read `/proc/<pid>` and then make sure that it was this process's all the time."""
    try:
        same_namespaces = _namespaces(pid) == _own_namespaces()
        cgroup = read(f"/proc/{pid}/cgroup")
        person = _login_uid(read(f"/proc/{pid}/loginuid"))
        first_thread_ended = is_over(read(f"/proc/{pid}/stat"))
    except (OSError, ValueError, OverflowError):
        return _NOWHERE
    # INVARIANT: checked last. A process that still runs was not reaped, so its pid was not reused.
    # SECURITY: a container's process may end its first thread and connect from another: then `/proc/<pid>/cgroup`
    # reads "/" on cgroup v1, as if it were on the host, while the pidfd says that it runs.
    if first_thread_ended or has_ended(pidfd):
        return _NOWHERE
    found = containers_in(cgroup)
    if len(found) > 1:
        return Whereabouts(place=Place.UNKNOWN, login_uid=person)
    if found:
        return Whereabouts(place=Place.CONTAINER, container=found[0], login_uid=person)
    return Whereabouts(place=Place.HOST if same_namespaces else Place.UNKNOWN, login_uid=person)


def containers_in(cgroup: str, *, own: frozenset[str] | None = None) -> tuple[ContainerId, ...]:
    """The containers that a `/proc/<pid>/cgroup` names, outermost per line; more than one is a contradiction.

    `/docker/<64 hex>`, `/ds01/1000/<64 hex>` and `...docker-<64 hex>.scope` all count, in any hierarchy.
    own: ids of the container that this daemon itself runs in, which say nothing about a peer.
    """
    ignored = _own_containers() if own is None else own
    found: dict[ContainerId, None] = {}
    for line in cgroup.splitlines():
        path = line.split(":", 2)[-1]
        if _USER_MANAGED.search(path):
            continue
        ids = [text for text in _HEX_ID.findall(path) if text not in ignored]
        if ids:
            found[ContainerId(ids[0])] = None
    return tuple(found)


@cache
def _own_containers() -> frozenset[str]:
    return frozenset(_HEX_ID.findall(read("/proc/self/cgroup")))


@cache
def _own_namespaces() -> tuple[str, str]:
    return _namespaces(os.getpid())


def _namespaces(pid: int) -> tuple[str, str]:
    """The pid and user namespace. Raises: OSError: gone."""
    proc = Path("/proc", str(pid), "ns")
    return str((proc / "pid").readlink()), str((proc / "user").readlink())


def _login_uid(text: str) -> Uid | None:
    uid = int(text)
    return None if uid == _NO_LOGIN_UID else Uid(uid)
