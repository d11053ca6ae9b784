"""Evidence is read from the real objects: sockets, files, mounts."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from cli import evidence
from cli.evidence import gather
from host.tree import Tree


def test_an_empty_tree_is_unknown_throughout(tmp_path: Path) -> None:
    """Nothing raises, and nothing that is not there is taken for well."""
    found = gather(Tree.under(tmp_path))
    assert (found.status, found.info, found.containers, found.engine_socket) == (None, None, None, None)
    assert (found.dockerd, found.places, found.audit_free_bytes) == (None, None, None)
    assert found.policy_problem


def test_dockerd_is_the_process_that_listens(tmp_path: Path) -> None:
    """Found by the kernel's word on the socket, not by a name that anybody can take."""
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        found = evidence._dockerd(path, {"DockerRootDir": str(tmp_path)})
    assert found is not None
    assert found.pid == os.getpid()
    assert found.data_root == evidence._owned(tmp_path)
    assert evidence._dockerd(path, None) is None


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("--config-file", "/a.json"), "/a.json"),
        (("--debug", "--config-file=/b.json"), "/b.json"),
        (("--config-file",), None),
        ((), None),
    ],
)
def test_the_settings_file_is_the_one_that_was_named(arguments: tuple[str, ...], path: str | None) -> None:
    """Either spelling of the flag."""
    assert evidence._option(arguments, "--config-file") == path


def test_settings_count_only_when_nobody_else_can_write_them(tmp_path: Path) -> None:
    """Owner, mode and JSON are looked at, and the path that is told is dockerd's own."""
    path = tmp_path / "daemon.json"
    assert evidence._settings(path, "/x.json") == (None, "/x.json: No such file or directory")
    path.write_text(json.dumps({"icc": False}))
    if os.getuid() == 0:
        path.chmod(0o644)
        assert evidence._settings(path, "/x.json") == ({"icc": False}, "")
        path.write_text("[]")
        assert evidence._settings(path, "/x.json") == (None, "/x.json is no JSON object")
        path.write_text("{")
        assert evidence._settings(path, "/x.json")[1].startswith("/x.json is no JSON: ")
    path.chmod(0o666)
    settings, problem = evidence._settings(path, "/x.json")
    assert settings is None
    assert problem.startswith("/x.json ")


def test_only_a_plugin_socket_without_a_listener_is_stale(tmp_path: Path) -> None:
    """One in a directory of its own counts too."""
    plugins = tmp_path / "run" / "docker" / "plugins"
    (plugins / "dead").mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as left, socket.socket(socket.AF_UNIX) as alive:
        left.bind(str(plugins / "dead" / "dead.sock"))
        alive.bind(str(plugins / "alive.sock"))
        alive.listen()
        left.close()
        assert evidence._stale(plugins) == ("/run/docker/plugins/dead/dead.sock",)


def test_a_mount_is_guarded_by_both_options(tmp_path: Path) -> None:
    """As mountinfo has it, for every mount of this machine; a path that is not there is unknown."""
    mounted = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        words = line.split()
        mounted[words[4]] = set(words[5].split(","))
    for point in ("/", "/proc", "/sys"):
        assert evidence._guarded(point) is ({"nosuid", "nodev"} <= mounted[point])
    assert evidence._guarded(str(tmp_path / "gone")) is None


@pytest.mark.skipif(os.getuid() != 0, reason="policy files in force belong to root")
def test_places_are_homes_and_what_the_policy_names(tmp_path: Path) -> None:
    """A home is a place for each user with a socket; setuid_ok for "~" is for all of them."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "daemon.yaml").write_text("users: [root, no-such-user]\n")
    allow = 'defaults: {allow: {binds: [{path: "~", setuid_ok: true}, {path: /srv/data, read_only: true}]}}\n'
    (etc / "policy.yaml").write_text("version: 1\n" + allow)
    found = gather(Tree.under(tmp_path))
    assert found.places is not None, found.policy_problem
    assert [(place.path, place.setuid_ok) for place in found.places] == [
        ("/root", True),
        ("/srv/data", False),
    ]
