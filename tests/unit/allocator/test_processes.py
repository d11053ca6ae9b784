"""Processes of this host: real ones, held by real pidfds."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from allocator.attribution import NOBODY, Kind, ProcessFacts, Surroundings, attribute
from allocator.processes import Absent, Processes, Signalled
from host.clock import boot_id
from tests.fakes.waiting import SLEEP, descriptors, forked_as, running, started

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces, cgroups and other uids need root")
PIDS_CGROUP = Path("/sys/fs/cgroup/pids")
CLONE_NEWUSER = 0x10000000


@pytest.fixture
def processes() -> Iterator[Processes]:
    watched = Processes(boot_id=boot_id())
    yield watched
    watched.close()


def facts(found: ProcessFacts | Absent) -> ProcessFacts:
    assert isinstance(found, ProcessFacts)
    return found


def test_a_process_is_read(processes: Processes) -> None:
    """Identity, uids, namespaces and what it runs, as they are."""
    with running() as child:
        found = facts(processes.look(child.pid))
    assert (found.identity.boot_id, found.identity.pid) == (boot_id(), child.pid)
    assert found.identity.start_ticks > 0
    assert found.cgroup == Path("/proc/self/cgroup").read_text()
    assert found.real_uid == os.getuid()
    assert found.login_uid == int(Path("/proc/self/loginuid").read_text())
    assert found.own_pid_namespace is True
    assert found.name == "sleep"
    assert found.executable == str(Path(SLEEP).resolve())
    assert found.uid_map is not None


def test_a_service_like_process_is_attributed_to_nobody(processes: Processes) -> None:
    """The facts are what attribution needs: a child of the test, in its cgroup, is nobody's or its login's."""
    with running() as child:
        found = attribute(facts(processes.look(child.pid)), Surroundings())
    assert found.kind in (Kind.SERVICE, Kind.USER)
    assert found.login_uid in (NOBODY, int(Path("/proc/self/loginuid").read_text()))


def test_what_has_ended_is_gone(processes: Processes) -> None:
    """Between NVML's list and the look, with and without its parent having waited for it."""
    with running() as child:
        first = facts(processes.look(child.pid))
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert processes.look(child.pid) is Absent.GONE
    assert processes.look(child.pid) is Absent.GONE
    assert not processes.is_running(first.identity)


@pytest.mark.parametrize("pid", [0, -1, 2**40])
def test_what_is_no_pid_is_hidden(processes: Processes, pid: int) -> None:
    """NVML says 0 for a process that the caller's pid namespace does not hold."""
    assert processes.look(pid) is Absent.HIDDEN


def test_a_signal_reaches_its_process_only(processes: Processes) -> None:
    """By pidfd; once it has ended the answer is GONE, and nobody else gets it."""
    with running() as child:
        found = facts(processes.look(child.pid))
        other = replace(found.identity, start_ticks=found.identity.start_ticks + 1)
        assert processes.send(other, signal.SIGKILL) is Signalled.GONE
        assert processes.is_running(found.identity)
        assert processes.send(found.identity, signal.SIGTERM) is Signalled.SENT
        assert child.wait(5) == -signal.SIGTERM
        assert processes.send(found.identity, signal.SIGTERM) is Signalled.GONE
        assert processes.send(found.identity, signal.SIGTERM) is Signalled.GONE


@root_only
def test_a_pid_that_is_used_again_is_another_process(processes: Processes) -> None:
    """The first one's name and signals do not pass to the second."""
    with running() as first:
        before = facts(processes.look(first.pid))
    time.sleep(0.02)  # a tick of the clock that start times are counted in
    with forked_as(first.pid) as pid:
        after = facts(processes.look(pid))
        assert after.identity.pid == before.identity.pid
        assert after.identity != before.identity
        assert processes.send(before.identity, signal.SIGKILL) is Signalled.GONE
        assert processes.is_running(after.identity)


def test_descriptors_are_let_go(processes: Processes) -> None:
    """One for each process that runs, none for one that has ended."""
    before = descriptors()
    with running() as one, running() as two:
        for _ in range(3):
            facts(processes.look(one.pid))
            facts(processes.look(two.pid))
        assert descriptors() == before + 2
    processes.forget_ended()
    assert descriptors() == before


@root_only
def test_another_pid_and_user_namespace_are_told(processes: Processes) -> None:
    """What runs in namespaces of its own says so, and whose uid its root is."""
    program = f"import os, signal, sys\nos.setresuid(1000, 1000, 1000)\n{_UNSHARE}\nprint('ready', flush=True)\nsignal.pause()"
    with started(sys.executable, "-c", program) as child:
        found = facts(processes.look(child.pid))
    assert found.real_uid == 1000
    assert found.own_pid_namespace is True
    with running("unshare", "--pid", "--fork", "--kill-child", SLEEP, "60") as parent:
        inner = _child_of(parent.pid)
        assert facts(processes.look(inner)).own_pid_namespace is False


_UNSHARE = f"import ctypes; ctypes.CDLL(None).unshare({CLONE_NEWUSER})"


def _child_of(pid: int) -> int:
    for _ in range(100):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        if children:
            return int(children[0])
        time.sleep(0.02)
    raise AssertionError("no child")


@root_only
@pytest.mark.skipif(not PIDS_CGROUP.is_dir(), reason="needs a cgroup v1 hierarchy of pids")
def test_a_process_whose_first_thread_ended_is_still_told(processes: Processes) -> None:
    """On cgroup v1 its own entry reads "/"; a living thread says where it is."""
    cgroup = PIDS_CGROUP / f"ds01-test-{os.getpid()}"
    cgroup.mkdir()
    program = (
        "import ctypes, threading, time\n"
        f"open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    try:
        with started(sys.executable, "-c", program) as child:
            _until_zombie(child.pid)
            assert f"pids:/{cgroup.name}\n" not in Path(f"/proc/{child.pid}/cgroup").read_text()
            assert f"pids:/{cgroup.name}\n" in (facts(processes.look(child.pid)).cgroup or "")
    finally:
        cgroup.rmdir()


def _until_zombie(pid: int) -> None:
    for _ in range(100):
        if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z"):
            return
        time.sleep(0.02)
    raise AssertionError("its first thread goes on")


@root_only
def test_a_forged_path_is_not_taken_for_the_hosts_program(processes: Processes, tmp_path: Path) -> None:
    """Another file mounted over a program, in a mount namespace of one's own, has its path and is not it."""
    copy = tmp_path / "copy"
    copy.write_bytes(Path(SLEEP).read_bytes())
    copy.chmod(0o755)
    script = f"mount --bind {copy} {Path(SLEEP).resolve()} && exec {SLEEP} 60"
    with running("unshare", "--mount", "sh", "-c", script) as child:
        _until_named(child.pid, "sleep")
        assert Path(f"/proc/{child.pid}/exe").readlink() == Path(SLEEP).resolve()
        assert facts(processes.look(child.pid)).executable is None


def _until_named(pid: int, name: str) -> None:
    for _ in range(100):
        if Path(f"/proc/{pid}/comm").read_text().strip() == name:
            return
        time.sleep(0.02)
    raise AssertionError("it did not start")


def test_a_name_with_brackets_does_not_confuse(processes: Processes, tmp_path: Path) -> None:
    """The name stands between brackets in stat, and may hold brackets, spaces and digits."""
    odd = tmp_path / "a) Z 1 ("
    odd.symlink_to(SLEEP)
    with running(str(odd), "60") as child:
        found = facts(processes.look(child.pid))
    assert found.name == odd.name


def test_an_unreadable_stat_is_gone_or_unreadable(tmp_path: Path) -> None:
    """A /proc that says nothing sensible of a living process gives no facts."""
    watched = Processes(boot_id="boot", proc=tmp_path)
    entry = tmp_path / str(os.getpid())
    entry.mkdir()
    (entry / "stat").write_text("nonsense")
    assert watched.look(os.getpid()) is Absent.GONE
    watched.close()
