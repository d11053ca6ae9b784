"""The kernel's table of mounts, read as it is."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from host.mount_table import mount_id, mounts, mounts_below


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
