"""Which containers run and where, told to the allocator: by that it tells whose a GPU process is.

The engine's State.Pid says where a container is; a name in a cgroup's path proves nothing. Containers that ds01 did not make are
told as well, as nobody's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Protocol

import msgspec

from http1.errors import UpstreamLost, UpstreamUnavailable
from observability import events
from observability.logging import log
from policy import names
from policy.dockerapi.model import Operation
from policy.model import Json
from socket_proxy.engine import Engine
from socket_proxy.refusals import EngineError, Unavailable
from socket_proxy.seal import Sealer

_EVERY_SECONDS = 30.0
_LEAST_SECONDS = 0.5  # between two tellings, so that a hundred starts are told together


class Tells(Protocol):
    """The allocator, as it is told what runs."""

    async def tell_running(self, containers: Sequence[Mapping[str, Json]]) -> None: ...


class _Listed(msgspec.Struct):
    Id: str
    Names: list[str] | None = None
    Labels: dict[str, str] | None = None


class _State(msgspec.Struct):
    Pid: int = 0


class _Inspected(msgspec.Struct):
    State: _State


class RunningContainers:
    """One task that tells; a container that starts or ends is told at once."""

    def __init__(self, *, engine: Engine, sealer: Sealer, allocator: Tells) -> None:
        self._engine = engine
        self._sealer = sealer
        self._allocator = allocator
        self._pids: dict[str, int] = {}  # of what runs, until it ends
        self._changed = asyncio.Event()

    def moved(self, container: str) -> None:
        """A container has started or ended: where it was counts no more."""
        self._pids.pop(container, None)
        self._changed.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            self._changed.clear()
            try:
                await self.tell()
            except (
                Unavailable,
                UpstreamUnavailable,
                UpstreamLost,
                EngineError,
                msgspec.DecodeError,
            ) as error:
                log(events.EVIDENCE_UNSENT, problem=str(error))
            await asyncio.sleep(_LEAST_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_EVERY_SECONDS):
                    await self._changed.wait()

    async def tell(self) -> None:
        """Tell once. Raises: Unavailable, Upstream*, EngineError, msgspec.DecodeError."""
        listed = msgspec.json.decode(await self._engine.ask(Operation.CONTAINER_LIST), type=list[_Listed])
        self._pids = {item.Id: self._pids[item.Id] for item in listed if item.Id in self._pids}
        told = [await self._said(item) for item in listed]
        await self._allocator.tell_running([one for one in told if one is not None])

    async def _said(self, item: _Listed) -> Mapping[str, Json] | None:
        """None for what has ended since it was listed."""
        pid = self._pids.get(item.Id) or await self._pid(item.Id)
        if not pid:
            return None
        owner = self._sealer.owner(item.Labels)
        inside = next((name[1:] for name in item.Names or () if name.count("/") == 1), "")
        name = names.plain(owner, inside)
        return {"id": item.Id, "pid": pid, "owner_uid": owner, "name": name}

    async def _pid(self, container: str) -> int:
        try:
            answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container})
        except EngineError:
            return 0  # gone again
        pid = msgspec.json.decode(answer, type=_Inspected).State.Pid
        if pid:
            self._pids[container] = pid
        return pid
