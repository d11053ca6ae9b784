"""The two ends of a mediated connection: the protocol of each on its bytes, each way at the speed of the slower."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from h2.events import Event

from buildkit.peer import Broken, Peer
from http1.duplex import Duplex
from http1.errors import ClientGone


class Over(Exception):  # noqa: N818  internal signal
    """The other end is gone."""


class Side:
    """A connection, what is to be sent on it, and whether what was written has left."""

    def __init__(self, duplex: Duplex, *, client_side: bool) -> None:
        self.duplex = duplex
        self.peer = Peer(client_side=client_side)
        self._wake = asyncio.Event()
        self._clear = asyncio.Event()
        self._wake.set()
        self._clear.set()

    def wake(self) -> None:
        """There may be something to send."""
        self._wake.set()

    def flush(self) -> None:
        """Send what may go now without waiting, before the connection ends."""
        try:
            self.duplex.push(self.peer.take())
        except ClientGone:
            return

    async def read(self, take: Callable[[Event], None], then: Callable[[], None]) -> None:
        """Give `take` what comes, and call `then` behind each piece. Raises: Over at the end; Broken, ClientGone."""
        while data := await self.duplex.read():
            for event in self.peer.receive(data):
                take(event)
            then()
            # Whoever does not take answers is not listened to: pings and settings ask for answers too.
            await self._clear.wait()
        raise Over

    async def write(self, moved: Callable[[], None]) -> None:
        """Send what there is, for ever; `moved` is called whenever something has left. Raises: ClientGone."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._clear.clear()
            while data := self.peer.take():
                await self.duplex.write(data)
                moved()
            self._clear.set()


class Sides:
    """A client's side and dockerd's, read and written until one of them ends."""

    def __init__(self, *, client: Side, engine: Side) -> None:
        self.client = client
        self.engine = engine
        self.tasks: asyncio.TaskGroup  # for work that ends with them, while `run` runs

    def wake(self) -> None:
        """There may be something to send on either."""
        self.client.wake()
        self.engine.wake()

    async def run(
        self,
        *,
        on_client: Callable[[Event], None],
        on_engine: Callable[[Event], None],
        moved: Callable[[], None],
    ) -> None:
        """Give each side's events to its taker; `moved` is called whenever something has left. Closes nothing."""
        try:
            async with asyncio.TaskGroup() as self.tasks:
                self.tasks.create_task(self.client.read(on_client, self.wake))
                self.tasks.create_task(self.engine.read(on_engine, self.wake))
                self.tasks.create_task(self.client.write(moved))
                self.tasks.create_task(self.engine.write(moved))
        except* (Over, ClientGone, Broken):
            pass
