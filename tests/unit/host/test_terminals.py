"""Messages to terminals: real ones."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from host.terminals import tell

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a terminal of another uid is root's to make")
UID = 54321


@contextmanager
def terminal(uid: int = UID, mode: int = 0o620) -> Iterator[int]:
    """The far end of a terminal that belongs to `uid`."""
    ours, theirs = os.openpty()
    try:
        os.fchown(theirs, uid, -1)
        os.fchmod(theirs, mode)
        yield ours
    finally:
        os.close(theirs)
        os.close(ours)


def heard(end: int) -> bytes:
    readable, _, _ = select.select([end], [], [], 0.2)
    return os.read(end, 1000) if readable else b""


def test_every_terminal_of_the_user_gets_the_line() -> None:
    """And nobody else's, nor one that its user closed to messages."""
    with terminal() as one, terminal() as two, terminal(mode=0o600) as closed, terminal(UID + 1) as other:
        assert tell(UID, "ds01: \x1b[31mstop") == 2
        assert b"ds01: [31mstop" in heard(one)
        assert b"stop" in heard(two)
        assert heard(closed) == b""
        assert heard(other) == b""


def test_what_only_stands_there_is_not_written_to(tmp_path: Path) -> None:
    """A file, a link and a pipe are no terminals; a missing directory has none."""
    file = tmp_path / "0"
    file.touch()
    os.chown(file, UID, -1)
    file.chmod(0o620)
    (tmp_path / "1").symlink_to(file)
    os.mkfifo(tmp_path / "2")
    assert tell(UID, "x", directory=tmp_path) == 0
    assert file.read_bytes() == b""
    assert tell(UID, "x", directory=tmp_path / "none") == 0
