"""Files whose content must be trusted or must last: owner and mode checks, atomic writes, appending."""

from __future__ import annotations

import os
import secrets
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH
READ_LIMIT_BYTES = 4 * 1024 * 1024


class FileUntrusted(Exception):  # noqa: N818  the name says what is wrong with the file
    """The file, or a directory on its way, could be changed by somebody it must not. Root must mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """What tells one state of a file from the next without reading it."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


def version_of(path: Path) -> Version | None:
    """The file's present version; None when there is none."""
    try:
        return _version(path.stat())
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_trusted(path: Path, *, owners: frozenset[int] = frozenset({0})) -> bytes:
    """Read a regular file that only `owners` can change; at most 4 MiB.

    The object that was opened is the one that is checked; its directory is checked too, since whoever
    can write there can put another file in its place.
    Raises: FileUntrusted: a symlink, not a regular file, a foreign owner, writable by group or others,
        or too large. OSError: missing or unreadable.
    """
    _check_directory(path.parent, owners=owners)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if path.is_symlink():
            raise FileUntrusted(f"{path} is a symbolic link") from error
        raise
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise FileUntrusted(f"{path} is not a regular file")
        _check_status(path, status, owners=owners)
        content = file.read(READ_LIMIT_BYTES + 1)
    if len(content) > READ_LIMIT_BYTES:
        raise FileUntrusted(f"{path} is larger than {READ_LIMIT_BYTES} bytes")
    return content


def _check_directory(path: Path, *, owners: frozenset[int]) -> None:
    status = path.stat()
    if status.st_mode & stat.S_ISVTX and status.st_uid == 0:
        return  # /tmp: entries belong to their owners, and the entry itself is checked
    _check_status(path, status, owners=owners | {0})


def _check_status(path: Path, status: os.stat_result, *, owners: frozenset[int]) -> None:
    if status.st_uid not in owners:
        raise FileUntrusted(f"{path} belongs to uid {status.st_uid}, must belong to {_names(owners)}")
    if status.st_mode & _OTHERS_MAY_WRITE:
        raise FileUntrusted(
            f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, others may write it; chmod go-w"
        )


def _names(owners: frozenset[int]) -> str:
    return " or ".join("root" if uid == 0 else f"uid {uid}" for uid in sorted(owners))


def write_atomic(
    path: Path,
    content: bytes,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
) -> None:
    """Replace `path` as a whole: readers see the old content or the new, also after a power loss.

    Args: mode: set before the name appears. owner: uid and gid; None leaves the process's own.
        durable: False spares the disk where a power loss takes the file's purpose along.
    Raises: OSError; nothing has changed then.
    """
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if owner is not None:
                os.fchown(file.fileno(), *owner)
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        fresh.rename(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if durable:
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def changeable_only_by(path: Path, trusted: Callable[[int], bool]) -> bool:
    """Whether only owners that are `trusted` can change what `path` names: the object, and every name on the way to it.

    Raises: OSError: missing, or a loop of links.
    """
    return all(
        _is_firm(each, trusted) for end in (path, path.resolve(strict=True)) for each in (end, *end.parents)
    )


def _is_firm(path: Path, trusted: Callable[[int], bool]) -> bool:
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return trusted(status.st_uid)
    sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    return trusted(status.st_uid) and (bool(sticky) or not status.st_mode & _OTHERS_MAY_WRITE)


def _version(status: os.stat_result) -> Version:
    return Version(
        device=status.st_dev,
        inode=status.st_ino,
        size_bytes=status.st_size,
        modified_ns=status.st_mtime_ns,
        changed_ns=status.st_ctime_ns,
    )
