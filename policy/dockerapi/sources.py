"""Bind sources under other names: a path that leads elsewhere as what it leads to, and host paths as their stand-ins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from policy.dockerapi.model import Request
from policy.model import Json, Uid
from policy.stand_ins import StandIn, StandIns

Rename = Callable[[str, bool], str]
"""The new name of a host path that is mounted read-only or not."""


def with_sources(request: Request, real: Mapping[str, str]) -> Request:
    """The same create with every host path of `HostConfig.Binds` and `HostConfig.Mounts` that `real` names replaced."""
    return _renamed(request, lambda source, _: real.get(source, source))


def with_stand_ins(request: Request, stand_ins: StandIns, *, uid: Uid, user_socket: str) -> Request:
    """The create as dockerd may see it: a stand-in for every host path, which is real and clean.

    The user's own socket stays: it lies where nobody but root can change names.
    """

    def stand_in(source: str, read_only: bool) -> str:  # noqa: FBT001  a Rename
        if source == user_socket:
            return source
        return stand_ins.path(StandIn(source=source, uid=uid, read_only=read_only))

    return _renamed(request, stand_in)


def without_stand_ins(request: Request, stand_ins: StandIns) -> Request:
    """The create as it was judged: every stand-in is again the path it stands for."""
    return _renamed(request, lambda source, _: stand_ins.source(source))


def host_paths(request: Request) -> tuple[str, ...]:
    """The host paths of a create, in order."""
    found: list[str] = []

    def note(source: str, _: bool) -> str:  # noqa: FBT001  a Rename
        found.append(source)
        return source

    _renamed(request, note)
    return tuple(found)


def _renamed(request: Request, rename: Rename) -> Request:
    host = (request.body or {}).get("HostConfig")
    if not isinstance(host, dict):
        return request
    shown: dict[str, Json] = dict(host)
    binds, mounts = host.get("Binds"), host.get("Mounts")
    if isinstance(binds, list):
        shown["Binds"] = [_bind(item, rename) for item in binds]
    if isinstance(mounts, list):
        shown["Mounts"] = [_mount(item, rename) for item in mounts]
    return replace(request, body={**(request.body or {}), "HostConfig": shown})


def _bind(item: Json, rename: Rename) -> Json:
    """A source is what stands before a colon: without one, it is the target of an anonymous volume."""
    if not isinstance(item, str) or not item.startswith("/") or ":" not in item:
        return item
    source, _, rest = item.partition(":")
    options = rest.partition(":")[2].split(",")
    return f"{rename(source, 'ro' in options)}:{rest}"


def _mount(item: Json, rename: Rename) -> Json:
    if not isinstance(item, dict) or item.get("Type") != "bind":
        return item
    source = item.get("Source")
    return (
        {**item, "Source": rename(source, item.get("ReadOnly") is True)} if isinstance(source, str) else item
    )
