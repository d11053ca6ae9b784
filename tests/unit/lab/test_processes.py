"""Daemons get the sockets that are meant for them, no rights but their own, and are started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from host.listener import listen
from lab.processes import Daemon, Supervisor, arguments, environment, spawn

LAB_ID = "0123abcd"
CODE = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A supervisor blocks signals for its whole life, which is the process's."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_each_socket_comes_under_its_own_name(tmp_path: Path) -> None:
    """Whatever numbers the sockets have here, the daemon finds each under its name."""
    names = ("front", "admin", "user-alice")
    sockets = {name: listen(tmp_path / name) for name in names}
    # In an order that makes one's number another's target, were they copied in place.
    handed = dict(sorted(sockets.items(), key=lambda item: -item[1].fileno()))
    script = (
        "import socket; from host.listener import inherited_by_name\n"
        "for name, each in inherited_by_name().items(): each.accept()[0].sendall(name.encode())"
    )
    daemon = Daemon(
        name="d",
        command=(sys.executable, "-c", script),
        log=tmp_path / "log",
        environment={"PYTHONPATH": str(CODE)},
        listeners=handed,
    )
    pid = spawn(daemon, LAB_ID)
    try:
        told = {name: _first_words(tmp_path / name) for name in handed}
    finally:
        _, status = os.waitpid(pid, 0)
        for each in sockets.values():
            each.close()
    assert told == {name: name for name in names}, (tmp_path / "log").read_text()
    assert status == 0


def _first_words(path: Path) -> str:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        return client.recv(100).decode()


def test_nothing_of_the_callers_environment_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A credential in the admin's shell does not end up in a daemon."""
    monkeypatch.setenv("SECRET_TOKEN", "x")
    passed = environment(Daemon(name="d", command=("true",), log=tmp_path / "log"), LAB_ID)
    assert "SECRET_TOKEN" not in passed
    assert passed["DS01_LAB"] == LAB_ID
    assert "LISTEN_FDS" not in passed


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up rights needs to have them")
@pytest.mark.parametrize(
    ("capabilities", "bits"), [((), 0), (("kill",), 1 << 5), (("kill", "syslog"), 1 << 5 | 1 << 34)]
)
def test_an_unprivileged_daemon_has_no_rights_left(
    tmp_path: Path, capabilities: tuple[str, ...], bits: int
) -> None:
    """No group, no capability but those that it is given, and no way to get one."""
    daemon = Daemon(
        name="d",
        command=("cat", "/proc/self/status"),
        log=tmp_path / "log",
        uid=61203,
        capabilities=capabilities,
    )
    done = subprocess.run(arguments(daemon), capture_output=True, text=True, check=True)
    status = dict(line.split(":\t", 1) for line in done.stdout.splitlines() if ":\t" in line)
    assert status["Uid"].split() == ["61203"] * 4
    assert status["Gid"].split() == ["61203"] * 4
    assert status["Groups"].split() == []
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == bits, name
    assert status["NoNewPrivs"] == "1"


def test_a_daemon_that_ends_is_started_again(tmp_path: Path) -> None:
    """A new process, its number in the pid file, and what must be cleared is cleared first."""
    cleared: list[bool] = []
    supervisor = Supervisor(lab_id=LAB_ID, pids=tmp_path)
    daemon = Daemon(name="d", command=("sleep", "60"), log=tmp_path / "log")
    supervisor.start(daemon, before_restart=lambda: cleared.append(True))
    first = supervisor.pid("d")
    assert first is not None
    assert not cleared
    os.kill(first, signal.SIGKILL)
    for _ in range(50):
        supervisor.step(0.1)
        if supervisor.pid("d") not in (None, first):
            break
    second = supervisor.pid("d")
    assert second not in (None, first)
    assert cleared == [True]
    assert (tmp_path / "d.pid").read_text() == f"{second}\n"
    assert supervisor.stop("d", timeout_seconds=5)
    assert supervisor.pid("d") is None
