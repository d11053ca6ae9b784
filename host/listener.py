"""Unix sockets to listen on: with the right owner and mode from the first moment, or handed over by systemd."""

from __future__ import annotations

import os
import secrets
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_FIRST_INHERITED = 3
_BACKLOG = 1024


class AddressTaken(Exception):  # noqa: N818  the name says what is wrong
    """Somebody listens there already, or the path is no socket."""


def listen(
    path: Path, *, mode: int = 0o600, owner: tuple[int, int] | None = None, backlog: int = _BACKLOG
) -> socket.socket:
    """A listening stream socket at `path`; a stale one is replaced.

    SECURITY: the socket is bound under a private name in a 0700 directory, given its owner and mode there, made to listen,
    and only then renamed: nobody can connect before it is right.
    Raises: AddressTaken. OSError.
    """
    _refuse_taken(path)
    nest = path.with_name(f".{path.name[:16]}.{secrets.token_hex(4)}")
    nest.mkdir(mode=0o700)
    bound = nest / "s"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        _bind(listener, bound)
        if owner is not None:
            os.chown(bound, *owner, follow_symlinks=False)
        bound.chmod(mode)
        listener.listen(backlog)
        bound.rename(path)
    except BaseException:
        listener.close()
        bound.unlink(missing_ok=True)
        raise
    finally:
        nest.rmdir()
    return listener


def _bind(listener: socket.socket, path: Path) -> None:
    """Bind by way of a descriptor of the directory: an address holds 107 bytes, a path more."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        listener.bind(f"/proc/self/fd/{directory}/{path.name}")
    finally:
        os.close(directory)


def _refuse_taken(path: Path) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise AddressTaken(f"{path} exists and is not a socket")
    if _answers(path):
        raise AddressTaken(f"another process listens on {path}")


def _answers(path: Path) -> bool:
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.setblocking(False)
        try:
            probe.connect(f"/proc/self/fd/{directory}/{path.name}")
        except BlockingIOError:
            return True  # its backlog is full
        except OSError:
            return False
        finally:
            os.close(directory)
    return True


def remove(path: Path) -> None:
    """Take a socket's name away; a name that is gone or is no socket is left alone."""
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        return


def inherited(environment: Mapping[str, str] | None = None) -> tuple[socket.socket, ...]:
    """The listening sockets systemd handed over (sd_listen_fds(3)), in order; empty without any.

    Raises: OSError: a handed descriptor is no socket. ValueError: a number is none.
    """
    variables = os.environ if environment is None else environment
    if variables.get("LISTEN_PID") != str(os.getpid()):
        return ()
    count = int(variables.get("LISTEN_FDS", "0"))
    return tuple(_adopt(number) for number in range(_FIRST_INHERITED, _FIRST_INHERITED + count))


def inherited_by_name(environment: Mapping[str, str] | None = None) -> dict[str, socket.socket]:
    """The same, by the names they were given (`FileDescriptorName=` in a socket unit, LISTEN_FDNAMES).

    Raises: OSError, ValueError: as `inherited`; or the names are not as many as the sockets, or one comes twice.
    """
    variables = os.environ if environment is None else environment
    sockets = inherited(variables)
    names = variables.get("LISTEN_FDNAMES", "").split(":") if sockets else []
    if len(names) != len(sockets) or len(set(names)) != len(names):
        raise ValueError(f"LISTEN_FDNAMES names {names}, there are {len(sockets)} sockets")
    return dict(zip(names, sockets, strict=True))


def _adopt(descriptor: int) -> socket.socket:
    os.set_inheritable(descriptor, False)
    return socket.socket(fileno=descriptor)
