"""The front, compiled as the lab compiles it, in front of a runc that only says how it was called."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.tree import Tree
from lab import guard

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")

ID = "a" * 64


class Front:
    """The compiled program, a fake runc, and a guard whose answer is set."""

    def __init__(self, room: Path) -> None:
        self.tree = Tree.under(room)
        self.tree.run.mkdir()
        self.program = guard.build(room / "lib" / "ds01-runtime", self.tree)
        (room / "bin").mkdir()
        runc = room / "bin" / "runc"
        runc.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
        runc.chmod(0o755)
        self.room = room
        self.asked: list[bytes] = []

    def serve(self, *answer: bytes) -> socket.socket:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.tree.guard_socket))
        listening.listen()

        def run() -> None:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                question = b""
                while more := connection.recv(4096):
                    question += more
                self.asked.append(question)
                for part in answer:
                    connection.sendall(part)

        threading.Thread(target=run, daemon=True).start()
        return listening

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.room}/bin:/usr/bin:/bin", "PASSED": "on"}
        return subprocess.run(
            [self.program, *words], capture_output=True, text=True, env=environment, timeout=30, check=False
        )

    @property
    def log(self) -> Path:
        return self.room / "log.json"

    def create(self) -> subprocess.CompletedProcess[str]:
        """As containerd calls it."""
        return self.run(
            "--root", "/run/x", "--log", str(self.log), "--log-format", "json", "--systemd-cgroup",
            "create", "--bundle", "/bundle", "--pid-file", "/p", "--console-socket", "/c", ID,
        )  # fmt: skip

    def told(self) -> str:
        (line,) = self.log.read_text().splitlines()
        document = json.loads(line)
        assert document["level"] == "error"
        return str(document["msg"])


@pytest.fixture
def front() -> Iterator[Front]:
    with tempfile.TemporaryDirectory(prefix="ds01-front-") as name:
        yield Front(Path(name))


@pytest.mark.parametrize(
    "words",
    [
        ["--version"],
        ["--root", "/x", "--log", "/dev/null", "state", ID],
        ["delete", "--force", ID],
        ["exec", "--process", "create", ID],
        ["--debug", "kill", ID, "9"],
        ["features"],
        [],
    ],
)
def test_everything_but_create_goes_straight_on(front: Front, words: list[str]) -> None:
    """To runc, word by word, with its exit code; the guard needs not be there."""
    done = front.run(*words)
    assert (done.returncode, done.stdout.splitlines()) == (7, words or [""])


def test_a_create_that_may_start_goes_on(front: Front) -> None:
    """After the question, and as it came."""
    with front.serve(b"yes\n"):
        done = front.create()
    assert front.asked == [f"{ID}\0/bundle\0".encode()]
    assert done.returncode == 7
    assert done.stdout.splitlines()[-8:] == [
        "create", "--bundle", "/bundle", "--pid-file", "/p", "--console-socket", "/c", ID,
    ]  # fmt: skip
    assert not front.log.exists()


def test_a_refusal_reaches_the_log_of_the_runtime(front: Front) -> None:
    """As containerd reads it, whatever stands in the sentence; also in parts."""
    sentence = 'ds01: "x"\n\\ é (rule start); y'
    answer = b"no" + json.dumps(sentence).encode()
    with front.serve(answer[:9], answer[9:]):
        done = front.create()
    assert (done.returncode, done.stdout) == (1, "")
    assert front.told() == sentence


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"yes",
        b"yes\nx",
        b"y",
        b"YES\n",
        b"no",
        b"nothing",
        b"\0yes\n",
        b"no" + b"x" * 9000,
        b"yes\n" * 3000,
    ],
)
def test_any_other_answer_is_a_no(front: Front, answer: bytes) -> None:
    """Cut short, too long, or none."""
    with front.serve(answer):
        done = front.create()
    assert (done.returncode, done.stdout) == (1, "")
    assert "ended before it answered" in front.told()


def test_no_guard_is_a_no(front: Front) -> None:
    """No socket, or nobody behind it."""
    assert front.create().returncode == 1
    assert "is not running" in front.told()
    front.log.unlink()
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(front.tree.guard_socket))
    assert front.create().returncode == 1
    assert "is not running" in front.told()


def test_a_silent_guard_is_a_no(front: Front) -> None:
    """After a while, whose length is the program's own."""
    fast = front.room / "fast.c"
    source = guard.SOURCE.read_text().replace("#define DEADLINE_MS 20000", "#define DEADLINE_MS 300")
    fast.write_text(source)
    define = f'-DGUARD_SOCKET="{front.tree.guard_socket}"'
    subprocess.run(["gcc", *guard.FLAGS, define, "-o", str(front.program), str(fast)], check=True)
    listening = socket.socket(socket.AF_UNIX)
    with listening:
        listening.bind(str(front.tree.guard_socket))
        listening.listen()
        done = front.create()
    assert (done.returncode, done.stdout) == (1, "")
    assert "did not answer in time" in front.told()


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--bundle", "/b", ID],
        ["restore", "--bundle", "/b", ID],
        ["--unknown", "create", "--bundle", "/b", ID],
        ["--log=/x", "create", "--bundle", "/b", ID],
        ["--", "create", "--bundle", "/b", ID],
        ["create", "--bundle=/b", ID],
        ["create", "--unknown", "--bundle", "/b", ID],
        ["create", "--bundle", "/b", "-b", "/c", ID],
        ["create", "--bundle", "/b", "--", ID],
        ["create", "--bundle", "/b", ID, "more"],
        ["create", "--bundle", "/b"],
        ["create", "--bundle"],
        ["create", ID],
        ["create"],
    ],
)
def test_what_is_not_understood_is_refused(front: Front, words: list[str]) -> None:
    """Another reading could start a container unseen."""
    with front.serve(b"yes\n"):
        done = front.run(*words)
    assert (done.returncode, done.stdout) == (1, "")
    assert "(rule start)" in json.loads(done.stderr)["msg"]
    assert front.asked == []


def test_a_socket_with_too_long_a_name_is_no_program(front: Front) -> None:
    """The compiler says so."""
    with pytest.raises(subprocess.CalledProcessError):
        guard.build(front.program, Tree.under(Path("/" + "x" * 120)))
