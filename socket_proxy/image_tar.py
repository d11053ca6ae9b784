"""The tar of `docker load`: which tags it would write, and the same files written afresh.

SECURITY: dockerd moves any tag a tar names, and the names often stand in the last member. Go and Python read damaged or
doubtful tars differently, so what is in doubt is refused, and dockerd gets only what was read here.
"""

from __future__ import annotations

import asyncio
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import IO

from policy.dockerapi.tar_names import MAX_BYTES, MEMBERS, Rename, member_of, names_in, renamed
from socket_proxy.refusals import Refusal

PIECE_BYTES = 1024 * 1024
UNREADABLE = (
    tarfile.TarError,
    OSError,
    EOFError,
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    RecursionError,
    zlib.error,
    lzma.LZMAError,
)
_ATTRIBUTES = "SCHILY.xattr."
_UNPACKED_BYTES = 256 * 1024 * 1024 * 1024
_MEMBERS = 100_000
_TAG = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._/:\[\]-]{0,511}", re.ASCII)


def _next_piece(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")


def members_of(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Each member in turn, none of them remembered: a context can hold a million files.

    Behind the last one the padding may be missing: the docker CLI leaves it out of the context of `docker build -f` with a
    Dockerfile from elsewhere. SOURCE: Go, archive/tar, Reader.next reads it by tryReadFull.
    """
    end = 0  # of the content of the member before
    while True:
        try:
            member = archive.next()
        except tarfile.ReadError:
            if end and not _holds(archive, archive.offset - 1) and _holds(archive, end - 1):
                return
            raise
        if member is None:
            return
        setattr(archive, "members", [])  # noqa: B010  no part of its stub
        end = min(member.offset_data + member.size, archive.offset)  # a link has a size and no content
        yield member


def _holds(archive: tarfile.TarFile, position: int) -> bool:
    if (file := archive.fileobj) is None:
        return False
    file.seek(position)
    return bool(file.read(1))


async def off_loop(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pieces that come from a disk, as the event loop wants them."""
    while piece := await asyncio.to_thread(_next_piece, pieces):
        yield piece


def written_afresh(
    spool: IO[bytes],
    *,
    rename: Rename | None = None,
    keep_attributes: bool = False,
    last: tuple[tarfile.TarInfo, bytes] | None = None,
) -> Iterator[bytes]:
    """Every member with a head of our own.

    Args:
        rename: of an image tar that `tags_in` has read: the name inside dockerd of each name it holds.
        keep_attributes: extended attributes (file capabilities) go along; all else of a PAX head is written anew.
        last: one more file, behind all others.
    """
    spool.seek(0)
    with tarfile.open(fileobj=spool, mode="r:*") as archive:
        for member in members_of(archive):
            kept = member.pax_headers.items() if keep_attributes else ()
            member.pax_headers = {key: value for key, value in kept if key.startswith(_ATTRIBUTES)}
            content = (archive.extractfile(member) or io.BytesIO()) if member.isreg() else io.BytesIO()
            if rename is not None and member.isreg() and member_of(member.name) in MEMBERS:
                fresh = renamed(member_of(member.name), content.read(), rename)
                content, member.size = io.BytesIO(fresh), len(fresh)
            yield member.tobuf(tarfile.PAX_FORMAT)
            if member.isreg():
                yield from _padded(content, member.size)
    if last is not None:
        yield last[0].tobuf(tarfile.PAX_FORMAT)
        yield from _padded(io.BytesIO(last[1]), len(last[1]))
    yield b"\0" * tarfile.RECORDSIZE


def _padded(content: IO[bytes], size: int) -> Iterator[bytes]:
    while piece := content.read(PIECE_BYTES):
        yield piece
    if padding := -size % tarfile.BLOCKSIZE:  # an empty piece would end the stream
        yield b"\0" * padding


def tags_in(spool: IO[bytes]) -> tuple[str, ...] | Refusal:
    """Every tag that `docker load` of this tar would write; a Refusal for a tar that can be read in two ways."""
    spool.seek(0)
    tags: list[str] = []
    size = 0
    try:
        with tarfile.open(fileobj=spool, mode="r:*") as archive:
            for count, member in enumerate(archive):
                size += member.size
                if size > _UNPACKED_BYTES or count > _MEMBERS:
                    return _unreadable("it holds too much")
                if (
                    not (member.isreg() or member.isdir() or member.issym() or member.islnk())
                    or member.issparse()
                ):
                    return _unreadable("a member that docker save does not write")
                name = member_of(member.name)
                if name not in MEMBERS:
                    continue
                if not member.isreg() or member.size > MAX_BYTES:
                    return _unreadable("a manifest that is no plain file, or is too large")
                content = archive.extractfile(member)
                tags += names_in(name, (content or io.BytesIO()).read())
    except UNREADABLE as error:
        return _unreadable(type(error).__name__)
    if any(not _TAG.fullmatch(tag) for tag in tags):
        return _unreadable("a tag that is no name of an image")
    return tuple(tags)


def _unreadable(why: str) -> Refusal:
    return Refusal(
        status=400,
        message=f"ds01: the image tar cannot be read ({why}; rule image_tags); make it with docker save",
        rules=("image_tags",),
    )
