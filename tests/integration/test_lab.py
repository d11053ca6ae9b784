"""The lab as an admin and two users meet it: up, used, crashed, gone."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.tree import LabTree
from tests.integration.conftest import ALICE, BOB, Lab, require_dockerd, server

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(180)]


def test_a_user_runs_a_container(lab: Lab) -> None:
    """Plain `docker run` on the user's own socket works."""
    done = lab.docker(ALICE, "run", "--rm", "busybox", "echo", "hi")
    assert (done.status, done.out) == (0, "hi\n"), done.err


def test_another_user_sees_nothing_of_it(lab: Lab) -> None:
    """A container is in its owner's list and in nobody else's."""
    made = lab.docker(ALICE, "run", "-d", "busybox", "sleep", "60")
    assert made.status == 0, made.err
    container = made.out.strip()
    try:
        assert container in lab.docker(ALICE, "ps", "-q", "--no-trunc").out
        assert lab.docker(BOB, "ps", "-aq").out == ""
        assert "No such" in lab.docker(BOB, "inspect", container).err
    finally:
        lab.docker(ALICE, "rm", "-f", container)


def test_another_users_socket_is_closed(lab: Lab) -> None:
    """File permissions keep one user off another's socket."""
    done = lab.docker(BOB, "ps", host=lab.socket(ALICE))
    assert done.status != 0
    assert "permission denied" in done.err.lower()


def test_the_front_door_knows_who_comes(lab: Lab) -> None:
    """With the lab's `env` alone, `docker` reaches the front door and is the user who called it."""
    sourced = ("env", "-u", "DOCKER_HOST", "sh", "-c", '. "$0"; exec docker "$@"', str(lab.root / "env"))
    made = lab.run(ALICE, *sourced, "create", "--name", "front", "busybox")
    assert made.status == 0, made.err
    try:
        listing = ("ps", "-a", "--format", "{{.Names}}")
        assert "front" in lab.docker(ALICE, *listing).out
        assert "front" not in lab.run(BOB, *sourced, *listing).out
    finally:
        lab.docker(ALICE, "rm", "front")


def test_the_engine_refuses_even_root(lab: Lab) -> None:
    """What did not come through ds01 is refused by the plugin, and the socket is root's alone."""
    path = lab.root / "run" / "engine.sock"
    done = lab.docker("root", "ps", host=f"unix://{path}")
    assert done.status != 0
    assert "authorization denied" in done.err
    assert (path.stat().st_uid, path.stat().st_gid) == (0, 0)
    assert "permission denied" in lab.docker(ALICE, "ps", host=f"unix://{path}").err.lower()


def test_users_read_none_of_the_labs_secrets(lab: Lab) -> None:
    """Keys, ledger, logs and dockerd's files are closed to users."""
    for path in ("lib/proxy", "lib/allocator", "lib/docker", "log", "log/audit.jsonl"):
        assert lab.run(ALICE, "test", "-r", str(lab.root / path)).status == 1, path


def test_a_container_gets_a_gpu(lab: Lab) -> None:
    """`--gpus 1` gives exactly one simulated device."""
    done = lab.docker(ALICE, "run", "--rm", "--gpus", "1", "busybox", "env")
    assert done.status == 0, done.err
    assert re.search(r"^NVIDIA_VISIBLE_DEVICES=(GPU|MIG)-[0-9a-f-]{36}$", done.out, re.MULTILINE)


def test_a_container_without_a_gpu_gets_none(lab: Lab) -> None:
    """What was not asked for is void, whatever the user's environment says."""
    done = lab.docker(ALICE, "run", "--rm", "-e", "NVIDIA_VISIBLE_DEVICES=all", "busybox", "env")
    assert "NVIDIA_VISIBLE_DEVICES=all" not in done.out
    assert not re.search(r"(GPU|MIG)-[0-9a-f-]{36}", done.out)


def test_a_home_of_the_lab_can_be_mounted(lab: Lab) -> None:
    """Homes made by the lab lie on a nosuid,nodev mount, so policy lets containers have them."""
    home = pwd.getpwnam(ALICE).pw_dir
    done = lab.docker(ALICE, "run", "--rm", "-v", f"{home}:/h", "busybox", "touch", "/h/made")
    assert done.status == 0, done.err
    assert Path(home, "made").exists()


def test_a_published_port_answers(lab: Lab) -> None:
    """A port published by a user answers at the address that script/server prints."""
    page = "echo it works > /tmp/index.html; httpd -f -p 80 -h /tmp"
    made = lab.docker(ALICE, "run", "-d", "--name", "web", "-p", "18080:80", "busybox", "sh", "-c", page)
    try:
        assert made.status == 0, made.err
        assert _fetch(f"http://{lab.address}:18080/index.html") == "it works\n"
    finally:
        lab.docker(ALICE, "rm", "-f", "web")


def test_up_twice_says_so(lab: Lab) -> None:
    """A second call changes nothing and is no error."""
    done = server("--root", str(lab.root), "--detach")
    assert done.returncode == 0
    assert "already up" in done.stdout


@pytest.mark.parametrize("daemon", ["proxy", "authz", "allocator", "lifecycle"])
def test_a_killed_daemon_comes_back(lab: Lab, daemon: str) -> None:
    """SIGKILL of a daemon costs a moment; the user's socket stays the same file."""
    sock = lab.root / "run" / "users" / ALICE / "docker.sock"
    pid_file, inode = lab.root / "run" / "pids" / f"{daemon}.pid", sock.stat().st_ino
    old = int(pid_file.read_text())
    os.kill(old, signal.SIGKILL)
    assert _until(lambda: int(pid_file.read_text()) != old)
    assert _until(lambda: _runs(lab)), lab.docker(ALICE, "run", "--rm", "--gpus", "1", "busybox", "true")
    assert sock.stat().st_ino == inode


def _runs(lab: Lab) -> bool:
    """Whether a container with a GPU runs. One whose start was cut short is removed: it would hold a GPU of the next's limit."""
    if lab.docker(ALICE, "run", "--rm", "--gpus", "1", "busybox", "true").status == 0:
        return True
    left = lab.docker(ALICE, "ps", "-aq").out.split()
    if left:
        lab.docker(ALICE, "rm", "-f", *left)
    return False


@pytest.fixture
def fresh_root() -> Iterator[Path]:
    """A directory for a lab of the test's own; the lab is ended whatever happens."""
    require_dockerd()
    root = Path(tempfile.mkdtemp(prefix="ds01s-", dir="/tmp"))
    root.chmod(0o755)
    yield root
    server("--root", str(root), "--stop")
    shutil.rmtree(root)


@pytest.mark.parametrize("crash", [False, True], ids=["asked", "after-kill-9"])
def test_stop_leaves_nothing(fresh_root: Path, *, crash: bool) -> None:
    """No process, mount, network, link, control group or account is left, beside the other lab, even after a crash."""
    user = "ds01t-carol"
    done = server("--root", str(fresh_root), "--detach", "--users", user)
    assert done.returncode == 0, done.stdout
    tree, running = LabTree.at(fresh_root), Lab(root=fresh_root, address="")
    container = running.docker(user, "run", "-d", "busybox", "sleep", "300").out.strip()
    assert len(container) == 64
    if crash:
        os.kill(int(tree.lock.read_text()), signal.SIGKILL)
    done = server("--root", str(fresh_root), "--stop")
    assert done.returncode == 0, done.stdout
    assert _left(tree, container, user) == []


def test_stop_without_a_lab_is_fine(fresh_root: Path) -> None:
    """There is nothing to end, and that is said by exit code 0."""
    assert server("--root", str(fresh_root), "--stop").returncode == 0


def _left(tree: LabTree, container: str, user: str) -> list[str]:
    mounts = Path("/proc/self/mountinfo").read_text()
    left = [f"mount of {name}" for name in (str(tree.root), tree.short.name, user) if name in mounts]
    for path in (tree.short, Path("/run/netns", tree.netns), Path("/sys/class/net", tree.link)):
        left += [str(path)] if path.exists() else []
    for directory, _, _ in os.walk("/sys/fs/cgroup"):
        left += [directory] if container in directory or tree.cgroup in directory else []
    left += [line for line in _processes() if str(tree.root) in line or tree.short.name in line]
    names = [entry.pw_name for entry in pwd.getpwall()]
    left += [user] if user in names or Path("/home", user).exists() else []
    return left


def _processes() -> list[str]:
    listing = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True)
    return [line for line in listing.stdout.splitlines() if "pytest" not in line]


def _fetch(url: str) -> str:
    for _ in range(50):
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    return "nothing answered"


def _until(holds: Callable[[], bool]) -> bool:
    for _ in range(100):
        if holds():
            return True
        time.sleep(0.1)
    return False
