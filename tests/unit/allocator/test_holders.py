"""Who has a device open: real descriptors of real processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from allocator.holders import DeviceFile, Holdings, characters, holders, majors
from tests.fakes.waiting import running, started

DEVICES = """Character devices:
  1 mem
  4 /dev/vc/0
  4 tty
195 nvidia
234 nvidia-uvm
511 nvidia-caps

Block devices:
  7 loop
195 nvidia-block
"""
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="descriptors of all processes are root's to see")


def test_nvidias_majors_are_read() -> None:
    """By name, among the character devices only."""
    assert majors(DEVICES) == {195: "nvidia", 234: "nvidia-uvm", 511: "nvidia-caps"}
    assert majors("Character devices:\n  1 mem\n") == {}
    assert (4, "/dev/vc/0") in tuple(characters(DEVICES))


@root_only
def test_who_has_a_device_open_is_found() -> None:
    """By the number of the device, whatever path it was opened by; a pipe or a plain file does not count."""
    with (
        running(stdin=subprocess.DEVNULL) as one,
        running(stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        found = holders({1: "other", 5: "tty"}).open
        assert DeviceFile(driver="other", major=1, minor=3) in found[one.pid]
        assert not any(file.minor == 9 for file in found.get(other.pid, ()))


@root_only
def test_a_node_of_any_name_is_the_device(tmp_path: Path) -> None:
    """Who makes a node of the same numbers elsewhere, and opens it, holds the device."""
    node = tmp_path / "memfd:x"
    os.mknod(node, 0o020600, os.makedev(1, 9))
    program = f"import sys; file = open({str(node)!r}); print('ready', flush=True); sys.stdin.read()"
    with started(sys.executable, "-c", program) as child:
        assert DeviceFile(driver="mem", major=1, minor=9) in holders({1: "mem"}).open[child.pid]


@root_only
def test_an_open_capability_of_a_mig_device_counts(tmp_path: Path) -> None:
    """Who has nothing open but that holds the device: it is all that opens it again."""
    (tmp_path / "devices").write_text("Character devices:\n  1 nvidia-caps\n")
    with running(stdin=subprocess.DEVNULL) as one:
        (tmp_path / str(one.pid)).symlink_to(f"/proc/{one.pid}")
        found = holders(proc=tmp_path).open[one.pid]
    assert DeviceFile(driver="nvidia-caps", major=1, minor=3) in found


def test_without_a_driver_nobody_holds_anything(tmp_path: Path) -> None:
    """Nothing is walked when /proc/devices names no driver of NVIDIA's."""
    (tmp_path / "devices").write_text("Character devices:\n  1 mem\n")
    assert holders(proc=tmp_path) == Holdings()


def test_who_cannot_be_read_is_told(tmp_path: Path) -> None:
    """A process whose descriptors are not to be seen is unknown, not one that holds nothing; one that ended is neither."""
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "fd").write_text("no directory")
    (tmp_path / "8").mkdir()
    (tmp_path / "self").mkdir()
    assert holders({1: "mem"}, proc=tmp_path) == Holdings(unread=frozenset({7}))


def test_which_gpu_a_file_is_of() -> None:
    """Minors below 254 of the main driver; control files and MIG capabilities are of no GPU of their own."""
    assert DeviceFile(driver="nvidia", major=195, minor=2).gpu_minor == 2
    assert DeviceFile(driver="nvidia-frontend", major=195, minor=0).gpu_minor == 0
    assert DeviceFile(driver="nvidia", major=195, minor=255).gpu_minor is None
    assert DeviceFile(driver="nvidia-uvm", major=234, minor=0).gpu_minor is None
