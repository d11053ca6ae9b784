"""Which device files the sessions of people may open: systemd's device policy on their slices, as text and arguments. Pure.

INVARIANT: nothing here names a device of NVIDIA's unless it was granted. SOURCE: systemd.resource-control(5), DeviceAllow;
ADR 0021; tried on systemd 252 with cgroup v1 and v2 (tests/integration/test_host_gpu_access.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from allocator.holders import characters, majors
from policy.model import Uid

# `systemctl set-property` writes 50-DeviceAllow.conf, and drop-ins are read in the order of their names over all
# directories: a base that came after it would take every grant back.
BASE_NAME = "40-ds01-gpu.conf"
FREE_NAME = "60-ds01-gpu.conf"
SERVICES = ("atd", "cron", "crond")
_SET = ("systemctl", "set-property", "--runtime")
# Everything by name, and not "no list": tried on systemd 252 with cgroup v2, the last slice that loses its list keeps the
# program that the kernel had for it, and stays closed.
_FREE = ("DevicePolicy=auto", "DeviceAllow=", "DeviceAllow=char-* rwm", "DeviceAllow=block-* rwm")
_NAME = re.compile(r"[A-Za-z0-9_./-]+")
_HEAD = (
    "# Written by ds01: sessions may open every device but NVIDIA's. docs/decisions/0021-host-gpu-access.md\n"
)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Node:
    """A device file, or all of a driver (`char-nvidia`), and how it may be opened: r, w or rw."""

    name: str
    access: str = "rw"

    def __str__(self) -> str:
        return f"{self.name} {self.access}"


def base(devices: str) -> tuple[Node, ...]:
    """Everything but NVIDIA's, from the text of /proc/devices, in its order; block devices as a whole.

    A name that is a path (`/dev/tty`) is allowed by that path. A driver that is loaded later is not in it: write the
    drop-ins anew then.
    """
    forbidden = majors(devices).keys()
    known = [(major, name) for major, name in characters(devices) if major not in forbidden]
    plain = {major for major, name in known if not name.startswith("/")}
    found = [
        Node(name=name if name.startswith("/") else f"char-{name}")
        for major, name in known
        if _NAME.fullmatch(name) and not (name.startswith("/") and major in plain)
    ]
    return tuple(dict.fromkeys((*found, Node(name="block-*"))))


def drivers(devices: str) -> tuple[Node, ...]:
    """All of NVIDIA's, whichever there are: a grant of every GPU."""
    return tuple(
        Node(name=f"char-{name}") for name in dict.fromkeys(majors(devices).values()) if _NAME.fullmatch(name)
    )


def gpu_nodes(minors: Iterable[int], capabilities: Iterable[int] = ()) -> tuple[Node, ...]:
    """The files of some GPUs, by N of /dev/nvidiaN, and of MIG devices, by N of nvidia-capN (GPU and compute instance)."""
    common = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
    return (
        *(Node(name=name) for name in common),
        *(Node(name=f"/dev/nvidia{minor}") for minor in sorted(set(minors))),
        *(
            Node(name=f"/dev/nvidia-caps/nvidia-cap{number}", access="r")
            for number in sorted(set(capabilities))
        ),
    )


def drop_ins(
    allowed: Sequence[Node], *, free: Collection[Uid], services: Sequence[str] = SERVICES
) -> Mapping[str, str]:
    """Unit drop-ins by their path below /etc/systemd/system.

    Args: free: whose slices stay without a policy: root, and admins, whose sudo stays in their own slice.
        services: what runs people's programs outside user.slice, without `.service`.
    """
    files = {f"user-.slice.d/{BASE_NAME}": _drop_in("Slice", allowed)}
    for service in services:
        files[f"{service}.service.d/{BASE_NAME}"] = _drop_in("Service", allowed)
    for uid in sorted({Uid(0), *free}):
        files[f"user-{uid}.slice.d/{FREE_NAME}"] = _HEAD + "\n".join(("[Slice]", *_FREE)) + "\n"
    return files


def _drop_in(section: str, allowed: Sequence[Node]) -> str:
    lines = [
        f"[{section}]",
        "DevicePolicy=closed",
        "DeviceAllow=",
        *(f"DeviceAllow={node}" for node in allowed),
    ]
    return _HEAD + "\n".join(lines) + "\n"


def set_property(uid: Uid, allowed: Sequence[Node], granted: Sequence[Node] = ()) -> tuple[str, ...]:
    """The systemctl command that lets one user's slice open these, now and until the next boot; without `granted`, that ends it.

    The whole list: an assignment adds to what was there, an empty one takes all away. Live: no unit is restarted, nobody
    has to log in again, and nothing is reloaded, which would take GPUs from containers of a systemd-driven engine. What is open
    stays open.
    """
    nodes = dict.fromkeys((*allowed, *granted))
    return (
        *_SET,
        f"user-{uid}.slice",
        "DevicePolicy=closed",
        "DeviceAllow=",
        *(f"DeviceAllow={node}" for node in nodes),
    )


def free_property(uid: Uid) -> tuple[str, ...]:
    """The systemctl command that lets one user's slice open everything, until the next boot."""
    return (*_SET, f"user-{uid}.slice", *_FREE)
