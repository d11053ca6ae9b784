"""Paths as text: cleaning, and the host and container paths that nobody gets. Looking at disks is the proxy's."""

from __future__ import annotations

import posixpath

# SECURITY: each of these is, holds or leads to root on the host, the engine, or a GPU without a lease.
FORBIDDEN_TREES: tuple[str, ...] = (
    "/etc",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var/run",
    "/boot",
    "/root",
    "/var/lib/docker",
    "/var/lib/containerd",
    "/var/lib/ds01",
    "/var/log/ds01",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
)
FORBIDDEN_TARGETS: tuple[str, ...] = (
    "/proc",
    "/sys",
    "/dev",
    "/run/nvidia-container-devices",
    "/var/run/nvidia-container-devices",  # SECURITY: a mount here is a device request to the NVIDIA toolkit
)
TARGET_EXCEPTIONS: tuple[str, ...] = ("/dev/shm",)  # noqa: S108  a container's own, bounded by its memory
DOCKER_SOCKETS: frozenset[str] = frozenset({"/var/run/docker.sock", "/run/docker.sock"})


def clean_path(text: str) -> str | None:
    """The path as dockerd cleans it, or None if it is not absolute or holds control characters."""
    if not text.startswith("/") or any(ord(char) < 0x20 or ord(char) == 0x7F for char in text):
        return None
    return "/" + posixpath.normpath(text).lstrip("/")


def is_under(path: str, tree: str) -> bool:
    """Whether a clean path is `tree` or lies below it."""
    return path == tree or path.startswith(tree.rstrip("/") + "/")


def is_forbidden_source(path: str) -> bool:
    """Whether a clean host path may never be mounted, whatever policy says."""
    above = any(is_under(tree, path) for tree in FORBIDDEN_TREES)  # SECURITY: /var holds /var/lib/docker
    return path == "/" or above or any(is_under(path, tree) for tree in FORBIDDEN_TREES)


def is_forbidden_target(path: str) -> bool:
    """Whether nothing may be mounted at this clean path of a container."""
    if any(is_under(path, tree) for tree in TARGET_EXCEPTIONS):
        return False
    return path == "/" or any(is_under(path, tree) for tree in FORBIDDEN_TARGETS)
