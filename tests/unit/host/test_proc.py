"""Small files of /proc, and processes held by pidfd."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from host.proc import has_ended, is_over, read, stat_fields

STAT = "7 (a) Z 1 () S 1 " + " ".join("0" for _ in range(18))


def test_a_small_file_is_read_whole() -> None:
    """As it stands."""
    assert read("/proc/self/comm") == Path("/proc/self/comm").read_text()


def test_a_file_that_is_too_long_is_no_part_of_itself(tmp_path: Path) -> None:
    """Half a file would say something else; one byte less is read."""
    long = tmp_path / "long"
    long.write_bytes(b"a" * 65535)
    assert len(read(long)) == 65535
    long.write_bytes(b"a" * 65536)
    with pytest.raises(ValueError, match="longer than was read"):
        read(long)


def test_a_file_that_is_not_there_is_told() -> None:
    """As the kernel says it."""
    with pytest.raises(FileNotFoundError):
        read("/proc/self/none")


def test_a_name_takes_no_part_in_the_fields() -> None:
    """It may hold brackets, spaces and a state of its own."""
    assert stat_fields(STAT)[:2] == ["S", "1"]
    assert not is_over(STAT)


@pytest.mark.parametrize("state", ["Z", "X", "x"])
def test_an_ended_thread_is_over(state: str) -> None:
    """Zombie or dead."""
    assert is_over(STAT.replace(" S ", f" {state} "))


@pytest.mark.parametrize("stat", ["", "nonsense", "7 (a) S", "7 (a) S 1 2"])
def test_a_stat_that_is_cut_off_says_nothing(stat: str) -> None:
    """Neither that it runs nor that it has ended."""
    with pytest.raises(ValueError, match="cut off"):
        is_over(stat)


def test_a_process_has_ended_before_it_is_reaped() -> None:
    """And has not while it runs."""
    with subprocess.Popen(["sleep", "60"]) as child:
        pidfd = os.pidfd_open(child.pid)
        try:
            assert not has_ended(pidfd)
            child.kill()
            deadline = time.monotonic() + 10
            while not has_ended(pidfd):
                assert time.monotonic() < deadline
            assert is_over(read(f"/proc/{child.pid}/stat"))
        finally:
            os.close(pidfd)
