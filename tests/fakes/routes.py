"""Routes of the allocator served on a real Unix socket, and a client whose trust a test decides."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, UnixConnector, web

from allocator.answers import errors
from host import listener

TRUSTED: frozenset[int] = frozenset({os.getuid()})
NOBODY: frozenset[int] = frozenset()
Call = Callable[..., Any]


@asynccontextmanager
async def served(directory: Path, routes: Iterable[web.RouteDef]) -> AsyncIterator[Call]:
    """Gives `call(method, path, body)`, which answers with status and body."""
    application = web.Application(middlewares=[errors])
    application.add_routes(routes)
    runner = web.AppRunner(application)
    await runner.setup()
    path = directory / "s"
    await web.SockSite(runner, listener.listen(path)).start()
    async with ClientSession("http://allocator", connector=UnixConnector(str(path))) as client:

        async def call(method: str, target: str, body: Any = None) -> tuple[int, Any]:
            data = None if body is None else json.dumps(body)
            async with client.request(method, target, data=data) as answer:
                return answer.status, await answer.json()

        yield call
    await runner.cleanup()
    listener.remove(path)
