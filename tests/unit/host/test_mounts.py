"""Mounts are made in another process's namespace, and seen there alone. Runs as root on real namespaces."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.mounts import MountNamespace, bind_descriptor, keep_to_itself, mount_private_tmpfs, unmount

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ds01-mounts-") as name:
        yield Path(name)


@pytest.fixture
def other(room: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with a mount namespace of its own, in which `room/shared` is a mount that is shared with nobody yet."""
    (room / "shared").mkdir()
    script = 'mount -t tmpfs x "$1" && mount --make-shared "$1" && mkdir "$1/sub" && mount -t tmpfs y "$1/sub" && echo && exec sleep 60'
    with subprocess.Popen(
        ["unshare", "--mount", "sh", "-ec", script, "sh", str(room / "shared")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def mounted(pid: int | str) -> list[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines]


@pytest.fixture
def place(other: subprocess.Popen[bytes]) -> Iterator[MountNamespace]:
    made = MountNamespace(other.pid)
    yield made
    made.close()


def test_work_sees_what_the_other_process_sees(place: MountNamespace, room: Path) -> None:
    """And the process that asked sees its own still, in every thread."""
    assert place.run((room / "shared" / "sub").is_dir)
    assert not (room / "shared" / "sub").exists()
    seen: list[bool] = []
    thread = threading.Thread(target=lambda: seen.append((room / "shared" / "sub").exists()))
    thread.start()
    thread.join()
    assert seen == [False]


def test_a_namespace_outlives_its_process(
    place: MountNamespace, other: subprocess.Popen[bytes], room: Path
) -> None:
    """It is held: what was mounted in it can be taken away later."""
    other.kill()
    other.wait()
    assert place.run((room / "shared" / "sub").is_dir)


def test_an_open_object_is_mounted_with_what_is_below_it(
    place: MountNamespace, other: subprocess.Popen[bytes], room: Path
) -> None:
    """By its descriptor, so that no name is looked up again; here it is seen nowhere."""
    board = room / "board"
    board.mkdir()

    def pin() -> None:
        mount_private_tmpfs(board)
        (board / "0").mkdir()
        descriptor = os.open(room / "shared", os.O_PATH)
        bind_descriptor(descriptor, board / "0")
        os.close(descriptor)

    place.run(pin)
    assert str(board / "0" / "sub") in mounted(other.pid)
    assert str(board) not in mounted("self")


def test_taking_a_copy_away_leaves_the_original(
    place: MountNamespace, other: subprocess.Popen[bytes], room: Path
) -> None:
    """The source is shared: without care, unmounting the copy would unmount what is below the source."""
    board = room / "board"
    board.mkdir()

    def pin_and_unpin() -> None:
        mount_private_tmpfs(board)
        (board / "0").mkdir()
        descriptor = os.open(room / "shared", os.O_PATH)
        bind_descriptor(descriptor, board / "0")
        os.close(descriptor)
        unmount(board / "0")

    place.run(pin_and_unpin)
    now = mounted(other.pid)
    assert str(board / "0") not in now
    assert str(room / "shared" / "sub") in now


def test_a_mount_that_is_made_later_comes_in(
    place: MountNamespace, other: subprocess.Popen[bytes], room: Path
) -> None:
    """`rslave` binds go on following their source."""
    board = room / "board"
    board.mkdir()

    def pin_then_mount() -> None:
        mount_private_tmpfs(board)
        (board / "0").mkdir()
        descriptor = os.open(room / "shared", os.O_PATH)
        bind_descriptor(descriptor, board / "0")
        os.close(descriptor)
        (room / "shared" / "late").mkdir()
        subprocess.run(
            [
                "nsenter",
                "-t",
                str(other.pid),
                "-m",
                "mount",
                "-t",
                "tmpfs",
                "z",
                str(room / "shared" / "late"),
            ],
            check=True,
        )

    place.run(pin_then_mount)
    assert str(board / "0" / "late") in mounted(other.pid)


def test_what_fails_is_told(room: Path) -> None:
    """A process that is gone, a mount that is none."""
    with pytest.raises(OSError):
        MountNamespace(2**22)
    with pytest.raises(OSError):
        unmount(room)


def test_a_directory_that_keeps_to_itself_tells_nobody(
    place: MountNamespace, other: subprocess.Popen[bytes], room: Path
) -> None:
    """A copy of the namespace does not see what is mounted below it later; told twice it is one mount still."""
    kept = room / "shared" / "kept"
    script = 'mkdir -p "$1/m" && exec unshare --mount --propagation slave sh -c "echo; exec sleep 60"'
    place.run((room / "shared" / "kept").mkdir)
    for _ in range(2):
        place.run(lambda: keep_to_itself(kept))
    assert mounted(other.pid).count(str(kept)) == 1
    with subprocess.Popen(
        ["nsenter", "-t", str(other.pid), "-m", "sh", "-ec", script, "sh", str(kept)], stdout=subprocess.PIPE
    ) as copy:
        assert copy.stdout is not None
        copy.stdout.readline()
        subprocess.run(
            ["nsenter", "-t", str(other.pid), "-m", "mount", "-t", "tmpfs", "k", str(kept / "m")], check=True
        )
        assert str(kept / "m") in mounted(other.pid)
        assert str(kept / "m") not in mounted(copy.pid)
        copy.kill()
