"""A bind source looked at as its owner: what the owner could not open, it does not get mounted.

dockerd opens the path as root and container root passes every mode bit below it, so three things are
settled here: the owner can reach and use the object itself; it is a directory or a regular file; and no
mount at or below it honours setuid files or device nodes, since container root can write both.

What this does not settle: whether policy permits the place. A symbolic link may lead anywhere the owner can
go, so **the caller evaluates the returned `source`, not the one that was asked for**. And a path is resolved
again whenever somebody opens it: `hold` gives the object itself, for the guard to mount (docs/decisions/0009-guard.md).
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from host.mount_table import Mount, mount_id, mounts
from host.thread import in_own_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_LIBC = ctypes.CDLL(None, use_errno=True)
_SYS_OPENAT2 = 437  # the same number on every architecture since Linux 5.6
_SYS_SETGROUPS = {"x86_64": 116, "aarch64": 159, "riscv64": 159}
_SYS_FACCESSAT2 = 439  # Linux 5.8
_AT_EACCESS, _AT_EMPTY_PATH = 0x200, 0x1000
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS = 0x02, 0x04
_OPEN_HOW = struct.Struct("=QQQ")
_UNCHANGED = 0xFFFFFFFF  # setfsuid(-1) changes nothing and tells the present value
_PATH_LIMIT = 4095
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
_NEVER_FILESYSTEMS = frozenset(
    {
        "proc",
        "sysfs",
        "cgroup",
        "cgroup2",
        "devtmpfs",
        "devpts",
        "debugfs",
        "tracefs",
        "securityfs",
        "configfs",
    }
    | {
        "bpf",
        "pstore",
        "efivarfs",
        "fusectl",
        "binfmt_misc",
        "selinuxfs",
        "nsfs",
        "autofs",
        "mqueue",
        "hugetlbfs",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A source that may be mounted, as far as its owner's rights go.

    source: the real path, without symbolic links at the moment of looking; this is what is forwarded.
    owner_uid: whose the object is; not always the one who asked (shared directories).
    moved: the real path is not the one that was asked for.
    """

    source: str
    device: int
    inode: int
    is_directory: bool
    owner_uid: int
    moved: bool
    created: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BindRefused:
    """Why not, and what to do, in words for the user."""

    problem: str
    next_step: str


class _Refusal(Exception):  # noqa: N818  internal: becomes a BindRefused
    def __init__(self, problem: str, next_step: str) -> None:
        super().__init__(problem)
        self.refused = BindRefused(problem=problem, next_step=next_step)


def examine(
    source: str,
    *,
    owner_uid: int,
    owner_gid: int,
    owner_gids: frozenset[int],
    read_only: bool,
    create: bool,
    setuid_ok: bool,
) -> Bind | BindRefused:
    """Look at a bind source with the rights of its owner; make a missing directory, as the owner, if `create`.

    Blocks as long as the file system does: call it off the loop, with a deadline. Needs CAP_SETUID, CAP_SETGID.
    Args: setuid_ok: policy accepts mounts without nosuid,nodev.
    Raises: OSError: the process cannot take the owner's rights, or mountinfo cannot be read; refuse then.
    """
    try:
        _check_text(source)
        descriptor, bind = as_owner(
            lambda: _open_as_owner(
                source, read_only=read_only, create=create, resolve=_RESOLVE_NO_MAGICLINKS
            ),
            uid=owner_uid,
            gid=owner_gid,
            gids=owner_gids,
        )
        try:
            held = mount_id(descriptor)
        finally:
            os.close(descriptor)
        _check_mounts(bind.source, held, setuid_ok=setuid_ok)
    except _Refusal as refusal:
        return refusal.refused
    return bind


def hold(
    source: str, *, owner_uid: int, owner_gid: int, owner_gids: frozenset[int], read_only: bool, create: bool
) -> int | BindRefused:
    """Open a real path with the rights of its owner, and give the object itself: a descriptor, for the caller to close.

    As `examine`, but no symbolic link is followed, and the mounts are not looked at: mount the object, then ask
    `check_pinned`. Raises: OSError: the process cannot take the owner's rights.
    """
    resolve = _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS
    try:
        _check_text(source)
        descriptor, _ = as_owner(
            lambda: _open_as_owner(source, read_only=read_only, create=create, resolve=resolve),
            uid=owner_uid,
            gid=owner_gid,
            gids=owner_gids,
        )
    except _Refusal as refusal:
        return refusal.refused
    return descriptor


def check_pinned(point: str, *, source: str, setuid_ok: bool) -> BindRefused | None:
    """Look at what is mounted at `point`, a place of root's, and below it. `source` is its name for the user.

    Raises: OSError: nothing is mounted there, or mountinfo cannot be read.
    """
    inside = point + "/"
    pinned = [mount for mount in mounts().values() if (mount.point + "/").startswith(inside)]
    if not pinned:
        raise OSError(errno.EINVAL, "nothing is pinned", point)
    try:
        _check_each(
            (replace(mount, point=source + mount.point.removeprefix(point)) for mount in pinned),
            setuid_ok=setuid_ok,
        )
    except _Refusal as refusal:
        return refusal.refused
    return None


def as_owner(work: Callable[[], T], *, uid: int, gid: int, gids: frozenset[int]) -> T:
    """Run `work` with an account's rights on files, in a thread that ends with it.

    SECURITY: the rights are the thread's alone (raw system calls; the C library's setgroups would change all
    threads), and the thread is never used again, so nobody inherits them. Giving up fsuid 0 takes the
    file capabilities (CAP_DAC_OVERRIDE and its kin) out of force.
    Raises: OSError: the rights could not be taken; `work` did not run. Whatever `work` raises.
    """

    def with_rights() -> T:
        _take_rights(uid, gid, gids)
        return work()

    return in_own_thread(with_rights, name="as-owner")


def _take_rights(uid: int, gid: int, gids: frozenset[int]) -> None:
    numbers = sorted(gids | {gid})
    groups = (ctypes.c_uint32 * len(numbers))(*numbers)
    _syscall(_SYS_SETGROUPS[os.uname().machine], len(numbers), groups)
    _LIBC.setfsgid(ctypes.c_uint32(gid))
    _LIBC.setfsuid(ctypes.c_uint32(uid))
    # SECURITY: neither call reports failure; asking again does.
    taken = (_LIBC.setfsuid(ctypes.c_uint32(_UNCHANGED)), _LIBC.setfsgid(ctypes.c_uint32(_UNCHANGED)))
    if taken != (uid, gid):
        raise PermissionError(errno.EPERM, f"cannot take the rights of uid {uid}, gid {gid}")


def _check_text(source: str) -> None:
    if not source.startswith("/"):
        raise _Refusal(f"{source!r} is not absolute", "give the whole path")
    if len(os.fsencode(source)) > _PATH_LIMIT or _UNPRINTABLE.search(source):
        raise _Refusal("the path is too long or has control characters", "rename the directory")
    if ".." in source.split("/"):
        raise _Refusal(f"{source} has a '..'", "give the path without it")


def _open_as_owner(source: str, *, read_only: bool, create: bool, resolve: int) -> tuple[int, Bind]:
    """The part that runs with the owner's rights: the open object, and what it is."""
    descriptor, created = _open_or_create(source, create=create, resolve=resolve)
    try:
        status = os.fstat(descriptor)
        _check_kind(source, status)
        _check_access(source, descriptor, read_only=read_only)
        real = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        _check_real(real, status)
    except BaseException:
        os.close(descriptor)
        raise
    bind = Bind(
        source=real,
        device=status.st_dev,
        inode=status.st_ino,
        is_directory=stat.S_ISDIR(status.st_mode),
        owner_uid=status.st_uid,
        moved=real != "/" + "/".join(part for part in source.split("/") if part not in ("", ".")),
        created=created,
    )
    return descriptor, bind


def _open_or_create(source: str, *, create: bool, resolve: int) -> tuple[int, bool]:
    try:
        return _open_path(source, resolve), False
    except FileNotFoundError:
        if not create:
            raise _Refusal(f"{source} does not exist", "create it, or use -v, which creates it") from None
    except OSError as error:
        raise _unreachable(source, error) from error
    try:
        return _create(source.rstrip("/"), resolve), True
    except OSError as error:
        raise _Refusal(
            f"{source} cannot be created by you: {error.strerror}", "create it, or check the path"
        ) from error


def _create(path: str, resolve: int) -> int:
    """Make a directory and the missing ones above it, each in the very directory that was opened."""
    try:
        return _open_path(path or "/", resolve)
    except FileNotFoundError:
        above, _, name = path.rstrip("/").rpartition("/")
    if not name:
        raise FileNotFoundError(errno.ENOENT, "no such directory")
    parent = _create(above, resolve)
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)


def _check_kind(source: str, status: os.stat_result) -> None:
    """SECURITY: a socket is a door (the engine's among them), a device node is hardware, a fifo hangs its opener."""
    if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
        raise _Refusal(f"{source} is neither a directory nor a regular file", "mount the directory you need")


def _check_access(source: str, descriptor: int, *, read_only: bool) -> None:
    """SECURITY: O_PATH asks for no right on the object itself, and container root would have every one."""
    kind = os.fstat(descriptor).st_mode
    wanted = os.R_OK | (os.X_OK if stat.S_ISDIR(kind) else 0) | (0 if read_only else os.W_OK)
    readable = wanted & ~os.W_OK
    if not _may(descriptor, readable):
        raise _Refusal(f"you may not read {source}", "mount a path that you can open yourself")
    if not _may(descriptor, wanted):
        raise _Refusal(f"you may not write {source}", "mount it read-only, with :ro")


def _may(descriptor: int, wanted: int) -> bool:
    """access(2) on an open object with the thread's fsuid (AT_EACCESS: the C library's would ask for the process)."""
    flags = _AT_EACCESS | _AT_EMPTY_PATH
    result = _LIBC.syscall(_SYS_FACCESSAT2, descriptor, ctypes.c_char_p(b""), wanted, flags)
    return bool(result == 0)


def _check_real(real: str, status: os.stat_result) -> None:
    """The real path, opened without following any link, must be the same object."""
    try:
        descriptor = _open_path(real, _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
    except OSError as error:
        raise _Refusal("the path changed while it was looked at", "try again") from error
    try:
        again = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if (again.st_dev, again.st_ino) != (status.st_dev, status.st_ino):
        raise _Refusal("the path changed while it was looked at", "try again")


def _check_mounts(source: str, holding_id: int, *, setuid_ok: bool) -> None:
    """The mount the object is on, and, as Docker binds recursively, each mount below it."""
    table = mounts()
    holding = table.get(holding_id)
    if holding is None:
        raise _Refusal("the mount of the path is gone", "try again")
    inside = source.rstrip("/") + "/"
    below = [mount for mount in table.values() if mount.point.startswith(inside) and mount is not holding]
    _check_each((holding, *below), setuid_ok=setuid_ok)


def _check_each(mounts: Iterable[Mount], *, setuid_ok: bool) -> None:
    for mount in mounts:
        if mount.filesystem in _NEVER_FILESYSTEMS:
            raise _Refusal(
                f"{mount.point} is a {mount.filesystem} file system", "mount a directory of your own"
            )
        if not (setuid_ok or {"nosuid", "nodev"} <= mount.options):
            raise _Refusal(
                f"the file system at {mount.point} is not mounted nosuid,nodev",
                "ask the admin to mount it so (ds01 doctor shows how)",
            )


def _unreachable(source: str, error: OSError) -> _Refusal:
    if error.errno == errno.ELOOP:
        return _Refusal(
            f"{source} leads elsewhere now: there is a symbolic link in it",
            "put the directory back, or create the container again",
        )
    if error.errno == errno.ENOSYS:
        return _Refusal("this kernel cannot look at paths safely", "ask the admin for Linux 5.6 or newer")
    return _Refusal(f"you cannot open {source}: {error.strerror}", "mount a path that you can open yourself")


def _open_path(path: str, resolve: int) -> int:
    """openat2(2) with O_PATH. Raises: OSError."""
    how = _OPEN_HOW.pack(os.O_PATH | os.O_CLOEXEC, 0, resolve)
    return _syscall(_SYS_OPENAT2, -100, ctypes.c_char_p(os.fsencode(path)), how, _OPEN_HOW.size)


def _syscall(number: int, *arguments: object) -> int:
    result: int = _LIBC.syscall(number, *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
