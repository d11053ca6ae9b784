"""The pids of one process in the PID namespaces it is in."""

from __future__ import annotations

import os
from pathlib import Path

from lab.pid_namespaces import pids_by_namespace
from lab.scenarios import NOBODY

OURS = Path("/proc/self/ns/pid").stat().st_ino


def test_a_process_of_our_namespace_has_one_pid() -> None:
    """What we see is all there is."""
    assert pids_by_namespace(os.getpid()) == {OURS: os.getpid()}


def test_a_process_that_does_not_exist_has_none() -> None:
    """A pid that nobody has is no mistake."""
    assert pids_by_namespace(NOBODY) == {}


def test_a_process_of_an_inner_namespace_has_one_in_each(inner: int) -> None:
    """Ours, and its own, in which it is the first."""
    pids = pids_by_namespace(inner)
    assert pids.pop(OURS) == inner
    assert list(pids.values()) == [1]
