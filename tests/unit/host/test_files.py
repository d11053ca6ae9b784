"""Files that are believed, replaced as a whole, or added to."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.files import (
    READ_LIMIT_BYTES,
    FileUntrusted,
    changeable_only_by,
    read_trusted,
    version_of,
    write_atomic,
)

if TYPE_CHECKING:
    from collections.abc import Callable

OWN = frozenset({os.geteuid()})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"x")
    path.chmod(0o644)
    return path


def test_a_trusted_file_is_read(file: Path) -> None:
    """Owned by whom it must be, writable by nobody else."""
    assert read_trusted(file, owners=OWN) == b"x"


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o602])
def test_a_file_others_may_write_is_refused(file: Path, mode: int) -> None:
    """Group counts as others."""
    file.chmod(mode)
    with pytest.raises(FileUntrusted, match="chmod go-w"):
        read_trusted(file, owners=OWN)


def test_a_directory_others_may_write_is_refused(file: Path) -> None:
    """Who can write the directory can replace the file."""
    file.parent.chmod(0o777)
    with pytest.raises(FileUntrusted, match="others may write"):
        read_trusted(file, owners=OWN)


def test_a_foreign_owner_is_refused(file: Path) -> None:
    """Whose the file is decides whose words these are."""
    with pytest.raises(FileUntrusted, match="must belong to uid 12345"):
        read_trusted(file, owners=frozenset({12345}))


def test_a_link_is_refused(file: Path) -> None:
    """Nobody redirects the name."""
    link = file.with_name("link")
    link.symlink_to(file)
    with pytest.raises(FileUntrusted, match="symbolic link"):
        read_trusted(link, owners=OWN)


def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    """Opening it does not wait for a writer."""
    os.mkfifo(tmp_path / "x", 0o600)
    with pytest.raises(FileUntrusted, match="regular"):
        read_trusted(tmp_path / "x", owners=OWN)


def test_an_endless_file_is_refused(file: Path) -> None:
    """A policy has some kilobytes."""
    file.write_bytes(b"x" * (READ_LIMIT_BYTES + 1))
    with pytest.raises(FileUntrusted, match="larger"):
        read_trusted(file, owners=OWN)


def test_writing_replaces_the_whole_file(file: Path) -> None:
    """New content, mode and inode under the old name, and nothing left beside it."""
    before = version_of(file)
    write_atomic(file, b"new", mode=0o640)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert version_of(file) != before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_failed_write_changes_nothing(file: Path) -> None:
    """The old file stays, the half-written one goes."""
    target = file.parent / "directory"
    (target / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomic(target, b"new")
    assert sorted(path.name for path in file.parent.iterdir()) == ["directory", file.name]


def test_a_missing_file_has_no_version(tmp_path: Path) -> None:
    """None, also below something that is no directory."""
    (tmp_path / "file").touch()
    assert version_of(tmp_path / "gone") is None
    assert version_of(tmp_path / "file" / "x") is None


@pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
@pytest.mark.parametrize(
    ("change", "firm"),
    [
        (lambda room: None, True),
        (lambda room: os.chown(room / "d" / "f", 1000, 0), False),
        (lambda room: os.chown(room / "d", 1000, 0), False),
        (lambda room: (room / "d").chmod(0o775), False),
        (lambda room: (room / "d" / "f").chmod(0o646), False),
        (lambda room: (room / "d").chmod(0o1777), True),
    ],
    ids=["root's", "a user's file", "a user's directory", "a group's directory", "anybody's file", "sticky"],
)
@pytest.mark.parametrize("name", ["d/f", "link"])
def test_who_could_change_what_a_path_names(change: Callable[[Path], None], name: str, *, firm: bool) -> None:
    """The object, each directory above it, and for a link what it leads to."""
    with tempfile.TemporaryDirectory(prefix="ds01-files-") as made:
        room = Path(made)
        (room / "d").mkdir(mode=0o755)
        (room / "d" / "f").touch(mode=0o644)
        (room / "link").symlink_to(room / "d" / "f")
        change(room)
        assert changeable_only_by(room / name, lambda uid: uid == 0) is firm


def test_a_missing_path_is_nobodys(tmp_path: Path) -> None:
    """It says so, and does not say no."""
    with pytest.raises(OSError):
        changeable_only_by(tmp_path / "missing", lambda _: True)


@pytest.mark.parametrize("durable", [True, False])
def test_a_file_that_needs_not_last_is_replaced_as_a_whole_too(tmp_path: Path, *, durable: bool) -> None:
    """Only the disk is spared."""
    write_atomic(tmp_path / "f", b"old")
    write_atomic(tmp_path / "f", b"new", durable=durable, mode=0o640)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
