"""Who is at the other end: real sockets and real processes."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host import peercred
from host.peercred import Peer, Place, containers_in, hold_peer, login_uid, look, peer

if TYPE_CHECKING:
    from collections.abc import Iterator

A, B = "a" * 64, "b" * 64
PIDS_CGROUP = Path("/sys/fs/cgroup/pids")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and cgroups need root")


def test_the_peer_of_a_socket_is_told() -> None:
    """pid, uid and gid as the kernel saw them at connect."""
    left, right = socket.socketpair()
    with left, right:
        found = peer(left)
    assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())
    assert found.place is Place.HOST
    assert found.container is None


def test_an_older_kernel_gives_the_same_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without SO_PEERPIDFD the pid is opened instead."""
    left, right = socket.socketpair()
    with left, right:
        expected = peer(left)
        monkeypatch.setattr(peercred, "_SO_PEERPIDFD", 9999)
        assert peer(left) == expected


def test_no_descriptor_is_left_open() -> None:
    """One look per connection must not cost a descriptor per connection."""
    left, right = socket.socketpair()
    with left, right:
        gc.collect()  # what other tests left is closed now and not in between
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(10):
            peer(left)
        assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("0::/user.slice/user-1000.slice/session-2.scope\n", (), id="session"),
        pytest.param(f"0::/docker/{A}\n", (A,), id="cgroupfs v2"),
        pytest.param(f"12:pids:/docker/{A}\n11:cpu:/docker/{A}\n0::/\n", (A,), id="cgroupfs v1"),
        pytest.param(f"0::/system.slice/docker-{A}.scope\n", (A,), id="systemd"),
        pytest.param(f"0::/ds01-1000.slice/docker-{A}.scope\n", (A,), id="systemd, own parent"),
        pytest.param(f"4:memory:/ds01/1000/{A}\n", (A,), id="cgroupfs, own parent"),
        pytest.param(f"0::/docker/{A}/docker/{B}\n", (A,), id="nested: the outer one"),
        pytest.param(f"0::/docker/{A}/user.slice/x\n", (), id="user.slice below a container"),
        pytest.param(f"2:cpu:/docker/{A}\n1:pids:/docker/{B}\n", (A, B), id="contradiction"),
        pytest.param(f"0::/docker/{A}b\n", (), id="65 digits"),
        pytest.param(f"0::/docker/{A[:-1]}\n", (), id="63 digits"),
        pytest.param(f"0::/docker/{A.upper()}\n", (), id="upper case"),
        pytest.param("0::/docker/buildkit/abcdefghijklmnopqrstuvwxy\n", (), id="build step"),
        pytest.param(
            f"0::/user.slice/user-1000.slice/user@1000.service/docker-{A}.scope\n",
            (),
            id="made by a user's own manager",
        ),
        pytest.param(f"1:name=systemd:/user@1000.service/{A}\n", (), id="user manager elsewhere"),
        pytest.param(f"0::/odd:{A}\n", (A,), id="colon in the path"),
    ],
)
def test_containers_are_read_from_cgroup_paths(text: str, expected: tuple[str, ...]) -> None:
    """Every form dockerd uses, and no name that a user could have chosen."""
    assert containers_in(text, own=frozenset()) == expected


def test_the_daemons_own_container_says_nothing() -> None:
    """Where ds01 itself runs in a container, its peers there are not in it as users."""
    assert containers_in(f"0::/docker/{A}/x\n", own=frozenset({A})) == ()
    assert containers_in(f"0::/docker/{A}/docker/{B}\n", own=frozenset({A})) == (B,)


@contextmanager
def child(*, unshare: int = 0) -> Iterator[int]:
    """A process that waits; `unshare` gives it namespaces of its own."""
    pid = os.fork()
    if pid == 0:
        ctypes.CDLL(None).unshare(unshare)
        signal.pause()
        os._exit(0)
    time.sleep(0.05)
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_plain_process_is_on_the_host() -> None:
    """Same namespaces, no container's cgroup."""
    with child() as pid:
        assert look(pid).place is Place.HOST


@root_only
def test_foreign_namespaces_without_a_container_are_unknown() -> None:
    """A user namespace of one's own proves nothing about who one is."""
    with child(unshare=0x10000000) as pid:
        assert look(pid).place is Place.UNKNOWN


def test_a_process_that_is_gone_is_unknown() -> None:
    """Nothing is said of a pid that was reaped."""
    with child() as pid:
        pass
    assert look(pid).place is Place.UNKNOWN
    assert login_uid(pid) is None


def test_a_process_that_has_ended_is_unknown() -> None:
    """A zombie's cgroup reads as the root of the host (cgroup v1)."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert look(pid).place is Place.UNKNOWN
    os.waitpid(pid, 0)


def test_a_process_whose_first_thread_has_ended_is_unknown() -> None:
    """Its other threads run on and may connect, but its cgroup reads as a zombie's."""
    program = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), print('x', flush=True), time.sleep(30))).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert look(process.pid).place is Place.UNKNOWN
        finally:
            process.kill()


@root_only
@pytest.mark.skipif(not PIDS_CGROUP.is_dir(), reason="needs a mounted cgroup v1 pids hierarchy")
def test_a_process_in_a_containers_cgroup_is_that_containers() -> None:
    """Whatever its uid and namespaces."""
    group = PIDS_CGROUP / f"ds01-test-{os.getpid()}" / A
    group.mkdir(parents=True)
    try:
        with child() as pid:
            (group / "cgroup.procs").write_text(str(pid))
            found = look(pid)
        assert (found.place, found.container) == (Place.CONTAINER, A)
    finally:
        group.rmdir()
        group.parent.rmdir()


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1, 2**40])
def test_pids_that_cannot_be_are_unknown(pid: int) -> None:
    """0 is what a peer outside our pid namespace has."""
    assert look(pid).place is Place.UNKNOWN


def test_no_login_is_none() -> None:
    """4294967295 in /proc means that nobody logged in."""
    text = Path("/proc/self/loginuid").read_text()
    expected = None if text == "4294967295" else int(text)
    assert login_uid(os.getpid()) == expected


def test_looks_may_overlap() -> None:
    """Threads do not share state."""
    left, right = socket.socketpair()
    seen: list[Peer] = []
    with left, right:
        threads = [threading.Thread(target=lambda: seen.append(peer(left))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_a_listener_is_held_while_its_pid_is_used() -> None:
    """It is the one that called listen(2); gone in between, nothing that was read of it counts."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(b"\0ds01-peercred")
        listening.listen()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(b"\0ds01-peercred")
            with hold_peer(connection) as pid:
                assert pid == os.getpid()


def test_a_listener_that_has_ended_is_not_held() -> None:
    """Its socket may be answered by somebody who took it over."""
    program = (
        "import os, socket, sys\ns = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen()\n"
        "pid = os.fork()\nif pid == 0: print(flush=True); sys.stdin.readline()\n"
    )
    with tempfile.TemporaryDirectory() as room:
        path = f"{room}/s"
        heir = subprocess.Popen([sys.executable, "-c", program, path], stdin=-1, stdout=-1)
        with heir:
            assert heir.stdout is not None
            heir.stdout.readline()
            heir.wait()  # the first has ended, and its child has the socket
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(path)
                with pytest.raises(ProcessLookupError), hold_peer(connection):
                    pass
