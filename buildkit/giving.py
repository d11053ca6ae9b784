"""What ds01 itself answers dockerd in a session: contexts that were uploaded, and no."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Final

from buildkit import api_pb2 as pb
from buildkit.framing import frame
from buildkit.messages import write
from buildkit.side import Side
from buildkit.status import OK, Code, Status, trailers
from buildkit.uploads import Upload
from http1.errors import BadRequest, ClientGone

PULL: Final = "/moby.upload.v1.Upload/Pull"
HEAD: Final = ((":status", "200"), ("content-type", "application/grpc"))
LOW_WATER: Final = 256 * 1024
_PIECE_BYTES: Final = 32 * 1024


class Giver:
    """Answers on dockerd's side of one session."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._moved = asyncio.Event()

    def moved(self) -> None:
        """Something has left."""
        self._moved.set()

    def say(self, stream: int, message: bytes) -> None:
        """A whole answer."""
        self._side.peer.send_headers(stream, HEAD)
        self._side.peer.send(stream, frame(message))
        self._side.peer.finish(stream, trailers(OK))

    def refuse(self, stream: int) -> None:
        """The call is none that dockerd may make here."""
        status = Status(code=Code.UNIMPLEMENTED, message="ds01: not asked of a client")
        self._side.peer.send_headers(stream, (*HEAD, *trailers(status)), end=True)

    async def give(self, stream: int, upload: Upload) -> None:
        """An upload, as fast as dockerd takes it; what is cut short ends in an error."""
        peer = self._side.peer
        peer.send_headers(stream, HEAD)
        end = OK
        try:
            async with aclosing(upload.fetch()) as chunks:
                async for chunk in chunks:
                    for start in range(0, len(chunk), _PIECE_BYTES):
                        piece = chunk[start : start + _PIECE_BYTES]
                        peer.send(stream, frame(write(pb.BytesMessage(data=piece))))
                        await self._room(stream)
        except (ClientGone, BadRequest, TimeoutError):
            end = Status(code=Code.UNAVAILABLE, message="ds01: the build context did not come")
        peer.finish(stream, trailers(end))
        self._side.wake()

    async def _room(self, stream: int) -> None:
        self._side.wake()
        while self._side.peer.queued(stream) > LOW_WATER:
            self._moved.clear()
            await self._moved.wait()
