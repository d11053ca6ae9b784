"""Everything a measurement runs against: private dockerds, HAProxy, ds01's daemons. All ended by pid.

`direct`, `haproxy` and `ds01` share one dockerd without the plugin; `plugin` is ds01 before a second one that asks it. What comes
through ds01 runs behind the guard, what comes directly under plain runc.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from docker import APIClient

from host.tree import Tree
from lab import guard
from policy.model import GUARDED_RUNTIME

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

REPOSITORY = Path(__file__).resolve().parent.parent
USER = "nobody"  # an ordinary account (uid 65534) that every Linux has
IMAGE = "busybox:latest"
START_SECONDS = 40.0
_POLICY = f"""
version: 1
system_accounts: [{USER}]
defaults:
  role: user
  limits: {{containers: 5000, connections: 5000}}
  allow: {{binds: [{{path: DATA, setuid_ok: true}}]}}
"""
_PLUGIN = "ds01"
# /run/docker is where dockerd looks for plugins and keeps state: a fresh one for each, in a mount namespace of its own.
_START = """
mount --make-rprivate / && mkdir -p /run/docker && mount -t tmpfs tmpfs /run/docker && mkdir -p /run/docker/plugins
ln -s "$2" /run/docker/plugins/ds01.sock
ip link set lo up
exec dockerd --config-file "$1"
"""


class Stack:
    """Processes and sockets below one directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._processes: list[subprocess.Popen[bytes]] = []
        self.pids: dict[str, int] = {}
        self.data = root / "data"  # what containers mount
        plain, guarded = root / "plain", root / "guarded"
        self.sockets = {
            "direct": plain / "run" / "engine.sock",
            "haproxy": root / "haproxy.sock",
            "ds01": plain / "run" / "users" / USER / "docker.sock",
            "plugin": guarded / "run" / "users" / USER / "docker.sock",
        }

    def start(self) -> None:
        """Start everything and wait until each variant answers a ping."""
        self.data.mkdir()
        shutil.chown(self.data, USER)
        for name in ("plain", "guarded"):
            self._write_tree(self.root / name, plugin=name == "guarded")
            guard.build(_runtime(self.root / name), Tree.under(self.root / name))
            self._daemon(f"guard-{name}", "runtime.app", self.root / name)
            _wait_for(Tree.under(self.root / name).guard_socket)
        # The proxy makes keys at its first start, and the plugin reads them; both wait for dockerd.
        self._daemon("ds01", "socket_proxy.app", self.root / "plain")
        self._daemon("plugin", "socket_proxy.app", self.root / "guarded")
        _wait_for(self.root / "guarded" / "lib" / "engine-id")
        self._daemon("authz", "authz_plugin.app", self.root / "guarded")
        _wait_for(self.root / "guarded" / "run" / "authz.sock")
        self._engine("plain")
        self._engine("guarded")
        self._haproxy()
        for path in self.sockets.values():
            _wait_for_ping(path)
        for name in ("direct", "plugin"):
            _load_image(self.sockets[name])

    def stop(self) -> None:
        """End what was started, last first, and unmount what a dockerd left."""
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self, name: str, command: Sequence[str]) -> None:
        with (self.root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)
        self._processes.append(process)
        self.pids[name] = process.pid

    def _write_tree(self, tree: Path, *, plugin: bool) -> None:
        for branch in ("run", "etc", "lib", "log", "docker"):
            (tree / branch).mkdir(parents=True)
        (tree / "etc" / "policy.yaml").write_text(_POLICY.replace("DATA", str(self.data)))
        settings = {"users": [USER], "plugin_required": plugin, "connections_per_user": 4000}
        (tree / "etc" / "daemon.yaml").write_text(json.dumps(settings))
        engine = {
            "hosts": [f"unix://{tree}/run/engine.sock"],
            "data-root": f"{tree}/docker/data",
            "exec-root": f"{tree}/docker/exec",
            "pidfile": f"{tree}/docker/pid",
            "bridge": "none",
            "iptables": False,
            "ip6tables": False,
            "log-level": "warn",
            "authorization-plugins": [_PLUGIN] if plugin else [],
            "runtimes": {GUARDED_RUNTIME: {"path": str(_runtime(tree))}},
        }
        (tree / "etc" / "engine.json").write_text(json.dumps(engine))

    def _daemon(self, name: str, module: str, tree: Path) -> None:
        self._run(name, [sys.executable, "-m", module, "--root", str(tree)])

    def _engine(self, name: str) -> None:
        tree = self.root / name
        arguments = [str(tree / "etc" / "engine.json"), str(tree / "run" / "authz.sock")]
        self._run(f"engine-{name}", ["unshare", "--net", "--mount", "sh", "-c", _START, "start", *arguments])

    def _haproxy(self) -> None:
        program = shutil.which("haproxy")
        if program is None:
            raise SystemExit("bench: haproxy is not installed, and it is what ds01 is measured against")
        config = self.root / "haproxy.cfg"
        config.write_text(
            "global\n  nbthread 1\n  maxconn 6000\n"
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n"
            f"frontend f\n  bind unix@{self.sockets['haproxy']}\n  default_backend b\n"
            f"backend b\n  http-reuse always\n  server s unix@{self.sockets['direct']}\n"
        )
        self._run("haproxy", [program, "-q", "-db", "-f", str(config)])


@contextlib.contextmanager
def running(root: Path) -> Iterator[Stack]:
    """A started stack below `root`, gone afterwards."""
    stack = Stack(root)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()


def client(path: Path) -> APIClient:
    """Docker's own SDK on one variant."""
    return APIClient(base_url=f"unix://{path}", version="1.41", timeout=60)


def _runtime(tree: Path) -> Path:
    return tree / "lib" / "guard" / "ds01-runtime"


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if time.monotonic() > deadline:
            raise SystemExit(
                f"bench: {path} did not appear within {START_SECONDS:g} s; see {path.parents[1]}.log"
            )
        time.sleep(0.02)


def _wait_for_ping(path: Path) -> None:
    _wait_for(path)
    deadline = time.monotonic() + START_SECONDS
    answer = b""
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(path))
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
            answer = connection.recv(4096)
            if answer.startswith(b"HTTP/1.1 200"):
                return
        time.sleep(0.1)
    raise SystemExit(f"bench: {path} does not answer a ping: {answer[:300]!r}")


def _load_image(path: Path) -> None:
    """Import a tar with nothing but busybox: a benchmark needs no registry."""
    program = shutil.which("busybox")
    if program is None:
        raise SystemExit("bench: busybox is not installed (Debian: busybox-static)")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(program, "bin/busybox")
        for name in ("sh", "cat", "dd", "true", "yes", "head", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    repository, _, tag = IMAGE.partition(":")
    with contextlib.closing(client(path)) as docker:
        docker.import_image_from_data(archive.getvalue(), repository=repository, tag=tag)


def resident_kib(pid: int) -> int:
    """Resident memory of a process, in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ProcessLookupError(pid)


def cpu_ms(pid: int) -> float:
    """Processor time of a process so far, which other work on the machine does not lengthen."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def end(pid: int) -> None:
    """Ask one process to stop."""
    os.kill(pid, signal.SIGTERM)
