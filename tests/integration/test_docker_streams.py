"""Streams of the docker CLI on real sockets: terminals, half-close, follow, and Ctrl-C at each."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Lab, eventually

pytestmark = pytest.mark.dockerd
LINES = "while true; do echo tick; sleep 0.1; done"


def engine_connections(lab: Lab) -> int:
    """Open connections of dockerd's own socket, from the kernel's table."""
    table = Path("/proc/net/unix").read_text().splitlines()
    return sum(line.endswith(f"{lab.root}/run/engine.sock") and " 03 " in line for line in table)


def running(lab: Lab) -> list[str]:
    """Every container that dockerd runs, a build's steps among them."""
    return lab.docker("root", "ps", "-q", host=f"unix://{lab.root}/run/admin.sock").out.split()


@contextlib.contextmanager
def terminal(lab: Lab, *words: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A client on a terminal of its own, as a person has it."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        lab.command(lab.alice, *words),
        env={**lab.environment(lab.alice), "TERM": "xterm"},
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=_take_terminal,  # noqa: PLW1509  this process has no threads that matter here
    )
    os.close(slave)
    try:
        yield process, master
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=10)
        os.close(master)


def _take_terminal() -> None:
    """Make standard input the controlling terminal, so that Ctrl-C reaches the client."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_until(master: int, wanted: bytes, *, seconds: float = 15) -> bytes:
    """What the terminal showed up to `wanted`."""
    seen, deadline = b"", time.monotonic() + seconds
    while wanted not in seen and time.monotonic() < deadline:
        if select.select([master], [], [], 0.2)[0]:
            try:
                seen += os.read(master, 65536)
            except OSError:  # the client has closed the terminal
                break
    assert wanted in seen, seen
    return seen


def test_a_terminal_works_inside_and_gives_the_exit_code(clean_lab: Lab) -> None:
    """run -it: a real tty with the size of ours, input echoed, exit code handed on."""
    with terminal(clean_lab, "docker", "run", "--rm", "-it", "busybox", "sh") as (process, master):
        read_until(master, b"# ")
        os.write(master, b"tty; echo $((40 + 2))\n")
        read_until(master, b"42")
        os.write(master, b"exit 5\n")
        assert process.wait(timeout=15) == 5


def test_exec_on_a_terminal(clean_lab: Lab) -> None:
    """exec -it into a running container, and a detach that leaves it running."""
    lab = clean_lab
    lab.ok(lab.alice, "run", "-d", "--name", "box", "busybox", "sleep", "600")
    with terminal(lab, "docker", "exec", "-it", "box", "sh") as (process, master):
        read_until(master, b"# ")
        os.write(master, b"tty\n")
        read_until(master, b"/dev/pts/")
        os.write(master, b"exit\n")
        assert process.wait(timeout=15) == 0
    assert lab.ok(lab.alice, "inspect", "-f", "{{.State.Running}}", "box") == "true"


def test_piped_input_ends_by_half_close(clean_lab: Lab) -> None:
    """The end of standard input reaches the container, and its last output comes back."""
    lab = clean_lab
    counted = lab.docker(lab.alice, "run", "--rm", "-i", "busybox", "wc", "-c", stdin="x" * 10_000_000)
    assert counted.out.strip() == "10000000", counted.err
    lab.ok(lab.alice, "run", "-d", "--name", "box", "busybox", "sleep", "600")
    assert lab.docker(lab.alice, "exec", "-i", "box", "sort", stdin="b\na\n").out == "a\nb\n"
    # No standard input at all: the client half-closes at once and must still get the output.
    assert lab.ok(lab.alice, "exec", "box", "echo", "out") == "out"


def test_logs_follow_as_lines_are_written(clean_lab: Lab) -> None:
    """logs -f shows lines at once, and ends when the container does."""
    lab = clean_lab
    lab.ok(
        lab.alice,
        "run",
        "-d",
        "--name",
        "talk",
        "busybox",
        "sh",
        "-c",
        "for i in 1 2 3; do echo $i; sleep 0.2; done",
    )
    assert lab.ok(lab.alice, "logs", "-f", "talk").split() == ["1", "2", "3"]


def test_attach_shows_what_comes(clean_lab: Lab) -> None:
    """attach to a running container, ended by the container's end with its exit code."""
    lab = clean_lab
    lab.ok(lab.alice, "run", "-d", "--name", "later", "busybox", "sh", "-c", "sleep 2; echo late; exit 6")
    result = lab.docker(lab.alice, "attach", "later")
    assert (result.status, result.out) == (6, "late\n")


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (("logs", "-f", "ticks"), b"tick"),
        (("attach", "--sig-proxy=false", "ticks"), b"tick"),
        (("events",), b"exec_create"),
        (("stats", "ticks"), b"ticks"),
        (("wait", "ticks"), None),
    ],
    ids=["logs", "attach", "events", "stats", "wait"],
)
def test_ctrl_c_ends_the_client_alone(clean_lab: Lab, words: tuple[str, ...], shows: bytes | None) -> None:
    """Ctrl-C ends the client, and the container runs on."""
    lab = clean_lab
    lab.ok(lab.alice, "run", "-d", "--name", "ticks", "busybox", "sh", "-c", LINES)
    with terminal(lab, "docker", *words) as (process, master):
        time.sleep(0.5)
        if words == ("events",):
            lab.ok(lab.alice, "exec", "ticks", "true")
        if shows:
            read_until(master, shows)
        for _ in range(4):
            if process.poll() is None:
                os.write(master, b"\x03")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=1.5)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=10)
    assert lab.ok(lab.alice, "inspect", "-f", "{{.State.Running}}", "ticks") == "true"


def test_requests_of_clients_that_left_end_at_dockerd(clean_lab: Lab) -> None:
    """Six followers hold six connections to dockerd; when they leave, all six are gone."""
    lab = clean_lab
    lab.ok(lab.alice, "run", "-d", "--name", "ticks", "busybox", "sh", "-c", LINES)
    with contextlib.ExitStack() as leaving:
        for _ in range(6):
            _, master = leaving.enter_context(terminal(lab, "docker", "logs", "-f", "ticks"))
            read_until(master, b"tick")
        followed = engine_connections(lab)
        assert followed >= 6
    assert eventually(lambda: engine_connections(lab) <= followed - 6, seconds=10)


def test_ctrl_c_ends_a_build(clean_lab: Lab, tmp_path: Path) -> None:
    """A build whose client leaves stops at dockerd too."""
    lab = clean_lab
    tmp_path.chmod(0o755)
    directory = Path("/home", lab.alice, "slow")
    directory.mkdir()
    try:
        (directory / "Dockerfile").write_text("FROM busybox\nRUN sleep 300\n")
        with terminal(lab, "docker", "build", str(directory)) as (process, master):
            read_until(master, b"Running in")
            assert eventually(lambda: running(lab) != [], seconds=10)
            os.write(master, b"\x03")
            process.wait(timeout=15)
        assert eventually(lambda: running(lab) == [], seconds=20)
    finally:
        (directory / "Dockerfile").unlink()
        directory.rmdir()
