"""`script/server` itself: up with one command, down without a trace, whatever happened in between."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.processes import MARK
from lab.tree import LabTree
from tests.integration.conftest import Lab, require_dockerd, running_lab, server

pytestmark = pytest.mark.dockerd

_USER = "chaos-lab-u"
_FLAGS = ("--users", _USER, "--gpus", "none")


@pytest.fixture
def root() -> Iterator[Path]:
    """A place for a lab, cleared even when a test fails."""
    require_dockerd()
    place = Path(tempfile.mkdtemp(prefix="ds01-"))
    place.chmod(0o755)
    yield place
    server("--stop", "--root", str(place))
    shutil.rmtree(place)


def _up(root: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    done = server("--detach", "--root", str(root), *(flags or _FLAGS))
    assert done.returncode == 0, done.stderr
    return done


def _stop(root: Path) -> None:
    done = server("--stop", "--root", str(root))
    assert (done.returncode, done.stderr) == (0, "")


def _traces(root: Path) -> list[str]:
    """Whatever of this lab is left on the machine outside its own directory."""
    tree = LabTree.at(root)
    mark = f"{MARK}={tree.id}".encode()
    found = [f"process {pid}" for pid in _pids() if mark in _environment(pid)]
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found += [line for line in mounts if tree.id in line or str(root) in line or _USER in line]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    names = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    found += [line for line in (links + names).splitlines() if tree.id in line]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/*{tree.id}*")]
    found += [str(path) for path in (tree.short, Path("/home", _USER)) if path.exists()]
    return found + ["account"] * (_account(_USER) is not None)


def _pids() -> list[str]:
    return [path.name for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _environment(pid: str) -> list[bytes]:
    try:
        return Path("/proc", pid, "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _docker(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    host = f"unix://{root}/run/users/{_USER}/docker.sock"
    return subprocess.run(
        ["docker", *words],
        env={**os.environ, "DOCKER_HOST": host},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def test_up_again_and_down(root: Path) -> None:
    """Up; a second call says that it is up; down leaves nothing, a running container included; down again is fine."""
    told = _up(root).stdout
    assert str(root) in told
    assert f"{_USER}: {root}/run/users/{_USER}/docker.sock" in told
    again = _up(root).stdout
    assert "already up" in again
    assert _docker(root, "run", "-d", "--restart", "always", "busybox", "sleep", "600").returncode == 0
    assert _traces(root)
    _stop(root)
    assert _traces(root) == []
    _stop(root)


def test_the_directory_is_what_the_page_says(root: Path) -> None:
    """Sockets, settings, keys and logs are where they belong, each closed to whom it must be."""
    _up(root)
    modes = {
        "run/docker.sock": 0o666,
        "run/admin.sock": 0o600,
        "run/engine.sock": 0o600,
        "run/authz.sock": 0o600,
        f"run/users/{_USER}/docker.sock": 0o600,
        "lib/proxy": 0o700,
        "lib/allocator": 0o700,
        "lib/proxy/stamp.key": 0o600,
        "lib/stamp.pub": 0o644,
        "log": 0o700,
        "log/audit.jsonl": 0o600,
        "etc/policy.yaml": 0o644,
        "env": 0o644,
    }
    assert {name: (root / name).stat().st_mode & 0o777 for name in modes} == modes
    account = _account(_USER)
    assert account is not None
    assert (root / "run" / "users" / _USER / "docker.sock").stat().st_uid == account.pw_uid
    said = subprocess.run(
        ["sh", "-c", f". {root}/env; echo $DOCKER_HOST $DS01_ROOT"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [f"unix://{root}/run/docker.sock", str(root)]


@pytest.mark.parametrize(
    "flags",
    [("--users", "root"), ("--users", "../x"), ("--engine", "/nonexistent"), ("--nonsense",), ("half",)],
    ids=" ".join,
)
def test_wrong_flags_start_nothing(root: Path, flags: tuple[str, ...]) -> None:
    """A call that cannot be meant ends with 2 and a reason, before anything is made."""
    done = server("--detach", "--root", str(root), *flags)
    assert done.returncode == 2
    assert done.stderr
    assert list(root.iterdir()) == []


def test_up_after_a_crash_is_a_fresh_start(root: Path) -> None:
    """A new lab clears what a killed one left, keeps its files, and serves."""
    _up(root)
    made = _docker(root, "create", "busybox").stdout.strip()
    os.kill(int(LabTree.at(root).lock.read_text()), signal.SIGKILL)
    _up(root)
    assert _docker(root, "ps", "-aq", "--no-trunc").stdout.strip() == made


def test_a_second_lab_stands_beside_the_first(lab: Lab) -> None:
    """Two labs do not see each other's containers, and ending one leaves the other as it was."""
    first = lab.ok(lab.alice, "run", "-d", "busybox", "sleep", "60")
    with running_lab(_USER, "chaos-lab-v", "--gpus", "none") as second:
        made = second.ok(_USER, "run", "-d", "busybox", "sleep", "60")
        assert lab.docker("root", "inspect", made, host=f"unix://{lab.root}/run/admin.sock").status != 0
        assert lab.ok(lab.alice, "ps", "-q", "--no-trunc") == first
    assert lab.ok(lab.alice, "inspect", "-f", "{{.State.Running}}", first) == "true"
    lab.ok(lab.alice, "rm", "-f", first)


def test_an_account_that_was_there_is_kept(root: Path) -> None:
    """The lab takes away only accounts that it made."""
    subprocess.run(["useradd", "--create-home", _USER], check=True)
    try:
        _up(root)
        assert _docker(root, "ps").returncode == 0
        _stop(root)
        assert _account(_USER) is not None
        assert Path("/home", _USER).is_dir()
    finally:
        subprocess.run(["userdel", "--remove", _USER], check=False, capture_output=True)
