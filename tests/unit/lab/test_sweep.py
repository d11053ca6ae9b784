"""Telling what belongs to a lab, and ending it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from lab import sweep
from lab.processes import MARK
from lab.tree import LabTree


@pytest.fixture
def tree(tmp_path: Path) -> LabTree:
    return LabTree.at(tmp_path / "lab")


def _sleeping(lab_id: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"], env={"PATH": os.environ["PATH"], MARK: lab_id})


def test_a_process_of_the_lab_is_ended_and_another_is_not(tree: LabTree) -> None:
    """The id in a process's environment decides, all of it and nothing else."""
    with _sleeping(tree.id) as own, _sleeping(tree.id + "0") as other:
        try:
            assert set(sweep.processes(tree, frozenset())) == {own.pid}
            sweep.end(
                tree, frozenset(), timeout_seconds=0.3
            )  # it stays a zombie until its parent, this test, waits
            assert own.wait(5) == -9
            assert other.poll() is None
        finally:
            other.kill()


def test_containers_are_those_on_disk(tree: LabTree) -> None:
    """Without a data root there are none; with one, the names of its directories."""
    assert sweep.container_ids(tree) == frozenset()
    (tree.root / "lib/docker/containers/0123abcd").mkdir(parents=True)
    assert sweep.container_ids(tree) == {"0123abcd"}


def test_control_groups_go_only_when_empty(
    tree: LabTree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lab's own groups are removed in every hierarchy; one that is in use stays."""
    monkeypatch.setattr(sweep, "CGROUPS", tmp_path)
    (tmp_path / "cpu" / tree.cgroup / "a" / "b").mkdir(parents=True)
    used = tmp_path / "memory" / tree.cgroup / "used"
    used.mkdir(parents=True)
    (used / "process").touch()
    sweep.remove_cgroups(tree, frozenset())
    assert not (tmp_path / "cpu" / tree.cgroup).exists()
    assert used.exists()


def test_a_second_sweep_finds_nothing(tree: LabTree) -> None:
    """Sweeping where no lab was, or twice, is no error and leaves the files of the root alone."""
    kept = tree.root / "etc" / "policy.yaml"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert sweep.sweep(tree) == ()
    assert sweep.sweep(tree) == ()
    assert kept.exists()
