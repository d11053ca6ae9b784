"""Starting the daemons and keeping them up.

The supervisor is small and synchronous: it waits for signals, reaps what ended, and starts it again. Listening sockets
are made here and handed over as systemd would (LISTEN_FDS), so that they stay open while a daemon restarts.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from host.files import write_atomic

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from pathlib import Path

MARK = "DS01_LAB"  # in the environment of every process of a lab; its value is the lab's id
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)
_FIRST_HANDED = 3
_QUICK_SECONDS = 2.0
_LONGEST_PAUSE_SECONDS = 5.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """One program to keep running.

    uid: run as this uid and gid, which need no account, with these capabilities (as setpriv names them) and no others; None: as root.
    listeners: by the name the daemon knows each by; handed over from descriptor 3 on, in this order. Their lifetime
        is the supervisor's.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    uid: int | None = None
    capabilities: tuple[str, ...] = ()
    listeners: Mapping[str, socket.socket] = field(default_factory=dict)


def arguments(daemon: Daemon) -> tuple[str, ...]:
    """The whole command: privileges dropped first, then the program, in one process whose id LISTEN_PID can name."""
    dropped: tuple[str, ...] = ()
    if daemon.uid is not None:
        ids = (f"--reuid={daemon.uid}", f"--regid={daemon.uid}", "--clear-groups")
        kept = "".join(f",+{name}" for name in daemon.capabilities)
        sets = (f"--{name}=-all{kept}" for name in ("inh-caps", "ambient-caps", "bounding-set"))
        dropped = ("setpriv", *ids, *sets, "--no-new-privs")
    if not daemon.listeners:
        return (*dropped, *daemon.command)
    return ("/bin/sh", "-c", 'export LISTEN_PID=$$; exec "$@"', "sh", *dropped, *daemon.command)


def environment(daemon: Daemon, lab_id: str) -> dict[str, str]:
    """A clean environment: nothing of the caller's reaches a daemon."""
    names = ":".join(daemon.listeners)
    handed = {"LISTEN_FDS": str(len(daemon.listeners)), "LISTEN_FDNAMES": names} if names else {}
    return {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        MARK: lab_id,
        **handed,
        **daemon.environment,
    }


def spawn(daemon: Daemon, lab_id: str) -> int:
    """Start it in a session of its own. Returns: its process id. Raises: OSError."""
    command = arguments(daemon)
    log = os.open(daemon.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    actions: list[tuple[int, ...] | tuple[int, int, str, int, int]] = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, log, 1),
        (os.POSIX_SPAWN_DUP2, log, 2),
    ]
    # Copies out of the way first: a number below may be the source of one that comes later.
    first_copy = _FIRST_HANDED + len(daemon.listeners)
    copies = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, first_copy) for each in daemon.listeners.values()]
    actions += [(os.POSIX_SPAWN_DUP2, copy, _FIRST_HANDED + place) for place, copy in enumerate(copies)]
    try:
        return os.posix_spawnp(
            command[0],
            command,
            environment(daemon, lab_id),
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
    finally:
        for descriptor in (log, *copies):
            os.close(descriptor)


class Supervisor:
    """Starts daemons and starts them again."""

    def __init__(self, *, lab_id: str, pids: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._lab_id = lab_id
        self._pids = pids
        self._clock = clock
        self._running: dict[int, tuple[Daemon, float]] = {}
        self._due: list[tuple[float, Daemon]] = []
        self._pauses: dict[str, float] = {}
        self._before: dict[str, Callable[[], None]] = {}
        self.stopping = False
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)

    def start(self, daemon: Daemon, *, before_restart: Callable[[], None] | None = None) -> None:
        """Start one; `before_restart` clears what its last life left."""
        if before_restart is not None:
            self._before[daemon.name] = before_restart
        self._spawn(daemon)

    def pid(self, name: str) -> int | None:
        """The process of a daemon, None while it has none."""
        return next((pid for pid, (daemon, _) in self._running.items() if daemon.name == name), None)

    def step(self, timeout_seconds: float) -> None:
        """Wait for a signal at most this long; restart what is due; note whether to stop."""
        wait = min([timeout_seconds, *(max(0.0, at - self._clock()) for at, _ in self._due)])
        received = signal.sigtimedwait(_SIGNALS, wait)
        if received is not None and received.si_signo != signal.SIGCHLD:
            self.stopping = True
        self._reap()
        if not self.stopping:
            self._restart()

    def stop(self, name: str, *, timeout_seconds: float) -> bool:
        """Ask one daemon to end. Returns: whether it has."""
        self.stopping = True
        pid = self.pid(name)
        deadline = self._clock() + timeout_seconds
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
        while self.pid(name) is not None and self._clock() < deadline:
            signal.sigtimedwait((signal.SIGCHLD,), 0.1)
            self._reap()
        return self.pid(name) is None

    def _spawn(self, daemon: Daemon) -> None:
        pid = spawn(daemon, self._lab_id)
        self._running[pid] = (daemon, self._clock())
        write_atomic(self._pids / f"{daemon.name}.pid", f"{pid}\n".encode(), mode=0o644)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            daemon, started = self._running.pop(pid, (None, 0.0))
            if daemon is not None and not self.stopping:
                self._schedule(daemon, status, started)

    def _schedule(self, daemon: Daemon, status: int, started: float) -> None:
        """At once the first time, then slower while it keeps ending within seconds."""
        quick = self._clock() - started < _QUICK_SECONDS
        pause = min(2 * self._pauses.get(daemon.name, 0.25), _LONGEST_PAUSE_SECONDS) if quick else 0.1
        self._pauses[daemon.name] = pause
        self._due.append((self._clock() + pause, daemon))
        code = os.waitstatus_to_exitcode(status)
        print(
            f"ds01-lab: {daemon.name} ended ({code}); starting it again, see {daemon.log}",
            file=sys.stderr,
            flush=True,
        )

    def _restart(self) -> None:
        now = self._clock()
        due, self._due = [d for at, d in self._due if at <= now], [(at, d) for at, d in self._due if at > now]
        for daemon in due:
            self._before.get(daemon.name, lambda: None)()
            self._spawn(daemon)
