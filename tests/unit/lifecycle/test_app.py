"""The daemon as a process: it starts, says that it is at work, and ends in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host import heartbeat
from host.heartbeat import Pulse
from host.tree import Tree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the policy must be root's")
CODE = Path(__file__).parents[3]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree.under(tmp_path)
    for directory in (made.run, made.etc, made.lib, made.log):
        directory.mkdir(mode=0o755)
    made.policy.write_text("version: 1\n")
    made.policy.chmod(0o644)
    return made


@contextmanager
def running(tree: Tree) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "lifecycle.app", "--root", str(tree.run.parent)],
        cwd=CODE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(check: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 15
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_it_works_without_anybody_to_ask(tree: Tree) -> None:
    """No allocator: it says so, stays, and ends in order when told to."""
    with running(tree) as process:
        assert until(lambda: heartbeat.listen(tree.lifecycle_beat).pulse is Pulse.UNAVAILABLE)
        assert heartbeat.listen(tree.lifecycle_beat).problem == "the allocator does not answer"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in said.splitlines()]
    assert events == ["policy.loaded", "daemon.started", "upstream.lost", "daemon.stopped"]
    assert heartbeat.listen(tree.lifecycle_beat).pulse is Pulse.SILENT


def test_without_a_policy_it_does_not_start(tree: Tree) -> None:
    """Nobody would know whether to stop or to report."""
    tree.policy.write_text("version: 2\n")
    with running(tree) as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "daemon.failed" in said
    assert "version" in said


def test_without_an_audit_it_does_not_start(tree: Tree) -> None:
    """Nothing that it stops would be on record."""
    tree.log.rmdir()
    with running(tree) as process:
        _, said = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "audit" in said
