"""Where a lab's files are, who owns them, and which of them others may reach.

Two places hold everything: the directory given with --root, and `/run/ds01-lab-<id>` for what dies with the lab.
The id is taken from the root's path, so labs with different roots never meet.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from host.tree import Tree

AUTHZ_UID = 61202
ALLOCATOR_UID = 61203
CODE = Path(__file__).resolve().parent.parent
_SOCKET_PATH_BYTES = 107  # SOURCE: unix(7), sun_path with its final zero
_LONGEST_SOCKET = "run/users/" + 32 * "x" + "/docker.sock"
_OTHERS_MAY_PASS = stat.S_IXOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class LabTree:
    """Paths of one lab. `root` is what was asked for, `seen` is the same directory as every process is told of it."""

    root: Path
    seen: Path

    @classmethod
    def at(cls, root: Path) -> LabTree:
        """The lab of `root`. Users and the daemons' accounts must get there, and socket addresses are short:
        where `root` itself will not do, it is seen through a mount below /run.
        """
        root = root.resolve()
        fits = len(os.fsencode(root / _LONGEST_SOCKET)) <= _SOCKET_PATH_BYTES
        tree = cls(root=root, seen=root)
        return tree if fits and reachable(root.parent) else cls(root=root, seen=tree.short / "tree")

    @property
    def base(self) -> Tree:
        """The paths every daemon knows."""
        return Tree.under(self.seen)

    @property
    def id(self) -> str:
        return hashlib.sha256(os.fsencode(self.root)).hexdigest()[:8]

    @property
    def short(self) -> Path:
        return Path("/run") / f"ds01-lab-{self.id}"

    @property
    def lock(self) -> Path:
        """Held by the supervisor while it lives; its process id is inside."""
        return self.short / "lock"

    @property
    def code_view(self) -> Path:
        return self.short / "code"

    @property
    def exec_root(self) -> Path:
        return self.short / "x"

    @property
    def netns(self) -> str:
        return f"ds01-{self.id}"

    @property
    def link(self) -> str:
        return f"ds01v{self.id}"

    @property
    def cgroup(self) -> str:
        return f"ds01-lab-{self.id}"

    @property
    def pids(self) -> Path:
        return self.root / "run" / "pids"

    @property
    def engine_pid(self) -> Path:
        """The pid file of dockerd itself, apart from the supervisor's."""
        return self.short / "dockerd.pid"

    @property
    def engine_settings(self) -> Path:
        return self.seen / "etc" / "daemon.json"

    @property
    def engine_etc(self) -> Path:
        """What dockerd sees as /etc/docker: its plugin's address, its trust key."""
        return self.seen / "etc" / "docker"

    @property
    def engine_root(self) -> Path:
        """Where the root directory of a dockerd of another system is put together."""
        return self.short / "root"

    @property
    def cdi(self) -> Path:
        """What dockerd sees as /etc/cdi; absent when the machine's own GPUs are used."""
        return self.seen / "etc" / "cdi"

    @property
    def data_root(self) -> Path:
        return self.seen / "lib" / "docker"

    @property
    def hook(self) -> Path:
        """Programs that come first on dockerd's PATH."""
        return self.seen / "lib" / "hook"

    @property
    def guarded_runtime(self) -> Path:
        """The program that dockerd runs in runc's place."""
        return self.seen / "lib" / "guard" / "ds01-runtime"

    @property
    def nvml(self) -> Path:
        return self.seen / "lib" / "nvml"

    @property
    def created_accounts(self) -> Path:
        return self.root / "lib" / "created-accounts"

    @property
    def created_paths(self) -> Path:
        """Host directories that labs had to make outside their own places; one record for all labs."""
        return Path("/run/ds01-labs-created")

    @property
    def claim(self) -> Path:
        """The root and the users of this lab, for other labs to see while it is up."""
        return self.short / "claim"

    @property
    def env(self) -> Path:
        return self.root / "env"

    @property
    def bin(self) -> Path:
        return self.seen / "bin"

    def log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"


def prepare(tree: LabTree) -> None:
    """Make every directory with its owner and mode; repeatable.

    SECURITY: users pass through run and lib but list nothing there; what the proxy and the allocator keep, and all
    logs (they name who did what), is closed to them.
    """
    for path, mode, owner in (
        ("", 0o755, 0),
        ("run", 0o755, 0),
        ("run/users", 0o711, 0),
        ("run/pids", 0o755, 0),
        ("etc", 0o755, 0),
        ("etc/docker", 0o755, 0),
        ("etc/docker/plugins", 0o755, 0),
        ("lib", 0o711, 0),
        ("lib/proxy", 0o700, 0),
        ("lib/allocator", 0o700, ALLOCATOR_UID),
        ("lib/hook", 0o755, 0),
        ("lib/guard", 0o755, 0),
        ("lib/approvals", 0o700, 0),
        ("lib/lifecycle", 0o700, 0),
        ("lib/sources", 0o700, 0),
        ("log", 0o700, 0),
        ("bin", 0o755, 0),
    ):
        directory = tree.root / path
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, owner, owner)
        directory.chmod(mode)


def reachable(path: Path) -> bool:
    """True if any account may pass through `path` and all above it."""
    return all(above.stat().st_mode & _OTHERS_MAY_PASS for above in (path, *path.parents) if above.exists())
