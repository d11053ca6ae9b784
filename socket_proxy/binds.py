"""Bind sources at start: dockerd resolves them again then, so ds01 looks again.

This narrows the race between look and mount and does not close it: a path can still be swapped while runc starts
(docs/threat-model.md).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from host.binds import BindRefused, examine
from policy.dockerapi.model import Operation
from policy.model import Actor, ContainerId
from socket_proxy.engine import Engine
from socket_proxy.refusals import Refusal

_REMEMBERED = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedBind:
    """A host path that was looked at and let through."""

    path: str
    setuid_ok: bool


class _Mount(msgspec.Struct):
    Type: str = ""
    Source: str = ""


class _Inspected(msgspec.Struct):
    Mounts: list[_Mount] = []


class Binds:
    """What each container mounts from the host."""

    def __init__(self, *, engine: Engine, is_own_socket: Callable[[str], bool]) -> None:
        self._engine = engine
        self._is_own_socket = is_own_socket
        self._approved: OrderedDict[ContainerId, tuple[ApprovedBind, ...]] = OrderedDict()

    def remember(self, container: ContainerId, binds: tuple[ApprovedBind, ...]) -> None:
        self._approved[container] = binds
        if len(self._approved) > _REMEMBERED:
            self._approved.popitem(last=False)

    def forget(self, container: ContainerId) -> None:
        self._approved.pop(container, None)

    async def recheck(self, actor: Actor, container: ContainerId) -> Refusal | None:
        """Look at every bind source of `container` again, as its owner."""
        binds = self._approved.get(container)
        if binds is None:
            binds = await self._inspected(container)
            self.remember(container, binds)
        for bind in binds:
            try:
                seen = await asyncio.to_thread(
                    examine,
                    bind.path,
                    owner_uid=actor.uid,
                    owner_gids=frozenset(actor.gids | {actor.gid}),
                    create=False,
                    setuid_ok=bind.setuid_ok,
                )
            except BindRefused as refused:
                return _changed(bind.path, str(refused))
            if str(seen.path) != bind.path:
                return _changed(bind.path, f"it leads to {seen.path} now")
        return None

    async def _inspected(self, container: ContainerId) -> tuple[ApprovedBind, ...]:
        answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container})
        mounts = msgspec.json.decode(answer, type=_Inspected).Mounts
        return tuple(
            ApprovedBind(path=mount.Source, setuid_ok=False)
            for mount in mounts
            if mount.Type == "bind" and not self._is_own_socket(mount.Source)
        )


def _changed(path: str, why: str) -> Refusal:
    return Refusal(
        status=403,
        message=f"ds01: the bind source {path} may no longer be mounted: {why} (rule bind_mounts); "
        "create the container again with the path it should have",
        rules=("bind_mounts",),
    )
