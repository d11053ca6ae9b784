"""Which containers run and where, told to the allocator: by that it tells whose a GPU process is.

The engine's State.Pid says where a container is; a name in a cgroup's path proves nothing. Containers that ds01 did not make are
told as well, as nobody's or as whose they were made by adoption, with what of their inspect names GPUs, and when they are
stopped too: a restart policy may start them. The same is told of those that run on a lease, for a ledger that has lost it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from observability import events
from observability.logging import log
from policy import names, ownership
from policy.dockerapi.model import Operation
from policy.foreign import excerpt
from policy.model import Json, Uid
from policy.monitors import Monitor, image_of_monitor, is_monitor
from socket_proxy.adoptions import Adoptions
from socket_proxy.engine import Engine
from socket_proxy.refusals import UNANSWERED, EngineError
from socket_proxy.seal import SealedContainers

_EVERY_SECONDS = 30.0
_STOPPED = frozenset({"created", "exited", "dead", "removing"})  # any other state may be running
_NOT_THERE = 404
_MOST_BYTES = 16384  # of what is told of one container
_AGAIN_SECONDS = 1.0  # after one that failed: until it is told, a new allocator leases nothing
_LEAST_SECONDS = 0.5  # between two tellings, so that a hundred starts are told together


class Tells(Protocol):
    """The allocator, as it is told what runs."""

    async def tell_running(self, containers: Sequence[Mapping[str, Json]]) -> None: ...


class _Listed(msgspec.Struct):
    Id: str
    State: str = ""
    Created: int = 0
    Names: list[str] | None = None
    Labels: dict[str, str] | None = None


class _State(msgspec.Struct):
    Pid: int = 0


class _Inspected(msgspec.Struct):
    State: _State


@dataclass(frozen=True, slots=True)
class _Seen:
    """What an inspect told.

    excerpt: of a foreign one or one with a lease, None where it cannot be read or is too long. image: of a foreign one that may be a monitor.
    """

    pid: int = 0
    excerpt: Mapping[str, Json] | None = None
    image: str | None = None


class RunningContainers:
    """One task that tells; a container that starts or ends is told at once."""

    def __init__(
        self,
        *,
        engine: Engine,
        sealed: SealedContainers,
        adoptions: Adoptions,
        allocator: Tells,
        monitors: Callable[[], Collection[Monitor]],
    ) -> None:
        """Args: monitors: those that policy names now."""
        self._engine = engine
        self._sealed = sealed
        self._adoptions = adoptions
        self._allocator = allocator
        self._monitors = monitors
        self._seen: dict[str, _Seen] = {}  # until it starts or ends
        self._looking: str | None = (
            None  # the container that the engine is asked about, unless it has moved since
        )
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tellings = 0

    def moved(self, container: str) -> None:
        """A container has started or ended: where it was counts no more."""
        self._seen.pop(container, None)
        if self._looking == container:
            self._looking = None
        self._changed.set()

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            self._changed.clear()
            pause = _EVERY_SECONDS
            try:
                async with self._turn:
                    await self.tell()
            except UNANSWERED as error:
                log(events.EVIDENCE_UNSENT, problem=str(error))
                pause = _AGAIN_SECONDS
            await asyncio.sleep(_LEAST_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def tell_anew(self) -> None:
        """Somebody asks to whom nothing was told since its start; many at once are told once. Raises: as `tell`."""
        told = self._tellings
        async with self._turn:
            if self._tellings == told:
                await self.tell()

    async def tell(self) -> None:
        """Tell once. Raises: Unavailable, Upstream*, EngineError, msgspec.DecodeError."""
        answer = await self._engine.ask(Operation.CONTAINER_LIST, query={"all": ("1",)})
        listed = msgspec.json.decode(answer, type=list[_Listed])
        self._seen = {item.Id: self._seen[item.Id] for item in listed if item.Id in self._seen}
        told = [await self._said(item, owner) for item, owner in self._owned(listed)]
        await self._allocator.tell_running([one for one in told if one is not None])
        self._tellings += 1

    def _owned(self, listed: Sequence[_Listed]) -> Iterator[tuple[_Listed, Uid | None]]:
        """Each with its owner. SECURITY: of two with one seal the older has it; a commit copied it to the other."""
        sealed: set[str] = set()
        for item in sorted(listed, key=lambda one: one.Created):
            owner = self._sealed.owner(item.Id, item.Labels, state=item.State)
            seal = (item.Labels or {}).get(ownership.SEAL, "")
            yield item, None if seal in sealed else owner
            if owner is not None:
                sealed.add(seal)

    async def _said(self, item: _Listed, owner: Uid | None) -> Mapping[str, Json] | None:
        """None for what has ended since it was listed."""
        runs = item.State not in _STOPPED
        if owner is not None and not runs:
            return None
        lease = (item.Labels or {}).get(ownership.LEASE, "") if owner is not None else ""
        seen = self._seen.get(item.Id)
        if seen is None:
            self._looking = item.Id
            seen = await self._look(item.Id, owner, excerpted=owner is None or bool(lease))
            # What started or ended meanwhile may have been looked at before that.
            if seen is not None and bool(seen.pid) == runs and self._looking is not None:
                self._seen[item.Id] = seen
        if seen is None or (owner is not None and not seen.pid):
            return None
        adoption = self._adoptions.of(item.Id) if owner is None else None
        name = names.plain(owner, names.own(item.Names))
        said: dict[str, Json] = {
            "id": item.Id,
            "pid": seen.pid or None,
            "owner_uid": adoption.owner if adoption is not None else owner,
            "name": name,
        }
        inspect = None if seen.excerpt is None else dict(seen.excerpt)
        if lease:
            said["carries"] = {"lease": lease, "inspect": inspect}
        if owner is None:
            said["foreign"] = {
                "runs": runs or bool(seen.pid),
                "inspect": inspect,
                "monitor": adoption is None and is_monitor(name, seen.image, self._monitors()),
            }
        return said

    async def _look(self, container: str, owner: Uid | None, *, excerpted: bool) -> _Seen | None:
        """None for what is gone again. What the engine cannot say of a foreign one is unknown, which is never nothing."""
        try:
            answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container})
        except EngineError as error:
            return None if owner is not None or error.status == _NOT_THERE else _Seen()
        pid = msgspec.json.decode(answer, type=_Inspected).State.Pid
        return _excerpted(pid, msgspec.json.decode(answer, type=dict[str, Any])) if excerpted else _Seen(pid)


def _excerpted(pid: int, inspect: Mapping[str, Json]) -> _Seen:
    """What an inspect that is not as it should be, or too long, says of GPUs is unknown; such a container is no monitor either."""
    try:
        found, image = excerpt(inspect), image_of_monitor(inspect)
    except TypeError:
        return _Seen(pid)
    return _Seen(pid, found, image) if len(msgspec.json.encode(found)) <= _MOST_BYTES else _Seen(pid)
