"""Before `docker cp` the guard pins what the container's stand-ins stand for, and keeps it while the connection is open.

dockerd mounts every source of a container for a copy, itself and as root; so what it mounts was looked at (ADR 0016).
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Self

from policy.model import ContainerId
from socket_proxy.refusals import Refusal, Unavailable

_ANSWER_SECONDS = 20.0  # longer than the guard's own deadline, so that its reason arrives
_ANSWER_BYTES = 8192


class Pinned:
    """The pins of one copy; they are taken away at the end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    def check(self) -> None:
        """Raises: Unavailable: the guard has gone, and perhaps the pins before dockerd mounted them."""
        if self._reader.at_eof() or self._reader.exception() is not None:
            raise Unavailable(
                "the guard went away during this copy, which may have come to nothing; copy again"
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()


class GuardClient:
    """The guard, as far as copies need it."""

    def __init__(self, guard_socket: Path, engine_socket: Path) -> None:
        self._guard_socket = guard_socket
        self._engine_socket = engine_socket

    async def pin(self, container: ContainerId) -> Pinned | Refusal:
        """Have the sources of a container pinned. Raises: Unavailable: the guard does not answer."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._ask(container)
        except (OSError, TimeoutError, ValueError) as error:
            raise Unavailable(
                "the guard (ds01-guard) does not answer, and copies wait for it; try again or tell the admin"
            ) from error

    async def _ask(self, container: ContainerId) -> Pinned | Refusal:
        reader, writer = await asyncio.open_unix_connection(self._guard_socket)
        try:
            writer.write(f"copy\0{container}\0{self._engine_socket}\0".encode())
            answer = await reader.readuntil(b"\n")
            if answer == b"yes\n":
                return Pinned(reader, writer)
            writer.close()
        except asyncio.IncompleteReadError as error:
            writer.close()
            answer = error.partial
        except BaseException:
            writer.close()
            raise
        if not answer.startswith(b'no"'):
            raise ConnectionResetError
        return Refusal(status=403, message=str(json.loads(answer[2:])), rules=("bind_mounts",))
