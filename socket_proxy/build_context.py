"""The context of a build: its Dockerfile as it is judged, and the tar that carries just that one.

INVARIANT: dockerd builds what was judged. The Dockerfile read here goes along once more as the last member, and the
request names it: whatever links, doubles or damaged heads stand before it, the last file of a name is what dockerd opens.
"""

from __future__ import annotations

import io
import posixpath
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from policy.dockerapi.dockerfile import MAX_CHARACTERS
from socket_proxy.image_tar import UNREADABLE, members_of, written_afresh
from socket_proxy.refusals import Refusal

DEFAULT = "Dockerfile"
_KEPT_BYTES = 16 * 1024 * 1024
_MEMBERS = 2_000_000
_LINKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """The file that is built, by its path in the context."""

    path: str
    content: bytes
    member: tarfile.TarInfo  # whose mode and owner it has

    def text(self) -> str:
        return self.content.decode("utf-8", "surrogateescape")

    def rewritten(self, change: Callable[[str], str]) -> Dockerfile:
        """The same file with another text."""
        return replace(self, content=change(self.text()).encode("utf-8", "surrogateescape"))


@dataclass(slots=True)
class _Seen:
    """What may turn out to be the Dockerfile; of two members of one name the last."""

    files: dict[str, tuple[tarfile.TarInfo, bytes]] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def follow(self, path: str) -> tuple[tarfile.TarInfo, bytes] | None:
        for _ in range(_LINKS):
            if path not in self.links:
                return self.files.get(path)
            path = self.links[path]
        return None


def dockerfile_in(context: IO[bytes], asked: str) -> Dockerfile | Refusal:
    """Read the Dockerfile that `asked` (the query key; "" for the default) names. Blocks as long as the disk does."""
    path = _clean(asked or DEFAULT)
    try:
        seen = _look(context, path)
    except UNREADABLE as error:
        return _unreadable(type(error).__name__)
    if isinstance(seen, Refusal):
        return seen
    for name in (path, path.lower()) if path == DEFAULT else (path,):
        found = seen.follow(name)
        if found is not None:
            return Dockerfile(path=name, content=found[1], member=found[0])
    # dockerd's own words, and its status
    return Refusal(status=500, message=f"Cannot locate specified Dockerfile: {asked or DEFAULT}")


def with_dockerfile(context: IO[bytes], dockerfile: Dockerfile) -> Iterator[bytes]:
    """The context written afresh, and the Dockerfile behind it."""
    member = tarfile.TarInfo(dockerfile.path)
    member.size = len(dockerfile.content)
    member.mode, member.mtime = dockerfile.member.mode, dockerfile.member.mtime
    member.uid, member.gid = dockerfile.member.uid, dockerfile.member.gid
    return written_afresh(context, keep_attributes=True, last=(member, dockerfile.content))


def _look(context: IO[bytes], wanted: str) -> _Seen | Refusal:
    context.seek(0)
    seen = _Seen()
    with tarfile.open(fileobj=context, mode="r:*") as archive:
        for count, member in enumerate(members_of(archive)):
            if count > _MEMBERS:
                return _unreadable("it holds over two million files")
            if member.issparse():
                return _unreadable("a sparse file")
            _note(archive, member, wanted, seen)
            if seen.size > _KEPT_BYTES:
                return _unreadable("too many Dockerfiles")
    return seen


def _note(archive: tarfile.TarFile, member: tarfile.TarInfo, wanted: str, seen: _Seen) -> None:
    path = _clean(member.name)
    if path.lower() != wanted.lower() and "file" not in posixpath.basename(path).lower():
        return
    seen.files.pop(path, None)
    seen.links.pop(path, None)
    if member.issym():
        seen.links[path] = _clean(posixpath.join("/", posixpath.dirname(path), member.linkname))
    elif member.islnk():
        seen.links[path] = _clean(member.linkname)
    elif member.isreg() and member.size <= 4 * MAX_CHARACTERS:
        content = archive.extractfile(member) or io.BytesIO()
        seen.files[path] = (member, content.read())
        seen.size += member.size


def _clean(path: str) -> str:
    """The path below the context's root, as dockerd scopes it."""
    return posixpath.normpath(posixpath.join("/", path)).lstrip("/")


def _unreadable(why: str) -> Refusal:
    return Refusal(
        status=400,
        message=f"ds01: the build context cannot be read ({why}; rule build); send a plain tar, as docker build does",
        rules=("build",),
    )
