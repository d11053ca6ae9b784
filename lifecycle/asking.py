"""One question over a Unix socket: what was answered, or that nobody can be asked."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import aiohttp
import msgspec

from lifecycle.ports import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")
_CONNECT_SECONDS = 2
_ANSWER_SECONDS = 10


class UnixHttp:
    """HTTP on one socket. `name` says in errors who does not answer."""

    def __init__(self, socket: Path, *, name: str) -> None:
        self._name = name
        self._http = aiohttp.ClientSession(
            base_url=f"http://{name}",
            # A connection for each question: they are few, and one kept from before a restart would fail the next.
            connector=aiohttp.UnixConnector(path=str(socket), force_close=True),
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

    def parse(self, body: bytes, kind: type[T], *, status: int) -> T:
        """A 200 as a value. Raises: Unavailable: it is another answer, or cannot be read as one of this kind."""
        if status == 200:
            with suppress(ValueError):  # msgspec's own errors, and bytes that are no text
                return msgspec.json.decode(body, type=kind)
        raise self.odd(status)

    def odd(self, status: int) -> Unavailable:
        """That it answered, but not as it should."""
        return Unavailable(f"the {self._name} answered {status} with what cannot be read")
