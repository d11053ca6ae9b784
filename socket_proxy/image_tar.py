"""The tar of `docker load`, written afresh, and the tags it would move.

SECURITY: two readers of one tar see different members (damaged heads, `x/../manifest.json`, links), and two readers of
one JSON different keys (`repotags`). What dockerd gets is what was read here, and nothing else (I1).
"""

from __future__ import annotations

import json
import posixpath
import tarfile
from typing import IO, Any

from socket_proxy.refusals import Refusal

SPOOL_BYTES = 64 * 1024 * 1024 * 1024
_MEMBERS = 100_000
_HEADER_BYTES = 1024 * 1024
_MANIFEST_BYTES = 16 * 1024 * 1024
_NAMING_MEMBERS = frozenset({"manifest.json", "repositories", "index.json"})
_LAYER = "layer.tar"  # `docker save` of old engines writes a layer twice as a link
_LONG_HEADERS = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)
_KEYS = frozenset({"RepoTags", "manifests", "annotations"})
_FOLDED = frozenset(key.casefold() for key in _KEYS)


class _Strange(Exception):  # noqa: N818  internal: becomes a Refusal
    """The tar is none that `docker save` writes. The text says why."""


class _Member(tarfile.TarInfo):
    """SECURITY: a long name is read into memory whole, so how long it may be is bounded."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type in _LONG_HEADERS and member.size > _HEADER_BYTES:
            raise tarfile.ReadError("a header is too long")
        return member


def rewrite(given: IO[bytes], written: IO[bytes]) -> tuple[str, ...] | Refusal:
    """Copy the members that `docker save` writes from one file to another, and leave `written` at its beginning.

    Blocks as long as the tar is large. Returns: every tag that loading `written` would write, or why it may not be.
    """
    tags: list[str] = []
    given.seek(0)
    try:
        with (
            tarfile.open(fileobj=given, mode="r:*", tarinfo=_Member) as source,
            tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as target,
        ):
            for number, member in enumerate(source):
                if number >= _MEMBERS or written.tell() + member.size > SPOOL_BYTES:
                    raise _Strange("too many or too large members")  # noqa: TRY301  one edge for all that is strange
                _copy(source, member, target, tags)
    except _Strange as strange:
        return _unreadable(str(strange))
    except (tarfile.TarError, OSError, EOFError, ValueError, TypeError, AttributeError, KeyError) as error:
        return _unreadable(type(error).__name__)
    written.seek(0)
    return tuple(tags)


def _copy(source: tarfile.TarFile, member: tarfile.TarInfo, target: tarfile.TarFile, tags: list[str]) -> None:
    path = posixpath.normpath("/" + member.name).lstrip("/")
    *above, name = path.split("/")
    if not name:
        return  # the directory of the tar itself
    if _LAYER in above or not (member.isreg() or member.isdir() or (member.issym() and name == _LAYER)):
        raise _Strange(f"a member that is no plain file: {path[:80]}")
    if member.issparse() or "\0" in path:
        raise _Strange("a sparse file")
    fresh = tarfile.TarInfo(path)
    fresh.type = tarfile.REGTYPE if member.isreg() else member.type
    fresh.mode, fresh.mtime = 0o755 if member.isdir() else 0o644, int(member.mtime)
    if member.issym():
        fresh.linkname = member.linkname
    content = source.extractfile(member) if member.isreg() else None
    fresh.size = member.size if content else 0
    if path in _NAMING_MEMBERS:
        if content is None or member.size > _MANIFEST_BYTES:
            raise _Strange("a manifest that is no plain file, or is too large")
        tags += _named(path, content.read())
        content.seek(0)
    target.addfile(fresh, content)


def _named(member: str, content: bytes) -> list[str]:
    document = json.loads(content.decode(), object_pairs_hook=_unambiguous)
    if member == "manifest.json":
        return [str(tag) for image in document for tag in image.get("RepoTags") or ()]
    if member == "repositories":
        return [f"{repo}:{tag}" for repo, tags in document.items() for tag in tags]
    names = [(manifest.get("annotations") or {}) for manifest in document.get("manifests") or ()]
    keys = ("io.containerd.image.name", "org.opencontainers.image.ref.name")
    return [str(each[key]) for each in names for key in keys if key in each]


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """SECURITY: dockerd takes a key in any case, and of two the last."""
    found = dict(pairs)
    if len(found) < len(pairs) or any(key.casefold() in _FOLDED and key not in _KEYS for key in found):
        raise _Strange("a manifest with one key twice, or spelled oddly")
    return found


def _unreadable(why: str) -> Refusal:
    return Refusal(
        status=400,
        message=f"ds01: the image tar cannot be read ({why}; rule image_tags); make it with docker save",
        rules=("image_tags",),
    )
