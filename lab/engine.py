"""The lab's own dockerd, in a network and a mount namespace of its own."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from host.files import write_atomic
from lab import network
from lab.processes import Daemon

if TYPE_CHECKING:
    from lab.tree import LabTree

PLUGIN = "ds01-authz"
_SHUTDOWN_SECONDS = 5
# dockerd looks for plugins in /run/docker and /etc/docker, and containerd's shims listen in /run/containerd, whatever
# the settings say; here all three are the lab's own.
_ENTER = """
mount -t tmpfs -o mode=0755 ds01-lab /run/docker
mount -t tmpfs -o mode=0711 ds01-lab /run/containerd
mount --bind "$1" /etc/docker
shift
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What dockerd is started with.

    plugin: put ds01's AuthZ plugin into its path.
    program: another dockerd.
    """

    plugin: bool
    program: Path | None = None


def settings(tree: LabTree, parts: EngineParts, *, systemd: bool, storage_driver: str) -> dict[str, object]:
    """The content of daemon.json.

    SECURITY: the plugin is named here and never by a flag: SIGHUP silently drops one named by a flag.
    """
    plugins = {"authorization-plugins": [PLUGIN]} if parts.plugin else {}
    return plugins | {
        "hosts": [f"unix://{tree.base.engine_socket}"],
        "data-root": str(tree.data_root),
        "exec-root": str(tree.exec_root),
        "pidfile": str(tree.engine_pid),
        "group": "root",
        "bip": network.BRIDGE_ADDRESS,
        "default-address-pools": [{"base": network.BRIDGE_POOL, "size": 26}],
        "icc": False,
        "storage-driver": storage_driver,
        "exec-opts": [f"native.cgroupdriver={'systemd' if systemd else 'cgroupfs'}"],
        "cgroup-parent": f"{tree.cgroup}.slice" if systemd else f"/{tree.cgroup}",
        "log-driver": "json-file",
        "log-opts": {"max-size": "10m", "max-file": "3"},
        "live-restore": False,
        "shutdown-timeout": _SHUTDOWN_SECONDS,
        "builder": {"Entitlements": {"network-host": False, "security-insecure": False}},
    }


def configure(tree: LabTree, parts: EngineParts) -> None:
    """Write dockerd's settings and its plugin's address. Raises: OSError."""
    systemd = Path("/run/systemd/system").is_dir() and Path("/sys/fs/cgroup/cgroup.controllers").exists()
    tree.data_root.mkdir(mode=0o710, exist_ok=True)
    written = settings(tree, parts, systemd=systemd, storage_driver=_storage_driver(tree.data_root))
    write_atomic(tree.engine_settings, json.dumps(written, indent=2).encode() + b"\n", mode=0o644)
    spec = tree.engine_etc / "plugins" / f"{PLUGIN}.spec"
    if parts.plugin:
        write_atomic(spec, f"unix://{tree.base.authz_socket}\n".encode(), mode=0o644)
    else:
        spec.unlink(missing_ok=True)


def daemon(tree: LabTree, parts: EngineParts) -> Daemon:
    """The engine as a supervised process.

    Its mount namespace is made anew at each start, by unshare and not by setns, which would leave a chroot. Mounts made
    later on the host (homes) come in; what dockerd mounts does not go out.
    """
    program = str(parts.program or "dockerd")
    beside = [str(parts.program.parent)] if parts.program else []
    path = ":".join([str(tree.hook), *beside, "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
    network_of_its_own = ("nsenter", f"--net={network.NAMES / tree.netns}")
    mounts_of_its_own = ("unshare", "--mount", "--propagation", "slave", "/bin/sh", "-euc", _ENTER, "sh")
    return Daemon(
        name="dockerd",
        command=(
            *network_of_its_own,
            *mounts_of_its_own,
            str(tree.engine_etc),
            program,
            "--config-file",
            str(tree.engine_settings),
        ),
        log=tree.log("dockerd"),
        environment={"PATH": path},
    )


def choose_iptables(tree: LabTree) -> None:
    """Let dockerd find the packet filter that works here under the name it looks for."""
    name = network.iptables(tree)
    for family in ("iptables", "ip6tables"):
        link = tree.hook / family
        link.unlink(missing_ok=True)
        found = shutil.which(name.replace("iptables", family, 1))
        if name != "iptables" and found:
            link.symlink_to(found)


def _storage_driver(data_root: Path) -> str:
    """overlay2 where overlays can be mounted on this file system, else vfs; what is in use already stays."""
    for driver in ("overlay2", "vfs"):
        if (data_root / "image" / driver).is_dir():
            return driver
    with tempfile.TemporaryDirectory(prefix=".try-", dir=data_root) as place:
        for name in ("lower", "upper", "work", "merged"):
            Path(place, name).mkdir()
        options = f"lowerdir={place}/lower,upperdir={place}/upper,workdir={place}/work"
        command = [
            "unshare",
            "--mount",
            "mount",
            "-t",
            "overlay",
            "-o",
            options,
            "overlay",
            f"{place}/merged",
        ]
        works = subprocess.run(command, capture_output=True, check=False).returncode == 0
    return "overlay2" if works else "vfs"
