"""The headers of a tar: 512 bytes to a member and back, and the records of PAX.

Reads what Go's archive/tar reads (V7, USTAR, GNU, PAX); writes one form only. Which members may pass is `archive`'s to say.
Source: POSIX pax; GNU tar, Basic Tar Format; Go archive/tar (reader.go, strconv.go), which dockerd reads with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from policy.dockerapi.model import MalformedRequest

BLOCK = 512
_TYPE_AT = 156
_CHECKSUM = slice(148, 156)
_OCTAL_MAX = 8**11  # what 11 digits hold
_ID_MAX = 8**7
_TEXT_MAX = 100
_BASE_256 = 0x80
_NEGATIVE = 0x40


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One entry. `kind` is the type flag; names are bytes, since a tar says nothing of their encoding."""

    kind: bytes
    name: bytes
    link: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size: int = 0  # of the data that follows
    mtime: int = 0


def parse(block: bytes) -> Member | None:
    """The member of one header block; None for a block of zeros, which ends an archive.

    Raises: MalformedRequest: a checksum that is wrong, a number that is none.
    """
    if not any(block):
        return None
    total = sum(block) - sum(block[_CHECKSUM]) + 8 * 0x20
    if _number(block[_CHECKSUM]) not in {total, _signed(block)}:
        raise MalformedRequest("the tar holds a header whose checksum is wrong")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and (prefix := _text(block[345:500])):
        name = prefix + b"/" + name
    return Member(
        kind=block[_TYPE_AT : _TYPE_AT + 1],
        name=name,
        link=_text(block[157:257]),
        mode=_number(block[100:108]) & 0o7777,
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        size=_number(block[124:136]),
        mtime=_number(block[136:148]),
    )


def _signed(block: bytes) -> int:
    """The sum as some old writers made it, of signed bytes."""
    rest = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    return sum(byte - 256 if byte > 127 else byte for byte in rest)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _number(field: bytes) -> int:
    """Octal digits, or GNU's base 256. What is negative counts as 0, but for a size, which no member has."""
    if field[0] & _BASE_256:
        value = int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
        if field[0] & _NEGATIVE or value >= 2**63:
            raise MalformedRequest("the tar holds a number that is negative or too large")
        return value
    digits = field.strip(b" \0")
    if digits.strip(b"01234567"):
        raise MalformedRequest("the tar holds a number that is none")
    return int(digits or b"0", 8)


def parse_records(data: bytes) -> dict[bytes, bytes]:
    """PAX records, `LENGTH KEY=VALUE` and a line end each.

    Raises: MalformedRequest.
    """
    records: dict[bytes, bytes] = {}
    while data:
        length, space, _ = data[:20].partition(b" ")
        end = int(length) if length.isdigit() else 0
        record = data[len(length) + 1 : end]
        key, equals, value = record.partition(b"=")
        if not (space and equals and key and record.endswith(b"\n") and end <= len(data)):
            raise MalformedRequest("the tar holds PAX records that cannot be read")
        records[key] = value[:-1]
        data = data[end:]
    return records


def write(member: Member, *, extended: bool = False) -> bytes:
    """The header blocks of a member: one of USTAR, and PAX records before it where that does not hold all.

    Args: extended: write the records whether they are needed or not.
    """
    records = _records(member)
    if not (records or extended):
        return _block(member)
    body = b"".join(_record(key, value) for key, value in (records or {b"comment": b"ds01"}).items())
    head = Member(kind=b"x", name=b"././@PaxHeader", size=len(body))
    return _block(head) + padded(body) + _block(member)


def _records(member: Member) -> dict[bytes, bytes]:
    """What USTAR has no room for. Names that are no ASCII go here as well, as bytes."""
    texts = ((b"path", member.name), (b"linkpath", member.link))
    found = {key: text for key, text in texts if len(text) > _TEXT_MAX or not text.isascii()}
    for key, number, limit in (
        (b"uid", member.uid, _ID_MAX),
        (b"gid", member.gid, _ID_MAX),
        (b"size", member.size, _OCTAL_MAX),
        (b"mtime", member.mtime, _OCTAL_MAX),
    ):
        if number >= limit:
            found[key] = b"%d" % number
    return found


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3  # a space, a sign and a line end
    length = rest + len(str(rest))
    if rest + len(str(length)) != length:
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _block(member: Member) -> bytes:
    """One header block; what does not fit is cut or 0, and stands in records before it."""
    parts = (
        member.name[:_TEXT_MAX].ljust(100, b"\0"),
        b"%07o\0" % member.mode,
        b"%07o\0" % (member.uid if member.uid < _ID_MAX else 0),
        b"%07o\0" % (member.gid if member.gid < _ID_MAX else 0),
        b"%011o\0" % (member.size if member.size < _OCTAL_MAX else 0),
        b"%011o\0" % (member.mtime if member.mtime < _OCTAL_MAX else 0),
        b" " * 8,
        member.kind,
        member.link[:_TEXT_MAX].ljust(100, b"\0"),
        b"ustar\00000",
    )
    block = b"".join(parts).ljust(BLOCK, b"\0")
    return block[: _CHECKSUM.start] + b"%06o\0 " % sum(block) + block[_CHECKSUM.stop :]


def padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % BLOCK)


def with_records(member: Member, records: Mapping[bytes, bytes]) -> Member:
    """A member as the records before it make it. Raises: MalformedRequest."""
    return Member(
        kind=member.kind,
        name=_checked(records.get(b"path", member.name)),
        link=_checked(records.get(b"linkpath", member.link)),
        mode=member.mode,
        uid=_decimal(records.get(b"uid"), member.uid),
        gid=_decimal(records.get(b"gid"), member.gid),
        size=_decimal(records.get(b"size"), member.size),
        mtime=_decimal(records.get(b"mtime", b"").partition(b".")[0] or None, member.mtime),
    )


def _checked(text: bytes) -> bytes:
    if b"\0" in text:
        raise MalformedRequest("the tar holds a name with a NUL character")
    return text


def _decimal(text: bytes | None, otherwise: int) -> int:
    """A number of a record; an empty value means that the header's counts, and a time before 1970 is 1970."""
    if not text:
        return otherwise
    digits = text.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > 18:
        raise MalformedRequest("the tar holds a PAX record that is no number")
    return 0 if text.startswith(b"-") else int(digits)
