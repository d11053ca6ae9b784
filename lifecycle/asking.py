"""One question over a Unix socket: what was answered, or that nobody can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiohttp

from lifecycle.ports import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

_CONNECT_SECONDS = 2
_ANSWER_SECONDS = 10


class UnixHttp:
    """HTTP on one socket. `name` says in errors who does not answer."""

    def __init__(self, socket: Path, *, name: str) -> None:
        self._name = name
        self._http = aiohttp.ClientSession(
            base_url=f"http://{name}", connector=aiohttp.UnixConnector(path=str(socket))
        )

    async def close(self) -> None:
        await self._http.close()

    async def ask(self, method: str, path: str, *, seconds: float = _ANSWER_SECONDS) -> tuple[int, bytes]:
        """Status and body. `seconds`: how long the whole answer may take. Raises: Unavailable."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        try:
            async with self._http.request(method, path, timeout=timeout) as response:
                return response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"the {self._name} does not answer") from error

    def unreadable(self, status: int) -> Unavailable:
        """That it answered, but not as it should."""
        return Unavailable(f"the {self._name} answered {status} with what cannot be read")
