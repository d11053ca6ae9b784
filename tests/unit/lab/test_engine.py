"""What dockerd is told: the plugin only by file, nothing shared with another dockerd."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.engine import EngineParts, settings
from lab.tree import LabTree


@pytest.fixture
def tree() -> LabTree:
    return LabTree.at(Path("/tmp/a-lab"))


def test_the_plugin_is_in_the_file(tree: LabTree) -> None:
    """A plugin named by a flag would be dropped at the next SIGHUP."""
    written = settings(tree, EngineParts(plugin=True), systemd=False, storage_driver="overlay2")
    assert written["authorization-plugins"] == ["ds01-authz"]


def test_an_engine_alone_has_no_plugin(tree: LabTree) -> None:
    """The facts about dockerd are tested on dockerd alone."""
    written = settings(tree, EngineParts(plugin=False), systemd=False, storage_driver="overlay2")
    assert "authorization-plugins" not in written


def test_two_labs_share_nothing() -> None:
    """Every path and the control group are a lab's own."""
    one, other = (
        settings(LabTree.at(Path(root)), EngineParts(plugin=True), systemd=False, storage_driver="vfs")
        for root in ("/tmp/one", "/tmp/other")
    )
    for key in ("hosts", "data-root", "exec-root", "pidfile", "cgroup-parent"):
        assert one[key] != other[key], key


@pytest.mark.parametrize(("systemd", "parent"), [(True, "ds01-lab-{}.slice"), (False, "/ds01-lab-{}")])
def test_the_control_group_is_named_as_its_driver_wants(tree: LabTree, *, systemd: bool, parent: str) -> None:
    """The systemd driver refuses a path, cgroupfs takes a slice for a plain name."""
    written = settings(tree, EngineParts(plugin=True), systemd=systemd, storage_driver="vfs")
    assert written["cgroup-parent"] == parent.format(tree.id)
