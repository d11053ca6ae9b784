"""Processes that say themselves that they run on a simulated GPU: by a POSIX write lock, which ends with them.

`claims/<uuid>/<name>` below the state directory holds memory and type ("2048 C": MiB and type). The kernel gives the
holder's pid as whoever asks sees it, so that a container's process has its real pid outside.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

JOB_NAME = "ds01-sim-job"
JOB_SOURCE = Path(__file__).parent / "hook" / f"{JOB_NAME}.c"
_FLAGS = ("-O2", "-static", "-Wall", "-Wextra", "-Werror")
_FLOCK = struct.Struct("hhqqi4x")  # SOURCE: fcntl(2), struct flock of 64-bit Linux


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One process on one device. mib: None: it does not say. pid: 0 where it is in a PID namespace we cannot see."""

    uuid: str
    pid: int
    mib: int | None


def build_job(directory: Path) -> Path:
    """Compile the program that claims devices, unless the one there is newer than its source.

    Returns: its path. Raises: subprocess.CalledProcessError: gcc refused.
    """
    program = directory / JOB_NAME
    if program.exists() and program.stat().st_mtime_ns > JOB_SOURCE.stat().st_mtime_ns:
        return program
    fresh = program.with_name(f".{JOB_NAME}.{os.getpid()}")
    subprocess.run(["gcc", *_FLAGS, "-o", str(fresh), str(JOB_SOURCE)], check=True)
    fresh.replace(program)
    return program


def held(state_dir: Path) -> Iterator[Claim]:
    """Every claim that somebody holds now, by device."""
    for file in sorted(state_dir.glob("claims/*/*")):
        try:
            descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            continue  # given up meanwhile
        with os.fdopen(descriptor, "rb") as opened:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            found, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(opened, fcntl.F_GETLK, asked))
            if found == fcntl.F_WRLCK:
                yield Claim(uuid=file.parent.name, pid=pid, mib=_mib(opened.read(64)))


def _mib(text: bytes) -> int | None:
    first = text.split()[:1]
    return int(first[0]) if first and first[0].isdigit() else None
