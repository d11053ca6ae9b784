"""The kernel's table of mounts, read as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from host.mount_table import Origin, mount_id, mounts, mounts_below, origin


def test_an_open_object_is_on_a_mount_of_the_table() -> None:
    """By the id, which is certain where one mount lies on another."""
    descriptor = os.open("/proc", os.O_PATH)
    try:
        assert mounts()[mount_id(descriptor)].filesystem == "proc"
    finally:
        os.close(descriptor)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_odd_names_are_read_whole() -> None:
    """The kernel writes blanks and backslashes in octal."""
    program = (
        "import sys; from pathlib import Path; from host.mount_table import mounts, mounts_below\n"
        "below = mounts_below(Path(sys.argv[1])); options = {m.point: m.options for m in mounts().values()}\n"
        "print([p.name for p in below], 'nosuid' in options[str(below[0])])"
    )
    with tempfile.TemporaryDirectory() as room:
        odd = Path(room) / "a b\\040c"
        odd.mkdir()
        script = 'mount -t tmpfs -o nosuid x "$1" && exec "$2" -c "$3" "$4"'
        command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(odd), sys.executable, program, room]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{[odd.name]} True"


def test_only_what_is_below_is_below() -> None:
    """Not the directory itself, nor one whose name it begins."""
    assert Path("/proc") not in mounts_below(Path("/proc"))
    assert mounts_below(Path("/pro")) == []


def _origin(path: Path) -> Origin:
    descriptor = os.open(path, os.O_PATH)
    try:
        return origin(descriptor)
    finally:
        os.close(descriptor)


def test_an_origin_is_a_file_system_and_a_path_in_it(tmp_path: Path) -> None:
    """Of a mount point the root of what is mounted there; what is below, below that."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    above, below = _origin(tmp_path), _origin(one)
    assert (below.device, below.path) == (above.device, f"{above.path.rstrip('/')}/one")
    assert _origin(two) != below
    assert _origin(Path("/proc")).path == "/"
    assert _origin(Path("/proc/sys")).path == "/sys"


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_another_namespace_shows_the_same_origin(tmp_path: Path) -> None:
    """Under whatever name it is mounted there, and the last mount at a place is what is seen; what was moved away is another."""
    work, other, seen = (tmp_path / name for name in ("work dir", "other", "seen"))
    for path in (work / "deep", other, seen):
        path.mkdir(parents=True)
    script = 'mount --bind "$2" "$3"; mount --bind "$1" "$3"; echo up; read _'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", *map(str, (work / "deep", other, seen))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        there = {mount.point: mount.origin for mount in mounts(process.pid).values()}[str(seen)]
        assert there == _origin(work / "deep")
        assert there != _origin(other)
        (work / "deep").rename(other / "deep")
        (work / "deep").mkdir()
        moved = {mount.point: mount.origin for mount in mounts(process.pid).values()}[str(seen)]
        assert moved != _origin(work / "deep")
        process.communicate(b"\n", timeout=5)


def test_what_was_deleted_is_at_no_place(tmp_path: Path) -> None:
    """The kernel says so in the name, which no other object has."""
    gone = tmp_path / "gone"
    gone.mkdir()
    descriptor = os.open(gone, os.O_PATH)
    try:
        before = origin(descriptor)
        gone.rmdir()
        gone.mkdir()
        assert origin(descriptor) != before == _origin(gone)
    finally:
        os.close(descriptor)
