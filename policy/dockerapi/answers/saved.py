"""The tar of `docker save` with the user's own local names plain, while it streams: nothing is held but its small naming members.

SOURCE: dockerd 20.10 to 28.5 write the naming members at the root, in any place among the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from policy.dockerapi.answers.visibility import UnreadableAnswer
from policy.dockerapi.model import MalformedRequest
from policy.dockerapi.tar_headers import BLOCK, Member, padded, parse, parse_records, write
from policy.dockerapi.tar_names import MAX_BYTES, MEMBERS

_FILES = frozenset({b"0", b"\0"})
_RECORDS, _BEFORE_A_MEMBER = b"x", frozenset({b"x", b"g", b"L", b"K"})
_HUB = b'"docker.io/library/'  # an index names images in full


class SavedTar:
    """Bytes of dockerd's tar in, bytes of the user's out."""

    def __init__(self, beginning: str) -> None:
        """`beginning`: what the user's own local names begin with inside dockerd."""
        self._beginning = b'"' + beginning.encode()
        self._held = b""
        self._passing = 0  # bytes of data and padding that go on as they are
        self._gathered: Member | None = None  # a member whose data is waited for
        self._size: int | None = None  # of the next member, where a record before it says so

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises: UnreadableAnswer: no tar."""
        data, self._held = self._held + data, b""
        at = 0
        while at < len(data):
            if self._passing:
                piece = data[at : at + self._passing]
                self._passing -= len(piece)
                yield piece
            else:
                wanted = BLOCK if self._gathered is None else _with_padding(self._gathered.size)
                piece = data[at : at + wanted]
                if len(piece) < wanted:
                    self._held = piece
                    return
                yield self._header(piece) if self._gathered is None else self._content(self._gathered, piece)
            at += len(piece)

    def close(self) -> None:
        """Raises: UnreadableAnswer: the tar ends within a member."""
        if self._held or self._passing or self._gathered is not None:
            raise UnreadableAnswer("the engine's tar ends too early")

    def _header(self, block: bytes) -> bytes:
        try:
            member = parse(block)
        except MalformedRequest as error:
            raise UnreadableAnswer(str(error)) from error
        if member is None:
            return block
        size, self._size = self._size, None
        if size is not None and member.kind not in _BEFORE_A_MEMBER:
            member = replace(member, size=size)
        names = member.kind in _FILES and member.name.decode("utf-8", "replace") in MEMBERS
        if names and member.size > MAX_BYTES:
            raise UnreadableAnswer("a member of the engine's tar is too large")
        if member.size and (names or (member.kind == _RECORDS and member.size <= MAX_BYTES)):
            self._gathered = member
            return b"" if names else block
        self._passing = _with_padding(member.size) if member.kind in _FILES | _BEFORE_A_MEMBER else 0
        return block

    def _content(self, member: Member, data: bytes) -> bytes:
        """The whole data of a gathered member."""
        self._gathered = None
        if member.kind == _RECORDS:
            try:
                records = parse_records(data[: member.size])
                self._size = int(records[b"size"]) if b"size" in records else None
            except (MalformedRequest, ValueError) as error:
                raise UnreadableAnswer("the engine's tar holds records that cannot be read") from error
            return data
        plain = _HUB if member.name == b"index.json" else b'"'
        fresh = data[: member.size].replace(self._beginning, plain)
        return write(replace(member, size=len(fresh))) + padded(fresh)


def _with_padding(size: int) -> int:
    return size + -size % BLOCK
