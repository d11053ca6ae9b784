"""The lab's own dockerd, in a network and a mount namespace of its own."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from host.files import write_atomic
from lab import network
from lab.processes import Daemon
from policy.model import GUARDED_RUNTIME

if TYPE_CHECKING:
    from lab.tree import LabTree

PLUGIN = "ds01-authz"
_SHUTDOWN_SECONDS = 5
# dockerd looks for plugins in /run/docker and /etc/docker and for CDI specs in /etc/cdi, and containerd's shims listen
# in /run/containerd, whatever the settings say; here all of them are the lab's own. $1 is the lab's /etc.
_ENTER = """
etc=$1; shift
mount -t tmpfs -o mode=0755 ds01-lab /run/docker
mount -t tmpfs -o mode=0711 ds01-lab /run/containerd
mkdir -p /etc/docker /etc/cdi  # another system may have neither
mount --bind "$etc/docker" /etc/docker
[ ! -d "$etc/cdi" ] || mount --bind "$etc/cdi" /etc/cdi
exec "$@"
"""
# The same for a dockerd of another system: programs, libraries and settings are that system's ($2), everything else
# is this machine's, so that a path means the same to both. They meet in $1; unbindable, or /run would hold itself.
# It must become the root of the mount namespace: in a mere chroot `docker exec` would end up outside, in the host's
# file tree, since it enters the container's namespace and not its root.
_CHANGE_ROOT = """
meet=$1 system=$2; shift 2
mount -t tmpfs -o mode=0755 ds01-lab "$meet"
mount --make-unbindable "$meet"
take() {
    if [ -L "$1" ]; then
        cp -P "$1" "$meet/"
    elif [ -d "$1" ]; then
        mkdir "$meet/${1##*/}"
        mount --rbind "$1" "$meet/${1##*/}"
    fi
}
for path in /*; do
    case ${path##*/} in bin | sbin | lib* | usr | etc) ;; *) take "$path" ;; esac
done
for path in "$system"/*; do
    case ${path##*/} in bin | sbin | lib* | usr | etc) take "$path" ;; esac
done
cd "$meet"
pivot_root . .
umount -l .
exec "$@"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What dockerd is started with.

    ds01: put ds01's AuthZ plugin into the path of its API, and ds01's guard into that of its container starts.
    program: another dockerd; one that lies in the root of another system is run with that system's programs.
    """

    ds01: bool
    program: Path | None = None

    @property
    def system(self) -> Path | None:
        """The root of the system `program` belongs to, None if that is this machine's own."""
        above = self.program.parents[:-1] if self.program else ()
        return next((path for path in above if (path / "etc" / "os-release").exists()), None)


def version(parts: EngineParts) -> str:
    """What the program calls itself, "20.10.24"; "" when it does not say."""
    system, program = parts.system, parts.program or Path("dockerd")
    command = ["chroot", str(system), f"/{program.relative_to(system)}"] if system else [str(program)]
    try:
        said = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""
    found = re.search(r"version ([0-9][^\s,]*)", said)
    return found[1] if found else ""


def settings(tree: LabTree, parts: EngineParts, *, systemd: bool, storage_driver: str) -> dict[str, object]:
    """The content of daemon.json.

    SECURITY: the plugin is named here and never by a flag: SIGHUP silently drops one named by a flag.
    """
    ours: dict[str, object] = {}
    if parts.ds01:
        ours["authorization-plugins"] = [PLUGIN]
        # The default as well: containers that a build makes name no runtime.
        ours["runtimes"] = {GUARDED_RUNTIME: {"path": str(tree.guarded_runtime)}}
        ours["default-runtime"] = GUARDED_RUNTIME
    return ours | {
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
    if parts.ds01:
        write_atomic(spec, f"unix://{tree.base.authz_socket}\n".encode(), mode=0o644)
    else:
        spec.unlink(missing_ok=True)


def daemon(tree: LabTree, parts: EngineParts) -> Daemon:
    """The engine as a supervised process.

    Its mount namespace is made anew at each start, by unshare and not by setns, which would leave a chroot. Mounts made
    later on the host (homes) come in; what dockerd mounts does not go out.
    """
    system, program = parts.system, parts.program or Path("dockerd")
    path = [str(tree.hook), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    change_root: tuple[str, ...] = ()
    if system is not None:
        program = Path("/") / program.relative_to(system)
        change_root = ("/bin/sh", "-euc", _CHANGE_ROOT, "sh", str(tree.engine_root), str(system))
    elif parts.program is not None:
        path.insert(1, str(program.parent))
    return Daemon(
        name="dockerd",
        command=(
            *("nsenter", f"--net={network.NAMES / tree.netns}"),
            *("unshare", "--mount", "--propagation", "slave"),
            *change_root,
            *("/bin/sh", "-euc", _ENTER, "sh", str(tree.engine_etc.parent)),
            str(program),
            "--config-file",
            str(tree.engine_settings),
        ),
        log=tree.log("dockerd"),
        environment={"PATH": ":".join(path)},
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
