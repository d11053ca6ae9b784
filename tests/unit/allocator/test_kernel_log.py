"""XIDs in the kernel log: which records are the driver's, what they say, and hearing them as they are written."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator.kernel_log import LogEar, LoggedXid, PciAddress, parse_address, parse_record

if TYPE_CHECKING:
    from pathlib import Path

AT = PciAddress(domain=0, bus=0x07, device=0)
HEAD = b"3,1047,5123456,-;"
XID = b"NVRM: Xid (PCI:0000:07:00): 79, "


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        pytest.param(
            b"NVRM: Xid (PCI:0000:07:00): 79, pid=1234, name=python, GPU has fallen off the bus.",
            LoggedXid(address=AT, xid=79),
            id="with a process",
        ),
        pytest.param(
            b"NVRM: Xid (PCI:0000:07:00): 13, pid='<unknown>', name=<unknown>, Graphics SM Warp Exception",
            LoggedXid(address=AT, xid=13),
            id="of a process that is not known, older drivers",
        ),
        pytest.param(
            b"NVRM: Xid (PCI:0000:07:00): 79, GPU has fallen off the bus.",
            LoggedXid(address=AT, xid=79),
            id="without a process, the oldest and the newest",
        ),
        pytest.param(
            b"NVRM: Xid (PCI:0000:07:00): 45, pid=7, name=a, Ch 00000008 caused by previous Xid 31",
            LoggedXid(address=AT, xid=45),
            id="with its cause",
        ),
        pytest.param(
            b"NVRM: Xid (PCI:0000:07:00 GPU-I:05): 31, pid=7, name=a, Ch 00000008",
            LoggedXid(address=AT, xid=31, gpu_instance_id=5),
            id="of a GPU instance",
        ),
        pytest.param(
            b"NVRM: Xid (PCI:0000:07:00 GPU-I:13 GPU-CI:00): 31, pid=7, name=a, Ch 00000008",
            LoggedXid(address=AT, xid=31, gpu_instance_id=13, compute_instance_id=0),
            id="of a compute instance",
        ),
        pytest.param(
            b"NVRM: Xid (PCI:10000:e1:1f): 48, ",
            LoggedXid(address=PciAddress(domain=0x10000, bus=0xE1, device=0x1F), xid=48),
            id="behind a bridge with a domain of its own, no message",
        ),
    ],
)
def test_the_drivers_lines_are_read(message: bytes, expected: LoggedXid) -> None:
    """In every form that its versions have, with and without what a kernel says of who printed it."""
    assert parse_record(HEAD + message) == expected
    assert parse_record(b"0,1,2,-,caller=T1234;" + message) == expected


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"11,1,2,-;" + XID, id="a user's, level 3"),
        pytest.param(b"8,1,2,-;" + XID, id="a user's, level 0"),
        pytest.param(b"30,1,2,-;" + XID, id="a daemon's"),
        pytest.param(b"03,1,2,-;" + XID, id="no number that the kernel writes"),
        pytest.param(b"2051,1,2,-;" + XID, id="a facility of more bits than there are"),
        pytest.param(b"3,1,2,c;" + XID, id="part of a line"),
        pytest.param(b"3,1,2,+;" + XID, id="the rest of a line, older kernels"),
        pytest.param(b"3,1,2,-;python[7]: " + XID, id="within another message"),
        pytest.param(b"3,1,2,-; " + XID, id="not from the beginning"),
        pytest.param(b"3,1,2,-;a\\x0a3,1,2,-;" + XID, id="behind an escaped newline"),
        pytest.param(b"3,1,2,-;a\n3,1,2,-;" + XID, id="behind a newline"),
        pytest.param(HEAD + XID + b"\n", id="a newline at the end"),
        pytest.param(HEAD + XID + b"a\x1b[2J", id="control characters"),
        pytest.param(HEAD + XID + "é".encode(), id="beyond ASCII"),
        pytest.param(b" " + HEAD + XID, id="a value of a key"),
        pytest.param(b" NVRM=3,1,2,-;" + XID, id="a key"),
        pytest.param(b"3,1,2,-,caller=;x;" + XID, id="two ends of the head"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:07:00): 79", id="cut off"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:07:00): -79, ", id="below zero"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:07:00): 1e3, ", id="no number"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:07:00.0): 79, ", id="an address with a function"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:7:00): 79, ", id="a short address"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:07:00 GPU-CI:01): 79, ", id="an instance of nothing"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:07:00 GPU-I:5): 79, ", id="a short instance"),
        pytest.param(HEAD + b"NVRM: Xid (PCI:0000:07:00  GPU-I:05): 79, ", id="two spaces"),
        pytest.param(
            HEAD + b"NVRM: GPU 0000:07:00.0: GPU has fallen off the bus.", id="another of its lines"
        ),
        pytest.param(b"", id="nothing"),
        pytest.param(XID, id="no head"),
    ],
)
def test_nothing_else_is_an_xid(line: bytes) -> None:
    """Not what users write, not a part of a line, nor anything that only looks like the driver's."""
    assert parse_record(line) is None


def test_a_process_cannot_name_an_error_of_another_gpu() -> None:
    """Its name stands behind the driver's own words, whatever is in it."""
    name = b"x): 79, NVRM: Xid (PCI:0000:0f:00 GPU-I:05): 48, "
    found = parse_record(HEAD + b"NVRM: Xid (PCI:0000:07:00): 13, pid=7, name=" + name)
    assert found == LoggedXid(address=AT, xid=13)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("00000000:07:00.0", AT),
        ("0000:07:00", AT),
        ("00010000:E1:1F.0", PciAddress(domain=0x10000, bus=0xE1, device=0x1F)),
        ("07:00.0", None),
        ("00000000:07:00.0\n", None),
        ("", None),
    ],
)
def test_both_spellings_of_an_address_are_one(text: str, expected: PciAddress | None) -> None:
    """NVML's has more digits, capitals and a function."""
    assert parse_address(text) == expected


def test_an_address_is_told_as_the_log_has_it() -> None:
    """So that it can be looked for there."""
    assert str(AT) == "0000:07:00"
    assert str(PciAddress(domain=0x10000, bus=0xE1, device=0x1F)) == "10000:e1:1f"


async def heard(ear_of: list[LoggedXid], number: int) -> None:
    async with asyncio.timeout(5):
        while len(ear_of) < number:  # noqa: ASYNC110  the ear tells the test by this list
            await asyncio.sleep(0.005)


async def test_lines_are_heard_as_they_are_written(tmp_path: Path) -> None:
    """What the driver writes is told at once, what others write is not, and nothing after the end."""
    path, told = tmp_path / "kmsg", list[LoggedXid]()
    os.mkfifo(path)
    ear = LogEar(path, heard=told.append)
    assert ear.problem is not None
    ear.listen()
    assert ear.problem is None
    path.write_bytes(
        b"6,1,1,-;eth0: link up\n12,2,2,-;" + XID + b"\n" + HEAD + XID + b"\n DEVICE=+pci:0000\n"
    )
    await heard(told, 1)
    path.write_bytes(HEAD + XID.replace(b"79", b"48") + b"\n")
    await heard(told, 2)
    ear.close()
    assert [one.xid for one in told] == [79, 48]


@pytest.mark.parametrize("kind", ["missing", "a file", "a directory"])
async def test_a_log_that_cannot_be_heard_is_said_once(tmp_path: Path, kind: str) -> None:
    """And stops nothing; a file that is no log is none."""
    path = tmp_path / "kmsg"
    if kind == "a file":
        path.write_bytes(HEAD + XID + b"\n")
    if kind == "a directory":
        path.mkdir()
    ear = LogEar(path, heard=lambda _xid: None)
    with structlog.testing.capture_logs() as lines:
        ear.listen()
        await asyncio.sleep(0.05)
        ear.close()
    assert [(line["event"], line["path"]) for line in lines] == [("kernel_log.unavailable", str(path))]
    assert str(path) in (ear.problem or "")


async def test_records_that_were_lost_are_said_and_the_next_are_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel overwrote what was not read in time: that is a line of our log, and no end."""
    path, told = tmp_path / "kmsg", list[LoggedXid]()
    os.mkfifo(path)
    ear = LogEar(path, heard=told.append)
    read, overrun = os.read, [True]

    def overrun_once(descriptor: int, size: int) -> bytes:
        if overrun:
            overrun.clear()
            raise BrokenPipeError
        return read(descriptor, size)

    ear.listen()
    monkeypatch.setattr("host.kmsg.os.read", overrun_once)
    with structlog.testing.capture_logs() as lines:
        path.write_bytes(HEAD + XID + b"\n")
        await heard(told, 1)
    monkeypatch.undo()
    ear.close()
    assert [line["event"] for line in lines] == ["kernel_log.overrun"]
