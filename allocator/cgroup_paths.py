"""What the paths of `/proc/<pid>/cgroup` say by their form alone. Pure.

A form is a hint and never a proof: whoever may make a cgroup may give it any name. `allocator.attribution` decides
what counts. SOURCE: cgroups(7); moby v28 daemon/oci_linux.go; containerd cri; podman libpod; BuildKit executor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from policy.model import ContainerId, Uid

_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_STEP = re.compile(r"[a-z0-9]{25}")  # SOURCE: buildkit/identity.NewID: 25 digits of base 36
_STEP_SCOPE = re.compile(r"(?:docker|buildkit)-([a-z0-9]{25})\.scope")
_USER_SLICE = re.compile(r"/user\.slice/user-([0-9]{1,10})\.slice(?=/|$)")
_USER_MANAGER = re.compile(r"user@[0-9]+\.service")
# SECURITY: from the root of the hierarchy, where only root makes cgroups.
_OWN_PARENT = re.compile(r"/ds01(?:/|\.slice/ds01-)([0-9]{1,10})(?:\.slice)?(?=/|$)")


class Engine(StrEnum):
    """What runs a container, as far as a path tells."""

    DOCKER = "docker"
    CRI = "cri"  # Kubernetes, by containerd or CRI-O
    NERDCTL = "nerdctl"
    PODMAN = "podman"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A container, or a build step, as a path names it.

    by_user: the name stands below what a user's own service manager makes: that user chose it.
    """

    engine: Engine
    id: ContainerId
    by_user: bool


def paths(text: str) -> tuple[str, ...]:
    """The distinct paths of a `/proc/<pid>/cgroup`, in its order; a path may hold colons.

    On cgroup v1 a controller that is not mounted reads "/", whatever the process is in.
    """
    return tuple(dict.fromkeys(line.split(":", 2)[-1] for line in text.splitlines() if line.count(":") >= 2))


def is_foreign_view(path: str) -> bool:
    """Whether the reader's cgroup namespace does not reach the process: the path begins above its root."""
    return path == "/.." or path.startswith("/../")


def container_in(path: str) -> Named | None:
    """The outermost container that a path names; a container in a container (DinD) is the outer one."""
    for above, before, part in _walk(path):
        found = _ID.search(part)
        if found:
            return Named(
                engine=_engine(part, before),
                id=ContainerId(found[0]),
                by_user=_is_users(above),
            )
    return None


def cgroup_of(path: str, container: ContainerId) -> str | None:
    """The path down to the part that names this container; None where none does or a user's manager made it."""
    for above, _, part in _walk(path):
        if _USER_MANAGER.fullmatch(part):
            return None
        if container in _ID.findall(part):
            return f"{above}/{part}"
    return None


def _walk(path: str) -> Iterator[tuple[str, str, str]]:
    """Each part of a path, with all above it and with the part before it."""
    above = before = ""
    for part in path.removeprefix("/").split("/"):
        yield above, before, part
        above, before = f"{above}/{part}", part


def _is_users(above: str) -> bool:
    """Whether a user may have made what lies below: user.slice, or a user's service manager anywhere."""
    parts = above.split("/")
    return parts[1:2] == ["user.slice"] or any(map(_USER_MANAGER.fullmatch, parts))


def _engine(part: str, before: str) -> Engine:
    if "libpod" in part:
        return Engine.PODMAN
    if part.startswith("nerdctl-"):
        return Engine.NERDCTL
    if "cri-containerd" in part or part.startswith("crio-") or before.startswith(("pod", "kubepods")):
        return Engine.CRI
    if part.startswith("docker-") or before == "docker":
        return Engine.DOCKER
    return Engine.UNKNOWN


def build_step_in(path: str) -> str | None:
    """The id of a BuildKit step of root's engine, or None: it runs in no container, and its id has 25 characters."""
    for above, before, part in _walk(path):
        if _ID.search(part) or _is_users(above):
            return None
        found = _STEP_SCOPE.fullmatch(part)
        if found or (before in ("buildkit", "build") and _STEP.fullmatch(part)):
            return found[1] if found else part
    return None


def own_parent(path: str) -> Uid | None:
    """Whose containers and builds ds01 has put here; None outside ds01's cgroups."""
    found = _OWN_PARENT.match(path)
    return Uid(int(found[1])) if found else None


def user_slice(path: str) -> Uid | None:
    """The uid of `/user.slice/user-UID.slice`, from the root only: a container may have a tree of its own."""
    found = _USER_SLICE.match(path)
    return Uid(int(found[1])) if found else None


def unit_in(path: str) -> str:
    """The outermost systemd service or scope; empty when there is none."""
    return next((part for part in path.split("/") if part.endswith((".service", ".scope"))), "")
