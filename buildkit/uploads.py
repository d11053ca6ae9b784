"""Build contexts that a client sends by a call of its own, on their way into the session that BuildKit fetches them from.

The docker CLI without buildx sends a tar from its standard input so: one call builds and one uploads, and a name that both
carry joins them. Whichever comes first waits for the other.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from policy.model import Uid

WAIT_SECONDS: Final = 10  # for the other call; dockerd waits 5
HOST: Final = "buildkit-session"  # what BuildKit fetches through the session


class Upload:
    """One context. It is fetched once, at its address."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(16)
        self._body: asyncio.Future[AsyncIterator[bytes]] = asyncio.get_running_loop().create_future()
        self._fetched = False
        self._over = asyncio.Event()

    @property
    def address(self) -> str:
        return f"http://{HOST}/{self.token}"

    def offer(self, body: AsyncIterator[bytes]) -> bool:
        """Have it fetched from there. Returns: False when there is one already."""
        if self._body.done():
            return False
        self._body.set_result(body)
        return True

    async def give(self, body: AsyncIterator[bytes]) -> bool:
        """Offer it, and wait until it was fetched or nobody will. Returns: False when there is one already."""
        if not self.offer(body):
            return False
        await self._over.wait()
        return True

    async def fetch(self) -> AsyncGenerator[bytes, None]:
        """The bytes. Raises: TimeoutError: nobody sends it; what reading the client's body raises."""
        if self._fetched:
            return
        self._fetched = True
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                body = await asyncio.shield(self._body)
            async for piece in body:
                yield piece
        finally:
            self.close()

    def close(self) -> None:
        """The build is over, or the context was fetched."""
        self._over.set()


class Uploads:
    """By user and build, and by the address under which the user's own sessions find them."""

    def __init__(self) -> None:
        self._by_build: dict[tuple[Uid, str], Upload] = {}
        self._by_address: dict[tuple[Uid, str], Upload] = {}
        self._news = asyncio.Event()

    def expect(self, uid: Uid, build: str) -> Upload:
        """A build wants a context; `forget` afterwards. Raises: KeyError: there is such a build."""
        if (uid, build) in self._by_build:
            raise KeyError(build)
        upload = self._by_build[uid, build] = Upload()
        self._by_address[uid, f"/{upload.token}"] = upload
        news, self._news = self._news, asyncio.Event()
        news.set()
        return upload

    def forget(self, uid: Uid, build: str) -> None:
        upload = self._by_build.pop((uid, build))
        del self._by_address[uid, f"/{upload.token}"]
        upload.close()

    async def wanted(self, uid: Uid, build: str) -> Upload | None:
        """The upload that a build of this name waits for; None if none has come in time."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while (uid, build) not in self._by_build:
                    await self._news.wait()
        except TimeoutError:
            return None
        return self._by_build[uid, build]

    def at(self, uid: Uid, path: str) -> Upload | None:
        """What a session of this user is asked for."""
        return self._by_address.get((uid, path))
