"""Paths of cgroups: every form that engines and systemd write, and what a user can make of them."""

from __future__ import annotations

import pytest

from allocator import cgroup_paths
from allocator.cgroup_paths import Engine
from policy.model import ContainerId

A, B = ContainerId("a" * 64), ContainerId("b" * 64)
STEP = "zx3kq9v0m1n2b3v4c5x6z7a8s"
MANAGER = "/user.slice/user-1000.slice/user@1000.service"


@pytest.mark.parametrize(
    ("path", "engine"),
    [
        pytest.param(f"/docker/{A}", Engine.DOCKER, id="cgroupfs"),
        pytest.param(f"/ds01/1000/{A}", Engine.UNKNOWN, id="cgroupfs, own parent"),
        pytest.param(f"/system.slice/docker-{A}.scope", Engine.DOCKER, id="systemd"),
        pytest.param(
            f"/ds01.slice/ds01-1000.slice/docker-{A}.scope", Engine.DOCKER, id="systemd, own parent"
        ),
        pytest.param(f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{A}.scope", Engine.CRI, id="CRI"),
        pytest.param(f"/kubepods/burstable/pod12/{A}", Engine.CRI, id="CRI, cgroupfs"),
        pytest.param(
            f"/system.slice/containerd.service/kubepods-besteffort-pod1.slice:cri-containerd:{A}",
            Engine.CRI,
            id="CRI, colons",
        ),
        pytest.param(f"/machine.slice/crio-{A}.scope", Engine.CRI, id="CRI-O"),
        pytest.param(f"/system.slice/nerdctl-{A}.scope", Engine.NERDCTL, id="nerdctl"),
        pytest.param(f"/machine.slice/libpod-{A}.scope/container", Engine.PODMAN, id="podman"),
        pytest.param(f"/libpod_parent/libpod-{A}", Engine.PODMAN, id="podman, cgroupfs"),
        pytest.param(f"/docker/{A}/docker/{B}", Engine.DOCKER, id="DinD: the outer one"),
        pytest.param(f"/docker/{A}/system.slice/docker-{B}.scope", Engine.DOCKER, id="DinD, systemd"),
        pytest.param(f"/docker/{A}/init", Engine.DOCKER, id="DinD's own cgroup"),
        pytest.param(
            f"/docker/{A}/user.slice/user-0.slice/user@0.service/x", Engine.DOCKER, id="systemd within"
        ),
    ],
)
def test_each_form_names_its_container(path: str, engine: Engine) -> None:
    """The first 64 hex digits of a path are the container's id, whatever engine wrote it."""
    named = cgroup_paths.container_in(path)
    assert named is not None
    assert (named.id, named.engine, named.by_user) == (A, engine, False)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(f"{MANAGER}/docker-{A}.scope", id="forged below a user's manager"),
        pytest.param(f"{MANAGER}/user.slice/libpod-{A}.scope/container", id="rootless podman"),
        pytest.param(f"/user.slice/user-1000.slice/docker-{A}.scope", id="user.slice"),
        pytest.param(f"/odd.slice/user@1000.service/{A}", id="a user's manager elsewhere"),
    ],
)
def test_a_name_that_a_user_may_have_chosen_is_told(path: str) -> None:
    """Below user.slice or a user's service manager, a name is the user's own word."""
    named = cgroup_paths.container_in(path)
    assert named is not None
    assert named.by_user


@pytest.mark.parametrize(
    "path",
    ["/", "", f"/docker/{A[:-1]}", f"/docker/{A}b", f"/docker/{A.upper()}", f"/docker/buildkit/{STEP}"],
)
def test_what_is_no_id_names_no_container(path: str) -> None:
    """63 or 65 digits, capitals and build steps are no containers."""
    assert cgroup_paths.container_in(path) is None


@pytest.mark.parametrize(
    ("path", "step"),
    [
        pytest.param(f"/docker/buildkit/{STEP}", STEP, id="v1"),
        pytest.param(f"/system.slice/docker-{STEP}.scope", STEP, id="v2, systemd"),
        pytest.param(f"/ds01/1000/build/{STEP}", STEP, id="own parent"),
        pytest.param(f"/ds01.slice/ds01-1000.slice/build/{STEP}", STEP, id="own parent, systemd"),
        pytest.param(f"/docker/{A}/buildkit/{STEP}", None, id="BuildKit in a container"),
        pytest.param(f"{MANAGER}/docker-{STEP}.scope", None, id="forged"),
        pytest.param("/docker/buildkit/short", None, id="no id"),
        pytest.param("/docker/buildkit", None, id="BuildKit itself"),
    ],
)
def test_each_form_of_a_build_step(path: str, step: str | None) -> None:
    """A build step has an id of 25 characters, lies in no container and below no user's manager."""
    assert cgroup_paths.build_step_in(path) == step


@pytest.mark.parametrize(
    ("path", "cgroup"),
    [
        pytest.param(f"/docker/{A}", f"/docker/{A}", id="itself"),
        pytest.param(f"/docker/{A}/init", f"/docker/{A}", id="moved deeper"),
        pytest.param(f"/docker/{B}/{A}", f"/docker/{B}/{A}", id="below another's"),
        pytest.param(
            f"/user.slice/user-7.slice/docker-{A}.scope",
            f"/user.slice/user-7.slice/docker-{A}.scope",
            id="by root",
        ),
        pytest.param(f"{MANAGER}/docker-{A}.scope", None, id="a user's manager"),
        pytest.param("/", None, id="ended"),
        pytest.param(f"/docker/{B}", None, id="another"),
    ],
)
def test_a_containers_own_cgroup(path: str, cgroup: str | None) -> None:
    """It ends in the part that names the container, and no user's manager made it."""
    assert cgroup_paths.cgroup_of(path, A) == cgroup


def test_the_owner_of_a_parent_that_ds01_made() -> None:
    """Only from the root of the hierarchy, where only root makes cgroups."""
    assert cgroup_paths.own_parent("/ds01/1000/build") == 1000
    assert cgroup_paths.own_parent("/ds01.slice/ds01-1001.slice/build") == 1001
    assert cgroup_paths.own_parent("/ds01/1000x") is None
    assert cgroup_paths.own_parent(f"/docker/{A}/ds01/1000") is None
    assert cgroup_paths.own_parent("/ds01-1000.slice") is None


def test_the_slice_of_a_user() -> None:
    """A tree of slices inside a container names nobody."""
    assert cgroup_paths.user_slice("/user.slice/user-1000.slice/session-2.scope") == 1000
    assert cgroup_paths.user_slice("/user.slice/user-0.slice") == 0
    assert cgroup_paths.user_slice("/user.slice") is None
    assert cgroup_paths.user_slice(f"/docker/{A}/user.slice/user-1000.slice") is None


def test_paths_are_read_from_every_hierarchy() -> None:
    """Each path once, colons in a path kept; a controller that is not mounted reads "/"."""
    assert cgroup_paths.paths("12:pids:/docker/x\n11:cpu,cpuacct:/docker/x\n1:name=systemd:/a:b\n0::/\n") == (
        "/docker/x",
        "/a:b",
        "/",
    )
    assert cgroup_paths.paths("") == ()


def test_a_path_above_the_readers_root_is_told() -> None:
    """`/../x` is how the kernel writes what lies outside the reader's cgroup namespace."""
    assert cgroup_paths.is_foreign_view("/../docker/x")
    assert cgroup_paths.is_foreign_view("/..")
    assert not cgroup_paths.is_foreign_view("/..x")


def test_the_unit_of_a_process() -> None:
    """The outermost service or scope, as systemctl names it."""
    assert cgroup_paths.unit_in("/system.slice/system-getty.slice/getty@tty1.service") == "getty@tty1.service"
    assert cgroup_paths.unit_in(f"{MANAGER}/app.slice/jupyter.service") == "user@1000.service"
    assert cgroup_paths.unit_in("/docker/x") == ""
