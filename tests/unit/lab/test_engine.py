"""What dockerd is told: the plugin only by file, nothing shared with another dockerd."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.engine import EngineParts, daemon, settings, version
from lab.tree import LabTree


@pytest.fixture
def tree() -> LabTree:
    return LabTree.at(Path("/tmp/a-lab"))


def test_the_plugin_is_in_the_file(tree: LabTree) -> None:
    """A plugin named by a flag would be dropped at the next SIGHUP."""
    written = settings(tree, EngineParts(ds01=True), systemd=False, storage_driver="overlay2")
    assert written["authorization-plugins"] == ["ds01-authz"]


def test_an_engine_alone_has_no_plugin(tree: LabTree) -> None:
    """The facts about dockerd are tested on dockerd alone."""
    written = settings(tree, EngineParts(ds01=False), systemd=False, storage_driver="overlay2")
    assert "authorization-plugins" not in written


def test_two_labs_share_nothing() -> None:
    """Every path and the control group are a lab's own."""
    one, other = (
        settings(LabTree.at(Path(root)), EngineParts(ds01=True), systemd=False, storage_driver="vfs")
        for root in ("/tmp/one", "/tmp/other")
    )
    for key in ("hosts", "data-root", "exec-root", "pidfile", "cgroup-parent"):
        assert one[key] != other[key], key


@pytest.mark.parametrize(("systemd", "parent"), [(True, "ds01-lab-{}.slice"), (False, "/ds01-lab-{}")])
def test_the_control_group_is_named_as_its_driver_wants(tree: LabTree, *, systemd: bool, parent: str) -> None:
    """The systemd driver refuses a path, cgroupfs takes a slice for a plain name."""
    written = settings(tree, EngineParts(ds01=True), systemd=systemd, storage_driver="vfs")
    assert written["cgroup-parent"] == parent.format(tree.id)


@pytest.fixture
def other_system(tmp_path: Path) -> Path:
    """The root of a system with a dockerd."""
    for name in ("etc/os-release", "usr/sbin/dockerd"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_dockerd_of_another_system_brings_its_root(tree: LabTree, other_system: Path) -> None:
    """It runs by its path inside that root, which is put together where nothing else is."""
    parts = EngineParts(ds01=True, program=other_system / "usr/sbin/dockerd")
    assert parts.system == other_system
    command = daemon(tree, parts).command
    assert command[-3] == "/usr/sbin/dockerd"
    assert command[command.index("sh") + 1 :][:2] == (str(tree.engine_root), str(other_system))


@pytest.mark.parametrize("program", ["/usr/bin/dockerd", "/opt/docker/dockerd"])
def test_a_dockerd_of_this_system_runs_in_place(tree: LabTree, program: str) -> None:
    """The machine's own root is no other system, and the programs beside dockerd come before the machine's."""
    found = daemon(tree, EngineParts(ds01=True, program=Path(program)))
    assert str(tree.engine_root) not in found.command
    assert program in found.command
    assert found.environment["PATH"].split(":")[:2] == [str(tree.hook), str(Path(program).parent)]


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Docker version 28.5.2+dfsg4, build 9cc6dea", "28.5.2+dfsg4"),
        ("Docker version 20.10.24", "20.10.24"),
        ("?", ""),
    ],
)
def test_an_engine_says_its_version(tmp_path: Path, said: str, found: str) -> None:
    """Before it runs; one that says nothing is of no version."""
    program = tmp_path / "dockerd"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    assert version(EngineParts(ds01=False, program=program)) == found


def test_no_engine_has_no_version(tmp_path: Path) -> None:
    """It is missing, and says so when it is started."""
    assert version(EngineParts(ds01=False, program=tmp_path / "none")) == ""
