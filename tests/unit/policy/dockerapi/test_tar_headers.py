"""Headers of a tar: what is read, what is written, and what is no header."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import MalformedRequest
from policy.dockerapi.tar_headers import BLOCK, Member, parse, parse_records, with_records, write


@pytest.mark.parametrize(
    "member",
    [
        Member(kind=b"0", name=b"a", mode=0o755, uid=1000, gid=1000, size=5, mtime=1),
        Member(kind=b"2", name=b"l", link=b"t" * 100),
        Member(kind=b"5", name=b"d/", uid=8**7 - 1, mtime=8**11 - 1),
    ],
)
def test_what_fits_one_block_reads_back(member: Member) -> None:
    """One header and nothing before it."""
    block = write(member)
    assert len(block) == BLOCK
    assert parse(block) == member


@pytest.mark.parametrize(
    "member",
    [
        Member(kind=b"0", name=b"n" * 101),
        Member(kind=b"0", name="ü".encode()),
        Member(kind=b"1", name=b"a", link=b"l" * 4000),
        Member(kind=b"0", name=b"a", uid=8**7, gid=2**32 - 2, size=8**11, mtime=2**40),
    ],
)
def test_what_does_not_fit_has_records_before_it(member: Member) -> None:
    """A PAX header, its records, and the member's own."""
    data = write(member)
    head = parse(data[:BLOCK])
    assert head is not None
    assert head.kind == b"x"
    last = parse(data[-BLOCK:])
    assert last is not None
    assert with_records(last, parse_records(data[BLOCK : BLOCK + head.size])) == member


def test_zeros_end_an_archive() -> None:
    """Such a block is no member."""
    assert parse(b"\0" * BLOCK) is None


@pytest.mark.parametrize(
    ("at", "field", "says"),
    [
        (148, b"0000001", "checksum"),
        (124, b"9", "number"),
        (124, b"\xff" * 12, "negative"),
        (108, b"\x80" + b"\xff" * 7, "checksum"),
    ],
)
def test_a_header_that_is_none(at: int, field: bytes, says: str) -> None:
    """A wrong checksum, or a field that holds no number where the checksum is right."""
    block = bytearray(write(Member(kind=b"0", name=b"a")))
    block[at : at + len(field)] = field
    if says != "checksum":
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    with pytest.raises(MalformedRequest, match=says):
        parse(bytes(block))


@pytest.mark.parametrize("data", [b"x", b"9 path=a\n5", b"6 =ab\n", b"-1 a=b\n", b"99 a=b\n"])
def test_records_that_cannot_be_read(data: bytes) -> None:
    """A length that is none or wrong, or no key."""
    with pytest.raises(MalformedRequest):
        parse_records(data)


@pytest.mark.parametrize("records", [{b"path": b"a\0b"}, {b"size": b"1e3"}, {b"uid": b"9" * 19}])
def test_records_that_mean_nothing(records: dict[bytes, bytes]) -> None:
    """A name with a NUL, and numbers that are none."""
    with pytest.raises(MalformedRequest):
        with_records(Member(kind=b"0", name=b"a"), records)
