"""Processes of this host: read without mixing two up, held by pidfd, signalled through it alone.

A pid is a number that may be used again at any time. A pidfd is opened before anything else is read, and what was read
counts only if the process that it holds was still there afterwards.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from allocator.attribution import Identity, ProcessFacts, UidRange
from host.proc import has_ended, is_over, read, stat_fields
from policy.model import Uid

_T = TypeVar("_T")
PROC = Path("/proc")
_MOST_HELD = 8192


class Absent(StrEnum):
    """Why there is nothing to read of a pid."""

    GONE = "gone"  # it has ended
    HIDDEN = "hidden"  # NVML gave 0, or a number that is no process of this pid namespace
    UNREADABLE = "unreadable"  # it is there, and /proc does not let itself be read


class Signalled(StrEnum):
    """What became of a signal."""

    SENT = "sent"
    GONE = "gone"  # it had ended already; no other process has got the signal


@dataclass(frozen=True, slots=True)
class _Held:
    identity: Identity
    pidfd: int


class Processes:
    """The processes that were looked at and have not ended. Threads take turns."""

    def __init__(self, *, boot_id: str, proc: Path = PROC) -> None:
        """Read below `proc`; identities are of this boot."""
        self._boot_id = boot_id
        self._proc = proc
        self._held: dict[int, _Held] = {}
        self._turn = threading.RLock()

    def look(self, pid: int) -> ProcessFacts | Absent:
        """What `/proc` says of a process, all of one process; it is held from now on."""
        with self._turn:
            if pid <= 0:
                return Absent.HIDDEN
            held = self._hold(pid)
            if not isinstance(held, _Held):
                return held
            try:
                facts = self._read(held)
            except FileNotFoundError:
                facts = None
            except (OSError, ValueError):
                return Absent.GONE if has_ended(held.pidfd) else Absent.UNREADABLE
            # INVARIANT: checked last. A process that has not ended was not reaped, so its pid was not used again.
            if facts is None or has_ended(held.pidfd):
                self._drop(pid)
                return Absent.GONE
            return facts

    def send(self, identity: Identity, number: signal.Signals) -> Signalled:
        """Signal exactly this process. Raises: PermissionError."""
        with self._turn:
            held = self._held.get(identity.pid)
            if held is None or held.identity != identity:
                return Signalled.GONE
            try:
                signal.pidfd_send_signal(held.pidfd, number)
            except ProcessLookupError:
                self._drop(identity.pid)
                return Signalled.GONE
            return Signalled.SENT

    def is_running(self, identity: Identity) -> bool:
        """Whether this very process was looked at and has not ended."""
        with self._turn:
            held = self._held.get(identity.pid)
            return held is not None and held.identity == identity and not has_ended(held.pidfd)

    def wait_ended(self, identities: Iterable[Identity], *, seconds: float) -> tuple[Identity, ...]:
        """Wait until all have ended, so long at most; those that still run. Blocks, and holds up nobody else."""
        with self._turn:
            waited = {os.dup(self._held[one.pid].pidfd): one for one in identities if self.is_running(one)}
        poll = select.poll()
        for pidfd in waited:
            poll.register(pidfd, select.POLLIN)
        deadline = time.monotonic() + seconds
        try:
            running = set(waited)
            while running and (left := deadline - time.monotonic()) > 0:
                for pidfd, _ in poll.poll(left * 1000):
                    poll.unregister(pidfd)
                    running.discard(pidfd)
            return tuple(waited[pidfd] for pidfd in running)
        finally:
            for pidfd in waited:
                os.close(pidfd)

    def forget_ended(self) -> None:
        """Let go of every process that has ended."""
        with self._turn:
            for pid, held in tuple(self._held.items()):
                if has_ended(held.pidfd):
                    self._drop(pid)

    def close(self) -> None:
        """Let go of all."""
        with self._turn:
            for pid in tuple(self._held):
                self._drop(pid)

    def _hold(self, pid: int) -> _Held | Absent:
        held = self._held.get(pid)
        if held is not None and not has_ended(held.pidfd):
            return held
        self._drop(pid)
        if len(self._held) >= _MOST_HELD:
            self.forget_ended()
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            # EINVAL, ENOENT: a thread's number. EMFILE and the like: it may be there, and is not told.
            missing = (errno.ESRCH, errno.EINVAL, errno.ENOENT)
            return Absent.GONE if error.errno in missing else Absent.UNREADABLE
        except OverflowError:
            return Absent.HIDDEN
        try:
            identity = Identity(boot_id=self._boot_id, pid=pid, start_ticks=self._start_ticks(pid))
        except (OSError, ValueError):
            os.close(pidfd)
            return Absent.GONE
        held = self._held[pid] = _Held(identity, pidfd)
        return held

    def _drop(self, pid: int) -> None:
        held = self._held.pop(pid, None)
        if held is not None:
            os.close(held.pidfd)

    def _read(self, held: _Held) -> ProcessFacts | None:
        """None when the process is another one, or has only its entry left. Raises: OSError, ValueError."""
        # Paths are plain text here: nine for each process, several times as fast as Path makes them.
        where = f"{self._proc}/{held.identity.pid}"
        if self._start_ticks(held.identity.pid) != held.identity.start_ticks:
            return None
        living = _living_thread(where)
        if living is None:
            return None
        status = _or_none(lambda: read(f"{living}/status")) or ""
        facts = ProcessFacts(
            identity=held.identity,
            cgroup=_or_none(lambda: read(f"{living}/cgroup")),
            login_uid=_or_none(lambda: Uid(int(read(f"{living}/loginuid")))),
            real_uid=_or_none(lambda: _real_uid(status)),
            uid_map=_or_none(lambda: _uid_map(read(f"{living}/uid_map"))),
            own_pid_namespace=_or_none(lambda: _is_own_pid_namespace(status)),
            executable=_or_none(lambda: _executable(Path(living))),
            name=_or_none(lambda: read(f"{living}/comm").rstrip("\n")) or "",
        )
        if self._start_ticks(held.identity.pid) != held.identity.start_ticks:
            return None
        return facts

    def _start_ticks(self, pid: int) -> int:
        """SOURCE: proc(5), stat field 22. Raises: OSError, ValueError."""
        return int(stat_fields(read(f"{self._proc}/{pid}/stat"))[19])


def _living_thread(where: str) -> str | None:
    """Where to read of a process; None when every thread of it has ended.

    SECURITY: a process may end its first thread and go on in others. Then its own entry reads "/" for a cgroup on
    v1, as if it were on the host.
    """
    if _has_thread(where):
        return where
    for thread in sorted(Path(where, "task").iterdir()):
        with suppress(FileNotFoundError, ProcessLookupError):
            if _has_thread(str(thread)):
                return str(thread)
    return None


def _has_thread(where: str) -> bool:
    return not is_over(read(f"{where}/stat"))


def _or_none(ask: Callable[[], _T]) -> _T | None:
    try:
        return ask()
    except (OSError, ValueError):
        return None


def _real_uid(status: str) -> Uid:
    """SOURCE: proc(5), status: real, effective, saved and file system uid. Raises: ValueError."""
    for line in status.splitlines():
        if line.startswith("Uid:"):
            return Uid(int(line.split()[1]))
    raise ValueError("a status without Uid")


def _is_own_pid_namespace(status: str) -> bool:
    """Whether it has one pid only: in no namespace below that of `/proc`, which is the daemon's. Raises: ValueError.

    Unlike /proc/<pid>/ns everybody may read it. SOURCE: proc(5), status, NSpid.
    """
    for line in status.splitlines():
        if line.startswith("NSpid:"):
            return len(line.split()) == 2
    raise ValueError("a status without NSpid")


def _uid_map(text: str) -> tuple[UidRange, ...]:
    """Raises: ValueError."""
    rows = (tuple(map(int, line.split())) for line in text.splitlines())
    return tuple(UidRange(inside=inside, outside=outside, count=count) for inside, outside, count in rows)


def _executable(where: Path) -> str | None:
    """The path of what runs, if the host's file of that path is the very one.

    SECURITY: in a mount namespace of one's own, anything can be given the path of a program of NVIDIA's.
    """
    path = str((where / "exe").readlink())
    runs, there = (where / "exe").stat(), Path(path).stat()
    return path if (runs.st_dev, runs.st_ino) == (there.st_dev, there.st_ino) else None
