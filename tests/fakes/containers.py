"""Processes in a cgroup like that of a container of dockerd. Needs root and a cgroup v1 hierarchy of pids."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakes.waiting import started

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from policy.model import ContainerId

_PIDS_CGROUP = Path("/sys/fs/cgroup/pids")


@contextmanager
def container_cgroup(container: ContainerId) -> Iterator[Path]:
    """One with nothing in it; skips the test where none can be made."""
    if os.geteuid() != 0 or not _PIDS_CGROUP.is_dir():
        pytest.skip("needs root and a cgroup v1 hierarchy of pids")
    parent = _PIDS_CGROUP / f"ds01-{os.getpid()}"
    path = parent / container
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        path.rmdir()
        parent.rmdir()


def started_in(cgroup: Path) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """A program in it, which waits."""
    join = f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')"
    return started("python3", "-c", f"import os, sys; {join}; print('ready', flush=True); sys.stdin.read()")
