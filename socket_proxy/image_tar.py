"""The tar of `docker load`: which tags it would write, and the same files written afresh.

SECURITY: dockerd moves any tag a tar names, and the names often stand in the last member. Go and Python read damaged or
doubtful tars differently, so what is in doubt is refused, and dockerd gets only what was read here.
"""

from __future__ import annotations

import asyncio
import io
import json
import lzma
import posixpath
import re
import tarfile
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import IO, Any

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
_MANIFEST_BYTES = 16 * 1024 * 1024
_TAG = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._/:\[\]-]{0,511}", re.ASCII)
_NAMING_MEMBERS = ("manifest.json", "repositories", "index.json")


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
    spool: IO[bytes], *, keep_attributes: bool = False, last: tuple[tarfile.TarInfo, bytes] | None = None
) -> Iterator[bytes]:
    """Every member with a head of our own.

    Args:
        keep_attributes: extended attributes (file capabilities) go along; all else of a PAX head is written anew.
        last: one more file, behind all others.
    """
    spool.seek(0)
    with tarfile.open(fileobj=spool, mode="r:*") as archive:
        for member in members_of(archive):
            kept = member.pax_headers.items() if keep_attributes else ()
            member.pax_headers = {key: value for key, value in kept if key.startswith(_ATTRIBUTES)}
            content = (archive.extractfile(member) or io.BytesIO()) if member.isreg() else io.BytesIO()
            if not keep_attributes and member.isreg() and _naming(member) == "manifest.json":
                fresh = _orphaned(content.read())
                content, member.size = io.BytesIO(fresh), len(fresh)
            yield member.tobuf(tarfile.PAX_FORMAT)
            if member.isreg():
                yield from _padded(content, member.size)
    if last is not None:
        yield last[0].tobuf(tarfile.PAX_FORMAT)
        yield from _padded(io.BytesIO(last[1]), len(last[1]))
    yield b"\0" * tarfile.RECORDSIZE


def _orphaned(manifest: bytes) -> bytes:
    """The manifest without `Parent`.

    SECURITY: dockerd makes a loaded image a child of the one named there, and the classic builder takes a child whose
    configuration fits for the result of its next step: whoever builds on that parent would get what was loaded.
    """

    def without(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: value for key, value in pairs if key.casefold() != "parent"}

    return json.dumps(json.loads(manifest, object_pairs_hook=without)).encode()


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
                name = _naming(member)
                if name not in _NAMING_MEMBERS:
                    continue
                if not member.isreg() or member.size > _MANIFEST_BYTES:
                    return _unreadable("a manifest that is no plain file, or is too large")
                content = archive.extractfile(member)
                tags += _named(name, (content or io.BytesIO()).read())
    except UNREADABLE as error:
        return _unreadable(type(error).__name__)
    if any(not _TAG.fullmatch(tag) for tag in tags):
        return _unreadable("a tag that is no name of an image")
    return tuple(tags)


def _naming(member: tarfile.TarInfo) -> str:
    """Which naming member this may be. SECURITY: by the last part of its path, since a link can stand for those before."""
    return posixpath.basename(posixpath.normpath(member.name)).casefold()


def _named(member: str, content: bytes) -> list[str]:
    """The tags one naming member holds.

    SECURITY: Go matches keys in any case and takes the last of two, so every spelling and every copy counts.
    """
    document = json.loads(content, object_pairs_hook=tuple)
    if member == "manifest.json":
        return [str(tag) for image in document for tags in _under(image, "repotags") for tag in tags]
    if member == "repositories":
        return [f"{repo}:{tag}" for repo, tags in document for tag, _ in tags]
    manifests = [each for found in _under(document, "manifests") for each in found]
    return [name for each in manifests for name in _annotated(each)]


def _annotated(manifest: Iterable[tuple[str, Any]]) -> list[str]:
    """The names an index gives one image: a full one, or, only where that is missing, what is often a mere tag.

    SOURCE: containerd client/import.go, imageName; docker save of engine 25 and later writes "latest" for the second.
    SECURITY: of two full names Go takes the last, which may be empty, and a second `annotations` may clear the first:
    then the mere tag counts too.
    """
    found = [value for key, value in manifest if key.casefold() == "annotations"]
    pairs = [pair for value in found if value is not None for pair in value]
    full = [value for key, value in pairs if key == "io.containerd.image.name"]
    short = [value for key, value in pairs if key == "org.opencontainers.image.ref.name"]
    plain = len(found) == 1 and bool(full) and all(isinstance(value, str) and value for value in full)
    return [str(value) for value in (full if plain else [*full, *short]) if value]


def _under(pairs: Iterable[tuple[str, Any]], folded: str) -> list[Any]:
    return [value for key, value in pairs if key.casefold() == folded and value is not None]


def _unreadable(why: str) -> Refusal:
    return Refusal(
        status=400,
        message=f"ds01: the image tar cannot be read ({why}; rule image_tags); make it with docker save",
        rules=("image_tags",),
    )
