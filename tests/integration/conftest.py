"""A real lab for the tests: one for the whole session, brought up and down by `script/server` like anybody would."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = REPOSITORY / "script" / "server"
# docker-py leaves the sockets of its streams to the garbage collector.
DOCKER_PY = (
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
)
needs_compose = pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose")
PREFIX = os.environ.get("DS01_TEST_PREFIX", "ds01t")  # several checkouts can test at once
_ENGINE = os.environ.get("DS01_TEST_ENGINE")  # another dockerd than the installed one
ENGINE_FLAGS = ("--engine", _ENGINE) if _ENGINE else ()
ALICE, BOB = f"{PREFIX}-alice", f"{PREFIX}-bob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a client printed, and how it ended."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lab:
    """A running lab and its clients."""

    root: Path
    address: str  # where published ports answer
    alice: str = ALICE
    bob: str = BOB

    def socket(self, user: str) -> str:
        return f"unix://{self.root}/run/users/{user}/docker.sock"

    @property
    def front_door(self) -> str:
        return f"unix://{self.root}/run/docker.sock"

    def environment(self, user: str, host: str | None = None) -> dict[str, str]:
        """A plain login environment plus DOCKER_HOST: nothing that tells a client of ds01."""
        return {
            "PATH": f"{self.root}/bin:{os.environ['PATH']}",
            "HOME": f"/home/{user}",
            "USER": user,
            "LANG": "C.UTF-8",
            "DOCKER_HOST": host or self.socket(user),
            "DS01_ROOT": str(self.root),
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
        }

    def command(self, user: str, *words: str) -> list[str]:
        """`words` with the rights of `user`, or of root."""
        if user == "root":
            return list(words)
        return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *words]

    def run(
        self,
        user: str,
        *words: str,
        host: str | None = None,
        stdin: str | None = None,
        seconds: float = 60,
        cwd: Path | str = "/",
    ) -> Result:
        """Run a client to its end. A client that does not end is killed, and the test fails."""
        done = subprocess.run(
            self.command(user, *words),
            env=self.environment(user, host),
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
            cwd=cwd,
            check=False,
        )
        return Result(status=done.returncode, out=done.stdout, err=done.stderr)

    def docker(self, user: str, *words: str, host: str | None = None, stdin: str | None = None) -> Result:
        """The docker CLI as `user`, on the user's own socket unless `host` says otherwise."""
        return self.run(user, "docker", *words, host=host, stdin=stdin)

    def ok(self, user: str, *words: str, stdin: str | None = None) -> str:
        """The docker CLI, which must succeed; gives its standard output without the last line end."""
        result = self.docker(user, *words, stdin=stdin)
        assert result.status == 0, f"docker {' '.join(words)}: {result.err or result.out}"
        return result.out.rstrip("\n")

    def pid(self, daemon: str) -> int:
        """The process of `proxy`, `authz`, `allocator` or `dockerd`."""
        return int((self.root / "run" / "pids" / f"{daemon}.pid").read_text())

    def kill(self, daemon: str) -> None:
        """End a daemon as a crash does; the supervisor starts it again."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid(daemon), signal.SIGKILL)

    def log(self, daemon: str) -> str:
        """What a daemon has logged so far."""
        return (self.root / "log" / f"{daemon}.log").read_text(errors="replace")

    def clean(self) -> None:
        """Remove what tests left with either user."""
        for user in (self.alice, self.bob):
            ids = self.docker(user, "ps", "-aq").out.split()
            if ids:
                self.docker(user, "rm", "-f", *ids)
            volumes = self.docker(user, "volume", "ls", "-q").out.split()
            if volumes:
                self.docker(user, "volume", "rm", *volumes)
            self.docker(user, "network", "prune", "-f")


def _missing() -> str | None:
    if os.geteuid() != 0:
        return "needs root"
    return None if shutil.which("dockerd") else "needs dockerd"


def require_dockerd() -> None:
    """Skip where there is no dockerd; fail where one was promised (DS01_REQUIRE_DOCKERD)."""
    missing = _missing()
    if missing and os.environ.get("DS01_REQUIRE_DOCKERD"):
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


def server(*words: str, seconds: float = 170) -> subprocess.CompletedProcess[str]:
    """`script/server` as an admin runs it."""
    return subprocess.run(
        [str(SERVER), *words],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def eventually(check: Callable[[], bool], *, seconds: float, pause_seconds: float = 0.1) -> bool:
    """Whether `check` becomes true within `seconds`."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause_seconds)
    return True


@contextlib.contextmanager
def engine_opened(lab: Lab, reason: str) -> Iterator[Path]:
    """dockerd's own socket, to which root has access by break-glass while the body runs."""
    opened = lab.run("root", "ds01", "break-glass", "--minutes", "30", "--reason", reason)
    assert opened.status == 0, opened.err
    try:
        yield lab.root / "run" / "engine.sock"
    finally:
        lab.run("root", "ds01", "break-glass", "--close")


@contextlib.contextmanager
def running_lab(first: str, second: str, *flags: str, root: Path | None = None) -> Iterator[Lab]:
    """A lab of its own, for tests that break things; gone afterwards."""
    require_dockerd()
    root = root or Path(tempfile.mkdtemp(prefix="ds01-"))
    root.chmod(0o755)
    up = server("--detach", "--root", str(root), "--users", f"{first},{second}", *ENGINE_FLAGS, *flags)
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        address = next(
            line.rpartition(" ")[2] for line in up.stdout.splitlines() if line.startswith("Published ports")
        )
        yield Lab(root=root, address=address, alice=first, bob=second)
    finally:
        down = server("--stop", "--root", str(root))
        shutil.rmtree(root, ignore_errors=True)
        assert down.returncode == 0, down.stdout + down.stderr


@contextlib.contextmanager
def bare_engine() -> Iterator[Path]:
    """The same dockerd without ds01, with the image busybox. Gives: the directory it lives in."""
    require_dockerd()
    root = Path(tempfile.mkdtemp(prefix="ds01-bare-"))
    up = server("--detach", "--root", str(root), "--gpus", "none", *ENGINE_FLAGS, "engine-only")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield root
    finally:
        down = server("--stop", "--root", str(root))
        shutil.rmtree(root, ignore_errors=True)
        assert down.returncode == 0, down.stdout + down.stderr


@pytest.fixture(scope="session")
def lab() -> Iterator[Lab]:
    """A lab with two users, shared by all tests of the session."""
    with running_lab(ALICE, BOB) as running:
        yield running


@pytest.fixture
def clean_lab(lab: Lab) -> Iterator[Lab]:
    """The lab with nothing of an earlier test in it."""
    lab.clean()
    yield lab
    lab.clean()


@pytest.fixture
def clean(own: Lab) -> Iterator[Lab]:
    """A module's own lab with nothing of an earlier test in it."""
    own.clean()
    yield own
    own.clean()
