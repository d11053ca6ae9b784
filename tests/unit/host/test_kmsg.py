"""The kernel's log as records: the real one where this machine lets it be read, and a FIFO in its place."""

from __future__ import annotations

import errno
import os
import select
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from host.kmsg import KernelLog

if TYPE_CHECKING:
    from collections.abc import Iterator

REAL = Path("/dev/kmsg")


class Ring(KernelLog):
    """A log whose reads are given, in the forms in which Linux answers them."""

    def __init__(self, *answers: bytes | int) -> None:
        self.answers = list(answers)
        self._descriptor = -1

    def next(self, _descriptor: int, _size: int) -> bytes:
        answer = self.answers.pop(0) if self.answers else errno.EAGAIN
        if isinstance(answer, int):
            raise OSError(answer, os.strerror(answer))
        return answer


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "kmsg")
    return tmp_path / "kmsg"


@pytest.fixture
def opened(fifo: Path) -> Iterator[KernelLog]:
    log = KernelLog(fifo)
    yield log
    log.close()


def written(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    os.write(descriptor, data)
    os.close(descriptor)


def test_lines_come_whole_and_in_order(fifo: Path, opened: KernelLog) -> None:
    """Also from writers that come and go; without one there is nothing, and it does not block."""
    assert opened.read().lines == ()
    written(fifo, b"6,1,1,-;one\n SUBSYSTEM=pci\n")
    written(fifo, b"6,2,2,-;two\n")
    found = opened.read()
    assert found.lines == (b"6,1,1,-;one", b" SUBSYSTEM=pci", b"6,2,2,-;two")
    assert not found.overrun
    assert opened.read().lines == ()


def test_what_was_overwritten_is_told_and_the_rest_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """EPIPE is no end: the next read begins at the oldest record that is left."""
    ring = Ring(b"6,1,1,-;one\n", errno.EPIPE, b"6,9,9,-;nine\n")
    monkeypatch.setattr(os, "read", ring.next)
    found = ring.read()
    assert (found.lines, found.overrun) == ((b"6,1,1,-;one", b"6,9,9,-;nine"), True)
    assert not ring.read().overrun


@pytest.mark.parametrize("answer", [b"", errno.ENODEV], ids=["ended", "gone"])
def test_a_log_that_ends_is_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch, answer: bytes | int) -> None:
    """Nothing where something was announced, or an error, is said as such."""
    ring = Ring(answer)
    monkeypatch.setattr(os, "read", ring.next)
    with pytest.raises(OSError, match=r"ended|device"):
        ring.read()


def test_a_flood_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One call returns after a number of records, and the next goes on where it ended."""
    ring = Ring(*(f"6,{number},1,-;x\n".encode() for number in range(150)))
    monkeypatch.setattr(os, "read", ring.next)
    first, second = ring.read().lines, ring.read().lines
    assert (len(first), second[0]) == (100, b"6,100,1,-;x")


def test_a_log_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    """And leaves no descriptor."""
    before = len([*Path("/proc/self/fd").iterdir()])
    with pytest.raises(FileNotFoundError):
        KernelLog(tmp_path / "none")
    assert len([*Path("/proc/self/fd").iterdir()]) == before


@pytest.mark.skipif(os.geteuid() != 0 or not REAL.exists(), reason="needs root and the kernel's log")
def test_the_real_log_is_read_from_now_on_and_tells_who_wrote() -> None:
    """What a user writes there as the kernel's has another facility, and is one record whatever is in it."""
    log = KernelLog(REAL)
    lines: list[bytes] = []
    deadline = time.monotonic() + 5
    try:
        # Without a newline at its end a record is held back until the next one.
        REAL.write_bytes(b"<3>ds01 test: a user's record\n3,1,2,-;of two lines\n")
        while not any(b"ds01 test" in line for line in lines) and time.monotonic() < deadline:
            select.select([log], [], [], 0.2)
            lines += log.read().lines
    finally:
        log.close()
    assert not any(b"Linux version" in line for line in lines)
    (line,) = [line for line in lines if b"ds01 test" in line]
    assert int(line.split(b",")[0]) >> 3 == 1
    assert line.endswith(b";ds01 test: a user's record\\x0a3,1,2,-;of two lines")
