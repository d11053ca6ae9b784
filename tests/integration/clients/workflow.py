"""What people do with one client, as a table: steps that two users take side by side, each seeing only their own.

A client is run as it comes, in a plain login environment: no flag and no setting of it is ds01's, except that engines
before 24 want `DOCKER_BUILDKIT=0` there. In every text
`%tag%` is what `%user%` calls their things, `%home%` the directory of the workflow, `%port%` a port of the user's own,
`%address%` where published ports answer, and `%docker%` the docker CLI.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import shlex
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.compatibility import DOES_NOT_APPLY
from tests.integration.conftest import REPOSITORY, Lab, Result

CLIENTS = REPOSITORY / ".venv" / "clients"
STEP_SECONDS = 300
BUILDKIT_SINCE = 24  # what ds01 can keep to one user; before it the login environment says DOCKER_BUILDKIT=0
_FIRST_PORT = 18500


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One command line, and what its output must and must not hold."""

    line: str
    says: tuple[str, ...] = ()
    hides: tuple[str, ...] = ()
    stdin: str | None = None
    fails: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """Ten steps or more with one client. `files` are written into `%home%` before the first."""

    steps: tuple[Step, ...]
    files: Mapping[str, str] = field(default_factory=dict)


def step(
    line: str, *says: str, hides: tuple[str, ...] = (), stdin: str | None = None, fails: bool = False
) -> Step:
    """A line of a workflow's table."""
    return Step(line=line, says=says, hides=hides, stdin=stdin, fails=fails)


def client(*names: str) -> Path:
    """The directory of a client that `script/test --clients` installed; without that, the test is skipped."""
    if not os.environ.get("DS01_CLIENTS"):
        pytest.skip("only with script/test --clients")
    found = CLIENTS.joinpath(*names)
    if not found.exists():
        pytest.skip(f"this system has no {' '.join(names)}")
    return found.parent


def major(lab: Lab) -> int:
    """The engine's version, its first number."""
    return int(lab.ok(lab.alice, "version", "-f", "{{.Server.Version}}").split(".")[0])


def needs_buildkit(lab: Lab) -> None:
    """Skip on engines whose BuildKit cannot be kept to one user."""
    if major(lab) < BUILDKIT_SINCE:
        pytest.skip(f"{DOES_NOT_APPLY}engines before {BUILDKIT_SINCE} cannot keep BuildKit to one user")


@contextlib.contextmanager
def plugin(lab: Lab, program: Path) -> Iterator[None]:
    """A plugin of the docker CLI where Docker's documentation tells users to put it."""
    directories = [Path("/home", user, ".docker/cli-plugins") for user in (lab.alice, lab.bob)]
    for user, directory in zip((lab.alice, lab.bob), directories, strict=True):
        directory.mkdir(parents=True, exist_ok=True)
        shutil.chown(directory.parent, user, user)
        (directory / program.name).unlink(missing_ok=True)
        (directory / program.name).symlink_to(program)
    try:
        yield
    finally:
        for directory in directories:
            (directory / program.name).unlink(missing_ok=True)


class Desk:
    """One user at work on one workflow."""

    def __init__(self, lab: Lab, user: str, *, number: int, programs: Path | None = None) -> None:
        self.lab, self.user = lab, user
        self.tag = f"{user.rpartition('-')[2]}{number}"
        self.home = Path("/home", user, f"{self.tag}work")
        self.port = _FIRST_PORT + number
        path = f"PATH={programs}:{os.environ['PATH']}" if programs else f"PATH={os.environ['PATH']}"
        no_word = (
            ("-u", "DOCKER_BUILDKIT", "-u", "COMPOSE_DOCKER_CLI_BUILD")
            if major(lab) >= BUILDKIT_SINCE
            else ()
        )
        self._login = ("env", *no_word, path)

    def filled(self, text: str) -> str:
        """`text` with this user's words for the placeholders."""
        for name, value in {
            "tag": self.tag,
            "user": self.user,
            "docker": shutil.which("docker") or "docker",
            "home": str(self.home),
            "port": str(self.port),
            "address": self.lab.address,
        }.items():
            text = text.replace(f"%{name}%", value)
        return text

    def prepare(self, files: Mapping[str, str]) -> None:
        """The workflow's directory, owned by the user."""
        shutil.rmtree(self.home, ignore_errors=True)
        self.home.mkdir()
        for name, content in files.items():
            path = self.home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self.filled(content))
            path.chmod(0o755)
        for path in (self.home, *self.home.rglob("*")):
            shutil.chown(path, self.user, self.user)

    def run(self, line: str, *, stdin: str | None = None) -> Result:
        """One command line as the user types it."""
        words = shlex.split(self.filled(line))
        home = self.home if self.home.is_dir() else Path("/")
        return self.lab.run(
            self.user,
            *self._login,
            *words,
            stdin=None if stdin is None else self.filled(stdin),
            cwd=home,
            seconds=STEP_SECONDS,
        )

    def take(self, one: Step) -> str:
        """Take one step and hold it to its table. Returns: what was shown."""
        result = self.run(one.line, stdin=one.stdin)
        shown = result.out + result.err
        told = f"{self.user}: {self.filled(one.line)}\n{shown}"
        assert (result.status != 0) == one.fails, told
        for text in one.says:
            assert self.filled(text) in shown, f"{self.filled(text)!r} is missing\n{told}"
        for text in one.hides:
            assert self.filled(text) not in shown, f"{self.filled(text)!r} is shown\n{told}"
        return shown

    def play(self, workflow: Workflow) -> str:
        """All steps in order. Returns: all that was shown."""
        self.prepare(workflow.files)
        try:
            return "".join(self.take(one) for one in workflow.steps)
        finally:
            shutil.rmtree(self.home, ignore_errors=True)


def side_by_side(lab: Lab, workflow: Workflow, *, programs: Path | None = None) -> None:
    """Both users take all steps at the same time, and neither is ever shown a word of the other's."""
    shows = sum(max(1, len(one.says)) for one in workflow.steps)
    assert shows >= 10, "a workflow is ten steps or more"
    desks = [
        Desk(lab, user, number=number, programs=programs)
        for number, user in enumerate((lab.alice, lab.bob), start=1)
    ]
    with concurrent.futures.ThreadPoolExecutor(len(desks)) as workers:
        shown = list(workers.map(lambda desk: desk.play(workflow), desks))
    assert desks[1].tag not in shown[0]
    assert desks[0].tag not in shown[1]
