"""Stand-ins on disk: made before a create names them, removed when no container has them any more (ADR 0016)."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from observability import events
from observability.logging import log
from policy.dockerapi.sources import host_paths, with_stand_ins
from policy.stand_ins import StandIns
from socket_proxy.refusals import Refusal
from socket_proxy.transaction import Transaction

_SWEEP_SECONDS = 3600
_YOUNG_SECONDS = 900  # a create that is on its way has no approval yet
_TRIES = 10


class StandInStore:
    """The directory of all stand-ins."""

    def __init__(self, stand_ins: StandIns, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Make it if it is missing. Raises: OSError."""
        self._stand_ins = stand_ins
        self._clock = clock
        self._young: dict[str, float] = {}  # when it was made last, for a create that has no approval yet
        Path(stand_ins.root).mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(self, transaction: Transaction) -> Transaction | Refusal:
        """The create as dockerd may see it: with stand-ins, which are there, for host paths."""
        told = with_stand_ins(
            transaction.request,
            self._stand_ins,
            uid=transaction.actor.uid,
            user_socket=transaction.user_socket,
        )
        paths = [path for path in host_paths(told) if self._stand_ins.behind(path) is not None]
        self._young |= dict.fromkeys(paths, self._clock())
        try:
            await asyncio.to_thread(make_all, paths)
        except OSError as error:
            # What is wrong with one path is that it is too long; a full disk hits every user.
            return Refusal(
                status=403,
                message=f"ds01: a host path of this create cannot be mounted: {error.strerror} (rule bind_mounts); "
                "use a shorter path, or tell the admin",
                rules=("bind_mounts",),
            )
        return replace(transaction, request=told)

    async def run(self, told: Callable[[], frozenset[str]]) -> None:
        """Sweep by the hour until cancelled; `told` gives the stand-ins that containers have, and blocks."""
        while True:
            try:
                await asyncio.to_thread(lambda: self.sweep(told()))
            except OSError as error:
                log(events.STAND_INS_UNSWEPT, problem=str(error))
            await asyncio.sleep(_SWEEP_SECONDS)

    def sweep(self, kept: frozenset[str]) -> None:
        """Remove every stand-in that is neither `kept` nor young. Raises: OSError: the directory cannot be read."""
        until = self._clock() - _YOUNG_SECONDS
        for path in self._below(Path(self._stand_ins.root)):
            name = str(path)
            if name in kept or self._young.get(name, until) > until:
                continue
            with contextlib.suppress(OSError):  # not empty, or made anew meanwhile
                _remove(path)
        self._young = {name: made for name, made in self._young.items() if made > until}

    def _below(self, directory: Path) -> Iterator[Path]:
        """Everything below, the deepest first. SECURITY: never into a stand-in, on which a user's directory may lie."""
        for entry in os.scandir(directory):
            path = Path(entry.path)
            if self._stand_ins.behind(entry.path) is None and entry.is_dir(follow_symlinks=False):
                yield from self._below(path)
            yield path


def make_all(paths: Iterable[str]) -> None:
    """Raises: OSError."""
    for path in paths:
        make(Path(path))


def make(path: Path) -> None:
    """Make a stand-in that is not there yet. Raises: OSError.

    SECURITY: one that is there is not looked at: a user's file may be pinned on it.
    """
    for _ in range(_TRIES):  # the sweep may take a directory above away in between
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            return
        except FileNotFoundError:
            make(path.parent)
        else:
            return
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)


def _remove(path: Path) -> None:
    """INVARIANT: only what is empty is removed, and nothing that something is mounted on."""
    if path.is_dir():
        path.rmdir()
    elif path.stat().st_size == 0:
        path.unlink()
