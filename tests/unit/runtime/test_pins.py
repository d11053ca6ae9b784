"""Pins are mounts of open objects, in the runtime's namespace alone, and leave nothing. Runs as root on real mounts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.mounts import bind_descriptor
from policy.model import ContainerId
from runtime import pins
from runtime.pins import Pins, TooLate

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from host.mounts import MountNamespace

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

ID = ContainerId("a" * 64)


@pytest.fixture
def board(room: Path, place: MountNamespace) -> Path:
    place.run(lambda: pins.prepare(room / "pins"))
    return room / "pins"


def pin(made: Pins, source: Path) -> Callable[[], Path]:
    def work() -> Path:
        descriptor = os.open(source, os.O_PATH | os.O_NOFOLLOW)
        try:
            return made.pin(descriptor)
        finally:
            os.close(descriptor)

    return work


def test_a_directory_and_a_file_are_pinned(room: Path, place: MountNamespace, board: Path) -> None:
    """Each where only root gets, and as they are, whatever happens to their names."""
    (room / "d").mkdir()
    (room / "d" / "f").write_text("mine")
    made = Pins(board, ID)
    directory = place.run(pin(made, room / "d"))
    file = place.run(pin(made, room / "d" / "f"))
    (room / "d").rename(room / "elsewhere")
    (room / "d").symlink_to("/etc")
    assert place.run((directory / "f").read_text) == "mine"
    assert place.run(file.read_text) == "mine"
    assert place.run(lambda: board.stat().st_mode & 0o777) == 0o700
    assert not directory.exists(), "seen outside the namespace"


def test_removing_leaves_the_source(room: Path, place: MountNamespace, board: Path) -> None:
    """Nothing of a pin stays, and nothing of the owner's goes."""
    (room / "d").mkdir()
    (room / "d" / "f").write_text("mine")
    made = Pins(board, ID)
    for source in (room / "d", room / "d" / "f", room / "d"):
        place.run(pin(made, source))
    assert made.any
    place.run(made.remove)
    assert place.run(lambda: list(board.iterdir())) == []
    assert (room / "d" / "f").read_text() == "mine"


def test_after_removing_nothing_is_pinned(room: Path, place: MountNamespace, board: Path) -> None:
    """A start that was given up, and whose file system answers at last, comes too late."""
    made = Pins(board, ID)
    place.run(made.remove)
    assert not made.any
    with pytest.raises(TooLate):
        place.run(pin(made, room))
    assert place.run(lambda: list(board.iterdir())) == []


def test_the_place_is_made_once(place: MountNamespace, board: Path, room: Path) -> None:
    """Repeating it covers no pin."""
    made = Pins(board, ID)
    point = place.run(pin(made, room))
    place.run(lambda: pins.prepare(board))
    assert place.run(point.exists)


def test_only_what_is_stale_is_swept(room: Path, place: MountNamespace, board: Path) -> None:
    """A guard that starts anew may find a start of its predecessor's that still goes on."""
    (room / "d").mkdir()
    (room / "d" / "f").write_text("mine")
    old, new = Pins(board, ID), Pins(board, ID)
    for each in (old, new):
        place.run(pin(each, room / "d"))
    past = time.time() - pins.STALE_SECONDS - 1
    place.run(lambda: os.utime(old.directory, (past, past)))
    place.run(lambda: pins.sweep(board))
    assert place.run(lambda: list(board.iterdir())) == [new.directory]
    assert (room / "d" / "f").read_text() == "mine"


def test_a_container_that_uses_a_pin_keeps_its_mount(
    room: Path, place: MountNamespace, board: Path, runtime_process: subprocess.Popen[bytes]
) -> None:
    """What was mounted from the pin is a mount of its own."""
    (room / "d").mkdir()
    (room / "d" / "f").write_text("mine")
    made = Pins(board, ID)
    point = place.run(pin(made, room / "d"))
    (room / "container").mkdir()

    def mount() -> None:
        descriptor = os.open(point, os.O_PATH)
        bind_descriptor(descriptor, room / "container")
        os.close(descriptor)

    place.run(mount)
    place.run(made.remove)
    assert place.run((room / "container" / "f").read_text) == "mine"
    mounted = Path(f"/proc/{runtime_process.pid}/mountinfo").read_text()
    assert str(made.directory) not in mounted
