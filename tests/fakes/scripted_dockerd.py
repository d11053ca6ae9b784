"""A scripted upstream on a real Unix socket: says exactly the bytes a test wants, and remembers what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@dataclass
class Talk:
    """One accepted connection, read and written byte by byte by the script."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    heads: list[bytes] = field(default_factory=list)

    async def head(self) -> bytes:
        """Read one request head, empty line included."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        return head

    async def chunked_body(self) -> bytes:
        """Read one chunked request body without trailers."""
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    async def say(self, data: bytes) -> None:
        """Send bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, body: bytes, *, status: str = "200 OK", headers: str = "") -> None:
        """Send a whole answer with a length."""
        await self.say(f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def half_close(self) -> None:
        """Shut the writing side."""
        self.writer.write_eof()

    def close(self) -> None:
        """Close both sides."""
        self.writer.close()


Script = Callable[[Talk], Awaitable[None]]


class ScriptedDockerd:
    """Runs `script` for every connection. `ended` has the exception or None of each script that is over."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.talks: list[Talk] = []
        self.ended: list[BaseException | None] = []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = Talk(reader, writer)
        self.talks.append(talk)
        try:
            await self._script(talk)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self.ended.append(error)
        else:
            self.ended.append(None)
        finally:
            writer.close()


@asynccontextmanager
async def scripted_dockerd(path: Path | str, script: Script) -> AsyncIterator[ScriptedDockerd]:
    """Serve `script` at the Unix socket `path` while the context lasts."""
    fake = ScriptedDockerd(script)
    server = await asyncio.start_unix_server(fake._accept, str(path), limit=2**20)
    try:
        yield fake
    finally:
        server.close()
        for talk in fake.talks:
            talk.close()
