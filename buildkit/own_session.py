"""A session of ds01's own, for a build whose client has none: BuildKit fetches the context from it, and nothing else.

Clients that speak the Engine API alone send the context as the body of `/build?version=2`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from h2.events import ConnectionTerminated, DataReceived, Event, RequestReceived, StreamReset

from buildkit.calls import text_headers
from buildkit.giving import PULL, Giver
from buildkit.peer import Broken
from buildkit.side import Over, Side
from buildkit.uploads import Upload
from http1.duplex import Duplex
from http1.errors import ClientGone

HEALTH: Final = "/grpc.health.v1.Health/Check"
METHODS: Final = (PULL, HEALTH)
_SERVING: Final = b"\x08\x01"  # SOURCE: grpc.health.v1, HealthCheckResponse.status


class OwnSession:
    """The server's end; `run` ends when dockerd's does, or at `close`."""

    def __init__(self, engine: Duplex, upload: Upload) -> None:
        self._side = Side(engine, client_side=False)
        self._giver = Giver(self._side)
        self._upload = upload
        self._tasks: asyncio.TaskGroup

    async def run(self) -> None:
        """Answer dockerd."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._tasks.create_task(self._side.read(self._take, self._side.wake))
                self._tasks.create_task(self._side.write(self._giver.moved))
        except* (Over, ClientGone, Broken):
            pass
        finally:
            self._side.duplex.abort()

    def close(self) -> None:
        """The build is over."""
        self._side.duplex.abort()

    def _take(self, event: Event) -> None:
        peer = self._side.peer
        match event:
            case RequestReceived():
                self._begin(event)
            case DataReceived():
                peer.acknowledge(event.stream_id, event.flow_controlled_length)
            case StreamReset():
                peer.forget(event.stream_id)
            case ConnectionTerminated() if event.error_code:
                raise Over

    def _begin(self, event: RequestReceived) -> None:
        headers = dict(text_headers(event.headers))
        path, at = headers.get(":path", ""), headers.get("urlpath", "")
        self._side.peer.accept(event.stream_id)
        if path == HEALTH:
            self._giver.say(event.stream_id, _SERVING)
        elif path == PULL and at == f"/{self._upload.token}":
            self._tasks.create_task(self._giver.give(event.stream_id, self._upload))
        else:
            self._giver.refuse(event.stream_id)
