"""systemd as PID 1 in namespaces of its own: a machine's service manager to try things on, gone with the test.

It boots a target that wants nothing, so that no unit of the distribution touches this machine's kernel settings.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
ROOT = Path(os.environ.get("DS01_SYSTEMD_ROOT", "/var/cache/ds01/systemd"))
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
_SECONDS = 20

_BOOT = """
set -e
mount --bind "$R" "$R"
cd "$R"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%%:*}" c 1 "${node##*:}"; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
if [[ $MODE == v2 ]]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
    for name in $CONTROLLERS; do
        mkdir "sys/fs/cgroup/$name"
        mount -t cgroup -o "$name" cgroup "sys/fs/cgroup/$name"
    done
    mkdir sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd
fi
mkdir -p run/systemd/system run/oldroot
printf '[Unit]\\nDefaultDependencies=no\\n' >run/systemd/system/box.target
pivot_root . run/oldroot
cd /
umount -l /run/oldroot
exec env -i container=box PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=box.target \\
    --log-target=console --log-level=warning --show-status=no
"""


class Box:
    """A booted systemd."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def run(self, *command: str, check: bool = True) -> str:
        """Run a program in the box; its output, errors too."""
        enter = ("nsenter", "-t", str(self.pid), "-m", "-p", "-C", "-u", "-i", "-n", "--")
        done = subprocess.run(
            (*enter, *command), capture_output=True, text=True, timeout=_SECONDS, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{shlex.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def path(self, inside: str) -> Path:
        """A path of the box, seen from here."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def write(self, inside: str, text: str) -> None:
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def missing(mode: str) -> str:
    """Why no box can be booted with this cgroup version here; empty when one can."""
    if os.geteuid() != 0:
        return "needs root"
    if not (ROOT / "lib/systemd/systemd").exists():
        return "needs a root with systemd: sudo script/systemd-root"
    if mode == "v1" and not all((CGROUPS / name).is_dir() for name in (*CONTROLLERS, "systemd")):
        return "needs cgroup v1"
    return "" if _parents(mode) else "needs cgroup v2"


def _parents(mode: str) -> list[Path]:
    """The root of each hierarchy that a box gets a cgroup in."""
    if mode == "v1":
        return [CGROUPS / name for name in (*CONTROLLERS, "systemd")]
    return [path for path in (CGROUPS, CGROUPS / "unified") if (path / "cgroup.controllers").exists()][:1]


@contextmanager
def booted(mode: str, name: str) -> Iterator[Box]:
    """A box on cgroup `v1` or `v2`, below cgroups of this name."""
    cgroups = [parent / name for parent in _parents(mode)]
    for cgroup in cgroups:
        cgroup.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems") if cgroup.parent.name == "cpuset" else ():
            (cgroup / setting).write_text((cgroup.parent / setting).read_text())
    join = " && ".join(f"echo $$ >{shlex.quote(str(cgroup / 'cgroup.procs'))}" for cgroup in cgroups)
    unshare = "exec unshare --mount --pid --cgroup --uts --ipc --net --fork --propagation private bash -c"
    environment = {**os.environ, "R": str(ROOT), "MODE": mode, "CONTROLLERS": " ".join(CONTROLLERS)}
    with subprocess.Popen(
        ("bash", "-c", f"{join} && {unshare} {shlex.quote(_BOOT)}"),
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as parent:
        first = 0
        try:
            first = _first_process(parent)
            box = Box(first)
            _until_up(box, parent)
            yield box
        finally:
            for pid in (first, parent.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid or parent.pid, signal.SIGKILL)
            parent.wait()
            _remove(cgroups)


def _first_process(parent: subprocess.Popen[bytes]) -> int:
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and parent.poll() is None:
        found = children.read_text().split()
        if found:
            return int(found[0])
        time.sleep(0.02)
    raise AssertionError("the box did not begin")


def _until_up(box: Box, parent: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and parent.poll() is None:
        with suppress(OSError):
            is_systemd = Path(f"/proc/{box.pid}/comm").read_text().strip() == "systemd"
            if (
                is_systemd
                and "active" in box.run("systemctl", "is-active", "box.target", check=False).split()
            ):
                return
        time.sleep(0.05)
    raise AssertionError("systemd did not come up in the box")


def _remove(cgroups: list[Path]) -> None:
    """Take the empty cgroups away, the deepest first; what has just been killed may be in them for a moment."""
    for _ in range(100):
        left = [
            path
            for cgroup in cgroups
            if cgroup.exists()
            for path in (*cgroup.rglob("*"), cgroup)
            if path.is_dir()
        ]
        if not left:
            return
        for path in sorted(left, key=lambda one: -len(one.parts)):
            with suppress(OSError):
                path.rmdir()
        time.sleep(0.05)
