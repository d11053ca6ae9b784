"""Pins are mounts of open objects, in the runtime's namespace alone, and leave nothing. Runs as root on real mounts."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.mount_table import mounts_below
from host.mounts import bind_descriptor
from policy.model import ContainerId, Uid
from policy.stand_ins import StandIn, StandIns
from runtime import pins
from runtime.pins import Pins, StandInPins, TooLate, prepare_stand_ins

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


STAND_IN = StandIn(source="/home/alice/d", uid=Uid(1000), read_only=False)


@pytest.fixture
def stand_ins(room: Path, place: MountNamespace) -> StandIns:
    made = StandIns(str(room / "sources"))
    place.run(lambda: pins.prepare(room / "pins"))
    place.run(lambda: prepare_stand_ins(made))
    return made


def pin_at(made: StandInPins, source: Path, point: Path) -> Callable[[], None]:
    def work() -> None:
        descriptor = os.open(source, os.O_PATH | os.O_NOFOLLOW)
        try:
            made.pin(descriptor, point, lambda staged: None)
        finally:
            os.close(descriptor)

    return work


def test_a_stand_in_is_replaced_as_long_as_somebody_copies(
    room: Path, place: MountNamespace, stand_ins: StandIns
) -> None:
    """Its kind follows what it stands for; afterwards it is empty again, and nothing of the owner's is gone."""
    point = Path(stand_ins.path(STAND_IN))
    (room / "d").mkdir()
    (room / "d" / "f").write_text("mine")
    for source, read in ((room / "d", point / "f"), (room / "d" / "f", point), (room / "d", point / "f")):
        made = StandInPins(Pins(room / "pins", ID))
        assert not made.any
        place.run(pin_at(made, source, point))
        assert made.any
        assert place.run(read.read_text) == "mine"
        assert not read.is_file() or read.read_text() == "", "seen outside the namespace"
        place.run(made.remove)
        assert place.run(point.is_dir) == source.is_dir()
        assert place.run(lambda: point.is_file() or not list(point.iterdir()))
    assert (room / "d" / "f").read_text() == "mine"


def test_two_copies_at_once_leave_each_other_what_they_pinned(
    room: Path, place: MountNamespace, stand_ins: StandIns
) -> None:
    """In whichever order they end."""
    point = Path(stand_ins.path(STAND_IN))
    (room / "d").mkdir()
    (room / "d" / "f").write_text("mine")
    first, second = StandInPins(Pins(room / "pins", ID)), StandInPins(Pins(room / "pins", ID))
    place.run(pin_at(first, room / "d", point))
    place.run(pin_at(second, room / "d", point))
    place.run(first.remove)
    assert place.run((point / "f").read_text) == "mine"
    place.run(second.remove)
    assert place.run(lambda: list(point.iterdir())) == []


def test_a_stand_in_that_holds_something_is_kept(
    room: Path, place: MountNamespace, stand_ins: StandIns
) -> None:
    """Something was copied there without the guard: it is nobody's to throw away."""
    point = Path(stand_ins.path(STAND_IN))
    point.mkdir(parents=True)
    (point / "left").write_text("x")
    (room / "f").write_text("mine")
    with pytest.raises(OSError):
        place.run(pin_at(StandInPins(Pins(room / "pins", ID)), room / "f", point))
    assert (point / "left").read_text() == "x"


@pytest.mark.parametrize("times", [pytest.param(1, id="once"), pytest.param(100, id="for-ever")])
def test_a_stand_in_that_is_swept_away_in_between_is_made_anew(
    room: Path, place: MountNamespace, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """The proxy removes empty ones; a copy does not fail for that, nor does it try for ever."""
    point = Path(stand_ins.path(STAND_IN))
    (room / "d").mkdir()
    swept: list[Path] = []

    def bind(descriptor: int, target: Path) -> None:
        if target == point and len(swept) < times:
            point.rmdir()
            swept.append(point)
        bind_descriptor(descriptor, target)

    monkeypatch.setattr(pins, "bind_descriptor", bind)
    made = StandInPins(Pins(room / "pins", ID))
    if times == 1:
        place.run(pin_at(made, room / "d", point))
        assert made.any
    else:
        with pytest.raises(FileNotFoundError):
            place.run(pin_at(made, room / "d", point))
        assert not made.any
    place.run(made.remove)


def test_a_copy_that_was_given_up_pins_nothing(
    room: Path, place: MountNamespace, stand_ins: StandIns
) -> None:
    """As a start."""
    made = StandInPins(Pins(room / "pins", ID))
    place.run(made.remove)
    with pytest.raises(TooLate):
        place.run(pin_at(made, room, Path(stand_ins.path(STAND_IN))))


def test_what_a_killed_guard_left_on_stand_ins_is_taken_away(
    room: Path, place: MountNamespace, stand_ins: StandIns
) -> None:
    """And what is mounted below the owner's own directory is not touched."""
    point = Path(stand_ins.path(STAND_IN))
    (room / "d" / "sub").mkdir(parents=True)
    (room / "d" / "sub" / "f").write_text("mine")
    for _ in range(2):
        place.run(pin_at(StandInPins(Pins(room / "pins", ID)), room / "d", point))
    place.run(lambda: prepare_stand_ins(stand_ins))
    assert place.run(lambda: list(point.iterdir())) == []
    left = place.run(lambda: [str(each) for each in mounts_below(room) if "pins/" not in str(each)])
    assert sorted(left) == [str(room / "pins"), stand_ins.root]
    assert (room / "d" / "sub" / "f").read_text() == "mine"


def test_what_is_refused_never_lies_on_a_stand_in(
    room: Path, place: MountNamespace, stand_ins: StandIns
) -> None:
    """It is looked at on the board, where nobody mounts it further."""
    point = Path(stand_ins.path(STAND_IN))
    (room / "d").mkdir()
    made = StandInPins(Pins(room / "pins", ID))

    def refuse(staged: str) -> None:
        assert Path(staged).parent.parent == room / "pins"
        raise ValueError

    def work() -> None:
        descriptor = os.open(room / "d", os.O_PATH)
        try:
            made.pin(descriptor, point, refuse)
        finally:
            os.close(descriptor)

    with pytest.raises(ValueError):
        place.run(work)
    assert not made.any
    assert place.run(lambda: [each for each in mounts_below(room) if each == point]) == []
    place.run(made.remove)
    assert place.run(lambda: list((room / "pins").iterdir())) == []
