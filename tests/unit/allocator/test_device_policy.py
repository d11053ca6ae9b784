"""Device policy: what is rendered, and what a kernel does with such a list."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from allocator.device_policy import BASE_NAME, Node, base, drivers, drop_ins, gpu_nodes, set_property
from policy.model import Uid

DEVICES = """Character devices:
  1 mem
  4 /dev/vc/0
  4 tty
  5 /dev/tty
  5 /dev/console
 10 misc
136 pts
195 nvidia
203 cpu/cpuid
234 nvidia-uvm
235 nvidia-caps
250 od*d
251 nvidia-nvswitch
251 shared

Block devices:
  7 loop
"""
DEVICES_CGROUP = Path("/sys/fs/cgroup/devices")


def lines(*nodes: str) -> str:
    return "".join(f"DeviceAllow={node}\n" for node in nodes)


BASE = (
    "char-mem rw",
    "char-tty rw",
    "/dev/tty rw",
    "/dev/console rw",
    "char-misc rw",
    "char-pts rw",
    "char-cpu/cpuid rw",
    "block-* rw",
)


def test_the_base_is_everything_but_nvidias() -> None:
    """By name; a path where the major has no other name; nothing that shares a major with NVIDIA, and no pattern."""
    assert tuple(map(str, base(DEVICES))) == BASE


def test_a_grant_of_all_names_every_driver() -> None:
    """Whichever of NVIDIA's drivers are loaded."""
    assert tuple(map(str, drivers(DEVICES))) == (
        "char-nvidia rw",
        "char-nvidia-uvm rw",
        "char-nvidia-caps rw",
        "char-nvidia-nvswitch rw",
    )
    assert drivers("Character devices:\n  1 mem\n") == ()


def test_a_grant_of_one_gpu_names_its_files() -> None:
    """With the control files that every CUDA program opens, and capabilities of MIG devices read-only."""
    assert tuple(map(str, gpu_nodes([2], [12, 3]))) == (
        "/dev/nvidiactl rw",
        "/dev/nvidia-uvm rw",
        "/dev/nvidia-uvm-tools rw",
        "/dev/nvidia2 rw",
        "/dev/nvidia-caps/nvidia-cap3 r",
        "/dev/nvidia-caps/nvidia-cap12 r",
    )


def test_drop_ins_close_sessions_and_cron_and_leave_admins_free() -> None:
    """The base for every user's slice and for what runs people's programs elsewhere; root's slice is always free."""
    files = drop_ins(base(DEVICES), free=[Uid(1005)], services=["cron"])
    assert sorted(files) == [
        "cron.service.d/40-ds01-gpu.conf",
        "user-.slice.d/40-ds01-gpu.conf",
        "user-0.slice.d/60-ds01-gpu.conf",
        "user-1005.slice.d/60-ds01-gpu.conf",
    ]
    closed = files["user-.slice.d/40-ds01-gpu.conf"]
    assert closed.endswith("[Slice]\nDevicePolicy=closed\nDeviceAllow=\n" + lines(*BASE))
    assert "[Service]\nDevicePolicy=closed\n" in files["cron.service.d/40-ds01-gpu.conf"]
    assert files["user-1005.slice.d/60-ds01-gpu.conf"].endswith(
        "DeviceAllow=\n" + lines("char-* rwm", "block-* rwm")
    )
    assert all(
        "nvidia" not in line for text in files.values() for line in text.splitlines() if line[0] != "#"
    )


def test_the_base_comes_before_what_set_property_writes() -> None:
    """Drop-ins count in the order of their names, whatever directory they are in."""
    assert BASE_NAME < "50-DeviceAllow.conf"


def test_a_grant_and_its_end_are_whole_lists() -> None:
    """Each begins with an empty assignment, so that nothing of an earlier one stays."""
    allowed = base("Character devices:\n  1 mem\n")
    command = (
        "systemctl",
        "set-property",
        "--runtime",
        "user-1000.slice",
        "DevicePolicy=closed",
        "DeviceAllow=",
    )
    kept = ("DeviceAllow=char-mem rw", "DeviceAllow=block-* rw")
    assert set_property(Uid(1000), allowed) == (*command, *kept)
    assert set_property(Uid(1000), allowed, [Node(name="/dev/nvidia2")]) == (
        *command,
        *kept,
        "DeviceAllow=/dev/nvidia2 rw",
    )


class Session:
    """A cgroup with a device list of its own, and node files of NVIDIA's major."""

    def __init__(self, cgroup: Path, directory: Path) -> None:
        self.cgroup = cgroup
        self.directory = directory
        for name, mode in (("nvidia0", 0o666), ("nvidia1", 0o666), ("private", 0o600)):
            path = directory / name
            os.mknod(path, stat.S_IFCHR, os.makedev(195, int(name[-1]) if name[-1].isdigit() else 0))
            path.chmod(mode)

    def oracle(self, name: str, *, uid: int = 0) -> int:
        """The errno of opening a node as a process of this session: there is no driver, so it never opens."""
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                (self.cgroup / "cgroup.procs").write_text("0")
                os.setresuid(uid, uid, uid)
                try:
                    os.close(os.open(self.directory / name, os.O_RDWR))
                except OSError as error:
                    os._exit(error.errno or 255)
            os._exit(254)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def session() -> Iterator[Session]:
    if os.geteuid() != 0 or not (DEVICES_CGROUP / "devices.deny").exists():
        pytest.skip("needs root and the devices controller of cgroup v1; v2 is tested with systemd")
    nodes = Path(tempfile.mkdtemp(prefix="ds01-nodes-"))
    nodes.chmod(0o755)  # another uid looks there
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, nodes)
        cgroup = DEVICES_CGROUP / f"ds01-{os.getpid()}"
        cgroup.mkdir()
        stack.callback(cgroup.rmdir)
        yield Session(cgroup, nodes)


def test_the_device_oracle(session: Session) -> None:
    """Without a driver, the error tells which gate was met: none, the cgroup, the file's mode, or no file."""
    assert session.oracle("nvidia0") == errno.ENXIO  # nothing in the way but that there is no GPU
    assert session.oracle("private", uid=1000) == errno.EACCES  # the mode is looked at first
    assert session.oracle("nvidia9") == errno.ENOENT
    (session.cgroup / "devices.deny").write_text("c 195:* rwm")
    assert session.oracle("nvidia0") == errno.EPERM
    assert session.oracle("private", uid=1000) == errno.EACCES
    assert session.oracle("nvidia9") == errno.ENOENT


def test_a_grant_is_for_one_gpu_and_can_be_taken_back(session: Session) -> None:
    """What systemd writes on cgroup v1 for `DeviceAllow=`: nothing but what is listed."""
    (session.cgroup / "devices.deny").write_text("a")
    (session.cgroup / "devices.allow").write_text("c 1:* rwm")
    assert [session.oracle(name) for name in ("nvidia0", "nvidia1")] == [errno.EPERM, errno.EPERM]
    (session.cgroup / "devices.allow").write_text("c 195:1 rw")
    assert [session.oracle(name) for name in ("nvidia0", "nvidia1")] == [errno.EPERM, errno.ENXIO]
    (session.cgroup / "devices.deny").write_text("c 195:1 rw")
    assert session.oracle("nvidia1") == errno.EPERM


def test_a_session_cannot_widen_what_its_parent_denies(session: Session) -> None:
    """Every ancestor must allow: a user's own cgroup below the slice gives nothing back."""
    (session.cgroup / "devices.deny").write_text("c 195:* rwm")
    below = session.cgroup / "below"
    below.mkdir()
    try:
        with pytest.raises(PermissionError):
            (below / "devices.allow").write_text("c 195:0 rw")
        assert Session.oracle(_at(session, below), "nvidia0") == errno.EPERM
    finally:
        below.rmdir()


def _at(session: Session, cgroup: Path) -> Session:
    moved = Session.__new__(Session)
    moved.cgroup, moved.directory = cgroup, session.directory
    return moved
