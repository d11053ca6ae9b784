"""Programs that wait until a test is over, and what this process has open."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SLEEP = "/usr/bin/sleep"


@contextmanager
def running(
    *command: str, stdin: int | None = None, stdout: int | None = None, user: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A program, `sleep` when none is named, of another uid if one is; ended and waited for in the end, its pipes closed."""
    with subprocess.Popen(command or (SLEEP, "60"), stdin=stdin, stdout=stdout, user=user) as child:
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                child.kill()


@contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has said `ready`."""
    with running(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child


def descriptors() -> int:
    """How many this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def forked_as(wanted: int) -> Iterator[int]:
    """A child that waits and has this pid: the kernel is told which one it gave last. Ended in the end; needs root."""
    pid = _forked_as(wanted)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _forked_as(wanted: int) -> int:
    for _ in range(200):
        Path("/proc/sys/kernel/ns_last_pid").write_text(str(wanted - 1))
        pid = os.fork()
        if pid == 0:
            if os.getpid() == wanted:
                signal.pause()
            os._exit(0)
        if pid == wanted:
            return pid
        os.waitpid(pid, 0)
    pytest.skip("other processes take the pid again and again")
