"""A tar on its way into a container, member by member: what dockerd would do with it as root, made harmless.

dockerd extracts `PUT /containers/{id}/archive` with its own rights, into bind mounts as well. So no device nodes and fifos,
no setuid and setgid bits, no extended attributes (file capabilities are among them), no way through a link that the
same tar brings; and in bind mounts everything is the container owner's. Every header is written afresh, so that nobody can
read another member out of the bytes. Nothing is held but a header, and the names of links.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass, replace

from policy.dockerapi.model import MalformedRequest
from policy.dockerapi.tar_headers import (
    BLOCK,
    Member,
    parse,
    parse_records,
    with_records,
    write,
)
from policy.paths import is_under

EXTENSION_BYTES_MAX = 1024 * 1024
LINK_BYTES_MAX = 8 * 1024 * 1024
NAME_BYTES_MAX = 4096  # Linux PATH_MAX

_FILE, _OLD_FILE, _CONTIGUOUS, _HARD_LINK, _SYMBOLIC_LINK, _DIRECTORY = b"0", b"\0", b"7", b"1", b"2", b"5"
_NODES = frozenset({b"3", b"4", b"6"})  # character device, block device, fifo
_RECORDS, _GLOBAL_RECORDS, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTENSIONS = frozenset({_RECORDS, _GLOBAL_RECORDS, _LONG_NAME, _LONG_LINK})
_SETUID_SETGID = 0o6000
_SPARSE = b"GNU.sparse."


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where the tar goes. `binds`: paths in the container that are bind mounts, clean; what lies there is uid's."""

    path: str
    binds: tuple[str, ...] = ()
    uid: int = 0
    gid: int = 0

    @property
    def bound(self) -> bool:
        """Whether all that goes there lies in a bind mount."""
        return self._is_bound("/" + posixpath.normpath(self.path).lstrip("/"))

    def binds_member(self, way: bytes) -> bool:
        """Whether one member does, by its way below the destination."""
        below = way.decode("utf-8", "surrogateescape")
        return self._is_bound("/" + posixpath.normpath(f"{self.path}/{below}").lstrip("/"))

    def _is_bound(self, path: str) -> bool:
        return any(is_under(path, bind) for bind in self.binds)


class ArchiveFilter:
    """Bytes of a plain tar in, bytes of another out.

    INVARIANT: filtering what was filtered changes nothing.
    """

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._held = b""
        self._left = 0  # bytes of data and padding still to come
        self._pass_on = False  # whether they go on
        self._extension: Member | None = None  # a header whose data is being gathered
        self._records: dict[bytes, bytes] = {}  # what comes before the next member
        self._links: set[bytes] = set()
        self._link_bytes = 0
        self._started = self._zero = self._ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Raises: MalformedRequest: no tar, or one that could be read in two ways."""
        data, self._held = self._held + data, b""
        at = 0
        while at < len(data) and not self._ended:
            if self._left and self._extension is None:
                piece = data[at : at + self._left]
                at, self._left = at + len(piece), self._left - len(piece)
                if self._pass_on:
                    yield piece
                continue
            wanted = self._left or BLOCK
            if len(data) - at < wanted:
                self._held = data[at:]
                return
            piece, at = data[at : at + wanted], at + wanted
            yield self._extended(piece) if self._extension else self._header(piece)

    def close(self) -> Iterator[bytes]:
        """The end of the archive. Raises: MalformedRequest: the tar ends within a member."""
        if self._left or self._held or self._extension or self._records:
            raise MalformedRequest("the tar ends too early")
        yield b"\0" * (2 * BLOCK)

    def _header(self, block: bytes) -> bytes:
        member = parse(block)
        if member is None:
            self._ended, self._zero = self._zero, True
            return b""
        if self._zero:
            raise MalformedRequest("the tar goes on after an empty block")
        if member.kind in _EXTENSIONS:
            self._begin_extension(member)
            return b""
        records, self._records = self._records, {}
        return self._member(with_records(member, records))

    # --- what stands before a member ---------------------------------------------------------------------

    def _begin_extension(self, member: Member) -> None:
        if not 0 < member.size <= EXTENSION_BYTES_MAX:
            raise MalformedRequest("the tar holds an extended header that is empty or over 1 MiB")
        self._extension, self._left = member, member.size + -member.size % BLOCK

    def _extended(self, data: bytes) -> bytes:
        extension, self._extension, self._left = self._extension, None, 0
        if extension is None:
            raise RuntimeError("no extension is gathered")
        value = data[: extension.size]
        match extension.kind:
            case b"L":
                self._records[b"path"] = value.partition(b"\0")[0]
            case b"K":
                self._records[b"linkpath"] = value.partition(b"\0")[0]
            case b"x":
                self._records |= _kept(parse_records(value))
            case _:
                pass  # global records: dockerd's reader applies them to nothing
        return b""

    # --- a member ------------------------------------------------------------------------------------------

    def _member(self, member: Member) -> bytes:
        if member.kind in _NODES or member.kind in {_HARD_LINK, _SYMBOLIC_LINK, _DIRECTORY}:
            member = replace(member, size=0)  # as Go reads them, whatever the header says
        elif member.kind in {_OLD_FILE, _CONTIGUOUS, _FILE}:
            # V7 has no directories of their own: a name that ends so is one.
            folder = member.kind == _OLD_FILE and member.name.endswith(b"/")
            member = replace(member, kind=_DIRECTORY, size=0) if folder else replace(member, kind=_FILE)
        else:
            raise MalformedRequest(
                f"the tar holds a member of type {member.kind!r}, which ds01 does not know"
            )
        self._left, self._pass_on = member.size + -member.size % BLOCK, member.kind not in _NODES
        if member.kind in _NODES:
            return b""
        self._check_way(member)
        member = self._owned(replace(member, mode=member.mode & ~_SETUID_SETGID))
        # SECURITY: dockerd looks at the first bytes for a compression, and a name could be such bytes.
        first, self._started = not self._started, True
        return write(member, extended=first)

    def _check_way(self, member: Member) -> None:
        """Names that stay below the destination, and lead through no link of this tar."""
        name = _way(member.name)
        if member.kind == _HARD_LINK:
            self._refuse_through_link(_way(member.link))
        self._refuse_through_link(posixpath.dirname(name))
        if member.kind != _SYMBOLIC_LINK:
            self._links.discard(name)  # dockerd replaces the link
            return
        if len(member.link) > NAME_BYTES_MAX:
            raise MalformedRequest("the tar holds a link that is too long")
        if name not in self._links:
            self._links.add(name)
            self._link_bytes += len(name)
        if self._link_bytes > LINK_BYTES_MAX:
            raise MalformedRequest("the tar holds too many symbolic links; copy it in parts")

    def _refuse_through_link(self, way: bytes) -> None:
        while way:
            if way in self._links:
                raise MalformedRequest("the tar holds a member behind a symbolic link of its own")
            way = posixpath.dirname(way)

    def _owned(self, member: Member) -> Member:
        """In a bind mount everything is the owner's: elsewhere a number means the container's own account."""
        destination = self._destination
        if destination.binds and destination.binds_member(_way(member.name)):
            return replace(member, uid=destination.uid, gid=destination.gid)
        return member


def _kept(records: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """The records that name, measure and own a member; extended attributes are left out."""
    if any(key.startswith(_SPARSE) for key in records):
        raise MalformedRequest("the tar holds a sparse file; make it without --sparse")
    return {key: value for key, value in records.items() if key in _KEPT_RECORDS}


_KEPT_RECORDS = frozenset({b"path", b"linkpath", b"uid", b"gid", b"size", b"mtime"})


def _way(name: bytes) -> bytes:
    """A name as the way below the destination: no empty and dot segments. Raises: MalformedRequest."""
    if len(name) > NAME_BYTES_MAX:
        raise MalformedRequest("the tar holds a name that is too long")
    parts = [part for part in name.split(b"/") if part not in {b"", b"."}]
    if b".." in parts:
        raise MalformedRequest("the tar holds a name with '..'")
    return b"/".join(parts)
