"""Images: one store for everybody, with tags that have owners.

Every local image is readable by all; a tag belongs to whoever made it first through ds01, and moving or removing another's
is refused by the rules before this module is asked. Here the record is kept.
"""

from __future__ import annotations

import asyncio
import io
import json
import lzma
import posixpath
import re
import tarfile
import tempfile
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import IO, Any

import msgspec

from http1.writer import forwardable
from policy.dockerapi.model import Operation, Request
from socket_proxy.answers import ANSWER_BYTES, Answers
from socket_proxy.engine import Engine
from socket_proxy.facts import normal_tag
from socket_proxy.records import Records
from socket_proxy.refusals import Refusal
from socket_proxy.transaction import Handler, Transaction

_SPOOL_BYTES = 64 * 1024 * 1024 * 1024
_PIECE_BYTES = 1024 * 1024
_MEMBERS = 100_000
_MANIFEST_BYTES = 16 * 1024 * 1024
_NAMING_MEMBERS = ("manifest.json", "repositories", "index.json")
# The id as the classic builder says it: in an aux message, or with q=1 as its only words.
_BUILT = re.compile(rb'"aux":\{"ID":"(sha256:[0-9a-f]{64})"\}|"stream":"(sha256:[0-9a-f]{64})\\n"')
_TAIL_BYTES = 256


class _Committed(msgspec.Struct):
    Id: str


class Images:
    """Handlers by operation."""

    def __init__(self, *, engine: Engine, records: Records, answers: Answers) -> None:
        self._engine = engine
        self._records = records
        self._answers = answers
        self.by_operation: dict[Operation, Handler] = {
            Operation.IMAGE_TAG: self.tag,
            Operation.IMAGE_CREATE: self.create,
            Operation.IMAGE_COMMIT: self.commit,
            Operation.IMAGE_BUILD: self.build,
            Operation.IMAGE_LOAD: self.load,
            Operation.IMAGE_DELETE: self.delete,
        }

    def _claim(self, transaction: Transaction, *tags: str) -> None:
        """Record tags that were written; what an admin tags belongs to nobody, for everybody to use."""
        for tag in map(normal_tag, tags):
            if transaction.everything:
                self._records.drop_tag(tag)
            else:
                self._records.set_tag(tag, transaction.actor.uid)

    async def tag(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status == 201:
            self._claim(transaction, _repo_tag(transaction.asked, "repo", "tag"))
        return await self._answers.relay_response(transaction, response)

    async def create(self, transaction: Transaction) -> Refusal | None:
        """Pull or import. A pulled tag is nobody's: it is everybody's to use and to pull again."""
        response = await self._answers.send(transaction)
        refusal = await self._answers.relay_response(transaction, response)
        if response.head.status != 200:
            return refusal
        if "fromSrc" not in transaction.asked.query:
            self._records.drop_tag(normal_tag(_repo_tag(transaction.asked, "fromImage", "tag")))
        elif _first(transaction.asked, "repo"):
            self._claim(transaction, _repo_tag(transaction.asked, "repo", "tag"))
        return refusal

    async def commit(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status != 201:
            return await self._answers.relay_response(transaction, response)
        body = await response.read(ANSWER_BYTES)
        self._records.claim_image(msgspec.json.decode(body, type=_Committed).Id, transaction.actor.uid)
        if _first(transaction.asked, "repo"):
            self._claim(transaction, _repo_tag(transaction.asked, "repo", "tag"))
        await transaction.exchange.respond(201, forwardable(response.head.headers), body)
        return None

    async def build(self, transaction: Transaction) -> Refusal | None:
        """Relay the builder's words, and take from them which image came out."""
        response = await self._answers.send(transaction)
        if response.head.status != 200:
            return await self._answers.relay_response(transaction, response)
        exchange = transaction.exchange
        exchange.start_response(200, forwardable(response.head.headers))
        built, failed, tail = None, False, b""
        async for chunk in response.body():
            tail += chunk
            for match in _BUILT.finditer(tail):
                built = (match[1] or match[2]).decode()
            failed = failed or b'"errorDetail"' in tail
            tail = tail[-_TAIL_BYTES:]
            await exchange.write(chunk)
        if built is not None and not failed:
            self._records.claim_image(built, transaction.actor.uid)
            self._claim(transaction, *transaction.asked.query.get("t", ()))
        await exchange.end()
        return None

    async def delete(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status != 200:
            return await self._answers.relay_response(transaction, response)
        body = await response.read(ANSWER_BYTES)
        for item in msgspec.json.decode(body, type=list[dict[str, str]]):
            if "Untagged" in item:
                self._records.drop_tag(item["Untagged"])
            if "Deleted" in item:
                self._records.drop_image(item["Deleted"])
        await transaction.exchange.respond(200, forwardable(response.head.headers), body)
        return None

    async def load(self, transaction: Transaction) -> Refusal | None:
        """Spool the tar, read which tags it brings, decide, forward.

        SECURITY: dockerd moves any tag a tar names; the names often stand in the last member, so nothing can be
        forwarded before all of it was seen.
        """
        with tempfile.TemporaryFile() as spool:
            async for piece in transaction.exchange.body():
                if spool.tell() + len(piece) > _SPOOL_BYTES:
                    return Refusal(
                        status=413,
                        message="ds01: the image tar is over 64 GiB (rule image_tags); load fewer images at once",
                        rules=("image_tags",),
                    )
                spool.write(piece)
            tags = await asyncio.to_thread(_tags_in, spool)
            if isinstance(tags, Refusal):
                return tags
            refusal = self._foreign(tags, transaction)
            if refusal is not None:
                return refusal
            response = await self._engine.send(
                transaction.request, uid=transaction.actor.uid, upload=_rewritten(spool)
            )
            if response.head.status == 200:
                self._claim(transaction, *tags)
            return await self._answers.relay_response(transaction, response)

    def _foreign(self, tags: tuple[str, ...], transaction: Transaction) -> Refusal | None:
        for tag in tags:
            owner = self._records.tag_owner(normal_tag(tag))
            if owner not in (None, transaction.actor.uid) and not transaction.everything:
                return Refusal(
                    status=403,
                    message=f"ds01: the tar would move the tag {tag}, which is another user's (rule image_tags); "
                    "save it under a name of your own",
                    rules=("image_tags",),
                )
        return None


def _first(request: Request, key: str) -> str:
    return next(iter(request.query.get(key, ())), "")


def _repo_tag(request: Request, repo_key: str, tag_key: str) -> str:
    repo, tag = _first(request, repo_key), _first(request, tag_key)
    return f"{repo}:{tag}" if tag else repo


def _next_piece(pieces: Iterator[bytes]) -> bytes:
    return next(pieces, b"")


async def _rewritten(spool: IO[bytes]) -> AsyncIterator[bytes]:
    """The tar written afresh, off the loop."""
    pieces = _written_afresh(spool)
    while piece := await asyncio.to_thread(_next_piece, pieces):
        yield piece


def _written_afresh(spool: IO[bytes]) -> Iterator[bytes]:
    """Every member with a head of our own.

    SECURITY: Go and Python read damaged or doubtful tar heads differently, so a member can be hidden from one of them.
    What dockerd gets is only what was read here.
    """
    spool.seek(0)
    with tarfile.open(fileobj=spool, mode="r:*") as archive:
        for member in archive:
            member.pax_headers = {}
            yield member.tobuf(tarfile.PAX_FORMAT)
            if member.isreg():
                content = archive.extractfile(member) or io.BytesIO()
                while piece := content.read(_PIECE_BYTES):
                    yield piece
                if padding := -member.size % tarfile.BLOCKSIZE:  # an empty piece would end the stream
                    yield b"\0" * padding
    yield b"\0" * tarfile.RECORDSIZE


def _tags_in(spool: IO[bytes]) -> tuple[str, ...] | Refusal:
    """Every tag that `docker load` of this tar would write; a Refusal for a tar that can be read in two ways."""
    spool.seek(0)
    tags: list[str] = []
    size = 0
    try:
        with tarfile.open(fileobj=spool, mode="r:*") as archive:
            for count, member in enumerate(archive):
                size += member.size
                if size > _SPOOL_BYTES or count > _MEMBERS:
                    return _unreadable("it holds too much")
                if (
                    not (member.isreg() or member.isdir() or member.issym() or member.islnk())
                    or member.issparse()
                ):
                    return _unreadable("a member that docker save does not write")
                # SECURITY: by the last part of the path, since a symbolic link can stand for the directory before it.
                name = posixpath.basename(posixpath.normpath(member.name))
                if name.casefold() not in _NAMING_MEMBERS:
                    continue
                if not member.isreg() or member.size > _MANIFEST_BYTES:
                    return _unreadable("a manifest that is no plain file, or is too large")
                content = archive.extractfile(member)
                tags += _named(name.casefold(), (content or io.BytesIO()).read())
    except (
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
    ) as error:
        return _unreadable(type(error).__name__)
    return tuple(tags)


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
    annotations = [pair for each in manifests for found in _under(each, "annotations") for pair in found]
    keys = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
    return [str(value) for key, value in annotations if key in keys]


def _under(pairs: Iterable[tuple[str, Any]], folded: str) -> list[Any]:
    return [value for key, value in pairs if key.casefold() == folded and value is not None]


def _unreadable(why: str) -> Refusal:
    return Refusal(
        status=400,
        message=f"ds01: the image tar cannot be read ({why}; rule image_tags); make it with docker save",
        rules=("image_tags",),
    )
