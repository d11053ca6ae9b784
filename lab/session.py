"""One life of a lab: everything brought up in order, kept up, and taken down."""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from host import heartbeat, listener
from host.files import write_atomic
from host.heartbeat import Pulse
from lab import accounts, engine, gpus, guard, images, network, simulate, sweep, unix_http
from lab.processes import Daemon, Supervisor
from lab.settings import Parts
from lab.tree import ALLOCATOR_UID, AUTHZ_UID, CODE, prepare, reachable
from policy.rules.buildkit import can_be_confined

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lab.settings import Settings
    from lab.tree import LabTree

_READY_SECONDS = 60
_ENGINE_STOP_SECONDS = 20


class NotReady(Exception):  # noqa: N818  names the state
    """A daemon did not come up; the text ends with the last lines of its log."""


class Program(NamedTuple):
    """The interpreter and the code as the daemons' accounts reach them."""

    python: Path
    code: Path


class Session:
    """Brings a lab up and takes it down. Use from one thread, as root, with the lab's lock held."""

    def __init__(self, settings: Settings, tree: LabTree) -> None:
        self._settings = settings
        self._tree = tree
        self._supervisor = Supervisor(lab_id=tree.id, pids=tree.pids)
        self.users = settings.users or ()

    def up(self) -> str:
        """Start everything and wait until it answers. Returns: how to use it. Raises: many; then call `down`."""
        tree = self._tree
        prepare(tree)
        for path in map(Path, ("/run/netns", "/run/docker", "/run/containerd", "/etc/docker", "/etc/cdi")):
            sweep.note_created_path(tree, path)
        _show(tree)
        tree.engine_root.mkdir(exist_ok=True)
        pair = network.up(tree)
        program = Program(python=Path(sys.executable), code=CODE)
        machine = gpus.prepare(tree, self._settings.gpus)
        if self._settings.parts is Parts.ALL:
            program = reachable_program(tree)
            self._write_files(program)
            self._start_allocator(program, machine)
            self._start_guard(program)
            self._start_plugin(program)
        self._start_engine()
        if self._settings.parts is Parts.ALL:
            self._start_proxy(program)
            self._wait(
                "allocator", lambda: unix_http.answers(tree.base.allocator_socket, "/v1/health") is not None
            )
            self._wait("proxy", lambda: unix_http.answers(tree.base.admin_socket, "/_ping") == 200)
            self._supervisor.start(_python(tree, program, "lifecycle", uid=None))
            self._wait(
                "lifecycle", lambda: heartbeat.listen(tree.base.lifecycle_beat).pulse is not Pulse.SILENT
            )
        images.ensure_busybox(self._front())
        return self._summary(pair, machine)

    def run(self) -> None:
        """Keep everything up until a signal asks to stop."""
        while not self._supervisor.stopping:
            self._supervisor.step(3600)

    def down(self) -> tuple[str, ...]:
        """End everything. Returns: what could not be removed."""
        for name in ("lifecycle", "proxy", "allocator"):
            self._supervisor.stop(name, timeout_seconds=3)
        sweep.kill_containers(self._tree)
        self._supervisor.stop("dockerd", timeout_seconds=_ENGINE_STOP_SECONDS)
        for name in ("authz", "guard"):
            self._supervisor.stop(name, timeout_seconds=3)
        return leave_nothing(self._tree)

    def _front(self) -> Path:
        """Where root may import an image: only ds01's own socket once the plugin guards the engine."""
        base = self._tree.base
        return base.admin_socket if self._settings.parts is Parts.ALL else base.engine_socket

    def _write_files(self, program: Program) -> None:
        tree = self._tree
        _write_policy(tree.base.policy)
        self.users = _write_daemon_settings(
            tree.base.daemon_settings, self._settings.users, _gpu_settings(tree, program)
        )
        accounts.claim(tree, self.users)
        accounts.ensure(tree, self.users)
        classic = not can_be_confined(engine.version(self._engine_parts))
        write_atomic(tree.env, _env(tree, classic=classic).encode(), mode=0o644)
        write_atomic(tree.bin / "ds01", _wrapper(tree, program).encode(), mode=0o755)

    def _start_allocator(self, program: Program, machine: gpus.Gpus) -> None:
        listening = listener.listen(self._tree.base.allocator_socket, mode=0o666)
        daemon = _python(self._tree, program, "allocator", uid=ALLOCATOR_UID, environment=machine.environment)
        # It ends what policy says may not be on a GPU, whosever that is.
        self._supervisor.start(replace(daemon, listeners={"allocator": listening}, capabilities=("kill",)))

    def _start_guard(self, program: Program) -> None:
        """Before dockerd, which starts containers by itself."""
        guard.build(self._tree.guarded_runtime, self._tree.base)
        listening = listener.listen(self._tree.base.guard_socket, mode=0o600)
        daemon = _python(self._tree, program, "guard", uid=None)
        self._supervisor.start(replace(daemon, listeners={"guard": listening}))

    def _start_plugin(self, program: Program) -> None:
        """Before dockerd: a dockerd that finds no plugin starts its containers and then ends."""
        listening = listener.listen(self._tree.base.authz_socket, mode=0o600)
        daemon = _python(self._tree, program, "authz", uid=AUTHZ_UID)
        self._supervisor.start(replace(daemon, listeners={"authz": listening}))

    @property
    def _engine_parts(self) -> engine.EngineParts:
        return engine.EngineParts(ds01=self._settings.parts is Parts.ALL, program=self._settings.engine)

    def _start_engine(self) -> None:
        tree = self._tree
        parts = self._engine_parts
        engine.configure(tree, parts)
        engine.choose_iptables(tree)
        daemon = engine.daemon(tree, parts)
        self._supervisor.start(daemon, before_restart=lambda: sweep.clear_engine(tree))
        self._wait("dockerd", lambda: unix_http.answers(tree.base.engine_socket, "/_ping") is not None)
        tree.base.engine_socket.chmod(0o600)

    def _start_proxy(self, program: Program) -> None:
        daemon = _python(self._tree, program, "proxy", uid=None)
        self._supervisor.start(replace(daemon, listeners=doors(self._tree, self.users)))

    def _wait(self, name: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while not ready():
            if self._supervisor.stopping or time.monotonic() > deadline:
                log = self._tree.log(name)
                lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
                raise NotReady("\n  ".join([f"{name} does not answer; the end of {log}:", *lines]))
            self._supervisor.step(0.05)

    def _summary(self, pair: network.Pair, machine: gpus.Gpus) -> str:
        tree = self._tree
        if self._settings.parts is Parts.ENGINE_ONLY:
            return f"dockerd is up at {tree.base.engine_socket}, without ds01"
        example = self.users[0] if self.users else "alice"
        sockets = [f"  {name}: {tree.base.user_socket(name)}" for name in self.users] or [
            "  none; name some with --users"
        ]
        return "\n".join(
            [
                f"ds01 is up below {tree.root}: proxy, AuthZ plugin, guard, allocator, lifecycle and a dockerd of its own; {machine.text}",
                f"Front door, for every account: {tree.base.front_door}",
                "Sockets of users:",
                *sockets,
                f"Published ports answer on {pair.inner}",
                f"Try: sudo -u {example} sh -c '. {tree.seen}/env; docker run --rm --gpus 1 busybox env'",
                "End it: script/server --stop"
                + ("" if tree.root == Path(".lab").resolve() else f" --root {tree.root}"),
            ]
        )


def leave_nothing(tree: LabTree) -> tuple[str, ...]:
    """Sweep a lab whose daemons were asked to end, or that crashed, and delete its accounts."""
    left = sweep.sweep(tree)
    return (*left, *(f"account {name}" for name in accounts.remove(tree)))


def reachable_program(tree: LabTree) -> Program:
    """The code where accounts without privileges can read it: in place, or through a read-only mount.

    Raises: NotReady: the interpreter itself is out of their reach.
    """
    python = Path(sys.executable)
    if not reachable(python.resolve().parent):
        raise NotReady(
            f"the accounts of the daemons cannot reach {python.resolve()}; remove .venv and use /usr/bin/python3"
        )
    if reachable(CODE) and reachable(python.parent):
        return Program(python=python, code=CODE)
    if not tree.code_view.exists():
        tree.code_view.mkdir()
        _mount("--bind", str(CODE), str(tree.code_view))
        _mount("-o", "remount,bind,ro,nosuid,nodev", str(tree.code_view))
        if (CODE / ".git").is_dir():  # SECURITY: it may hold credentials of whoever cloned it
            _mount("-t", "tmpfs", "-o", "mode=0700,size=4k", "ds01-lab", str(tree.code_view / ".git"))
    inside = python.relative_to(CODE) if python.is_relative_to(CODE) else None
    return Program(python=tree.code_view / inside if inside else python, code=tree.code_view)


def _show(tree: LabTree) -> None:
    """Mount the tree where its users can reach it, if they cannot where it is."""
    if tree.seen != tree.root:
        tree.seen.mkdir(mode=0o755)
        _mount("--bind", str(tree.root), str(tree.seen))


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotReady(f"mount {' '.join(arguments)}: {done.stderr.strip()}")


def doors(tree: LabTree, users: tuple[str, ...]) -> dict[str, socket.socket]:
    """The proxy's sockets, held here so that one a container has mounted outlives the proxy's restart."""
    base = tree.base
    opened = {
        "front": listener.listen(base.front_door, mode=0o666),
        "admin": listener.listen(base.admin_socket),
    }
    for name in users:
        account, path = pwd.getpwnam(name), base.user_socket(name)
        path.parent.mkdir(mode=0o711, exist_ok=True)
        path.parent.chmod(0o711)
        opened[f"user-{name}"] = listener.listen(path, owner=(account.pw_uid, account.pw_gid))
    return opened


def _python(
    tree: LabTree,
    program: Program,
    name: str,
    *,
    uid: int | None,
    environment: Mapping[str, str] | None = None,
) -> Daemon:
    module = {
        "allocator": "allocator.app",
        "authz": "authz_plugin.app",
        "guard": "runtime.app",
        "lifecycle": "lifecycle.app",
        "proxy": "socket_proxy.app",
    }[name]
    return Daemon(
        name=name,
        command=(str(program.python), "-P", "-m", module, "--root", str(tree.seen)),
        log=tree.log(name),
        environment={"PYTHONPATH": str(program.code), "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
        uid=uid,
    )


def _write_policy(path: Path) -> None:
    """The packaged policy, once. Ports: the lab's network is its own, so every address in it is this host's alone."""
    if not path.exists():
        text = (
            (CODE / "packaging" / "policy.yaml").read_text().replace("host_ip: 127.0.0.1", "host_ip: 0.0.0.0")
        )
        write_atomic(path, text.encode(), mode=0o644)


def _gpu_settings(tree: LabTree, program: Program) -> dict[str, object]:
    """What the allocator is told of simulated GPUs: what writes the CDI spec after a change of MIG devices, and their
    kernel log. Of the machine's own: that nothing does, and nothing.
    """
    if not tree.cdi.is_dir():
        return {"cdi_command": []}
    code = ["env", f"PYTHONPATH={program.code}", str(program.python), "-P", "-m", "lab.cdi"]
    command = [*code, str(tree.nvml), str(tree.cdi), str(tree.hook / simulate.HOOK_NAME)]
    return {"cdi_command": command, "kernel_log": str(tree.nvml / simulate.KERNEL_LOG)}


def _write_daemon_settings(
    path: Path, users: tuple[str, ...] | None, gpu_settings: dict[str, object]
) -> tuple[str, ...]:
    """Put `users` into daemon.yaml and keep the rest; None keeps what is there. Returns: the users."""
    document: dict[str, object] = {}
    with contextlib.suppress(FileNotFoundError):
        document = yaml.safe_load(path.read_text()) or {}
    if users is not None or "users" not in document:
        sudo = os.environ.get("SUDO_USER", "root")
        document["users"] = list(users) if users is not None else [sudo] if sudo != "root" else []
    allocator = document.setdefault("allocator", {})
    if isinstance(allocator, dict):
        allocator.pop("kernel_log", None)  # of simulated GPUs that were there before
        allocator.update(gpu_settings)
    write_atomic(path, yaml.safe_dump(document).encode(), mode=0o644)
    named = document["users"]
    return tuple(str(name) for name in named) if isinstance(named, list) else ()


def _env(tree: LabTree, *, classic: bool) -> str:
    """`classic`: BuildKit is refused on this engine, so clients are told to use the other builder."""
    builder = ("DOCKER_BUILDKIT=0", "COMPOSE_DOCKER_CLI_BUILD=0") if classic else ()
    return "".join(
        f"export {line}\n"
        for line in (
            f"DS01_ROOT='{tree.seen}'",
            f"DOCKER_HOST='unix://{tree.base.front_door}'",
            f"PATH='{tree.seen / 'bin'}':\"$PATH\"",
            *builder,
        )
    )


def _wrapper(tree: LabTree, program: Program) -> str:
    return (
        f"#!/bin/sh\nexport DS01_ROOT=\"${{DS01_ROOT:-{tree.seen}}}\" PYTHONPATH='{program.code}'\n"
        f"exec '{program.python}' -P -m cli.main \"$@\"\n"
    )
