"""Exec in another's container: refused where it would make its user the container's owner.

A process is to ds01 whose container it runs in. So whoever can run one where the owner's ds01 socket is mounted, or beside
the processes of such a container (a shared PID namespace: /proc/PID/root leads there), has all of the owner's Docker.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from policy.dockerapi.model import Operation
from policy.model import ContainerId, Kind, Share, Uid
from policy.ownership import UID
from policy.paths import DOCKER_SOCKETS, is_under
from policy.stand_ins import StandIns
from socket_proxy.answers import Answers
from socket_proxy.containers import Containers
from socket_proxy.engine import Engine
from socket_proxy.index import Index
from socket_proxy.refusals import EngineError, Refusal
from socket_proxy.transaction import Handler, Transaction


class _MountPoint(msgspec.Struct):
    Type: str = ""
    Source: str = ""


class _Listed(msgspec.Struct):
    Id: str
    Mounts: list[_MountPoint] | None = None


class _HostConfig(msgspec.Struct):
    PidMode: str = ""


class _Inspected(msgspec.Struct):
    HostConfig: _HostConfig


class SharedExecs:
    """Handlers by operation; what happens in one's own container is none of theirs."""

    def __init__(
        self,
        *,
        engine: Engine,
        index: Index,
        answers: Answers,
        containers: Containers,
        socket_paths: Iterable[str],
        stand_ins: StandIns | None = None,
    ) -> None:
        """`socket_paths`: directories and files of ds01's sockets on the host; `stand_ins`: how mounts name host paths."""
        self._engine = engine
        self._index = index
        self._answers = answers
        self._containers = containers
        self._stand_ins = stand_ins
        self._sockets = (*socket_paths, *DOCKER_SOCKETS)
        self.by_operation: dict[Operation, Handler] = {
            Operation.CONTAINER_EXEC: self.create,
            Operation.EXEC_START: self.start,
        }

    async def create(self, transaction: Transaction) -> Refusal | None:
        refusal = await self._refusal(transaction)
        return await self._containers.exec_create(transaction) if refusal is None else refusal

    async def start(self, transaction: Transaction) -> Refusal | None:
        """Looked at again: another container may have joined since the exec was made."""
        refusal = await self._refusal(transaction)
        return await self._answers.hijack(transaction) if refusal is None else refusal

    async def _refusal(self, transaction: Transaction) -> Refusal | None:
        for fact in transaction.facts.objects.values():
            if fact is None or fact.share is Share.NONE or fact.owner is None:
                continue
            if await self.leads_to_owner(fact.container or ContainerId(fact.id), fact.owner):
                return Refusal(status=403, message=_REASON, rules=("share",))
        return None

    async def leads_to_owner(self, container: ContainerId, owner: Uid) -> bool:
        """Whether a process in the container can reach its owner's ds01 socket.

        Raises: EngineError, UpstreamUnavailable, UpstreamLost, msgspec.DecodeError: it cannot be told.
        """
        label = msgspec.json.encode({"label": {f"{UID}={owner}": True}}).decode()
        answer = await self._engine.ask(Operation.CONTAINER_LIST, query={"all": ("1",), "filters": (label,)})
        listed = msgspec.json.decode(answer, type=list[_Listed])
        with_socket = {each.Id for each in listed if any(map(self._is_socket, each.Mounts or ()))}
        if not with_socket:
            return False
        return not with_socket.isdisjoint(await self._beside(container, owner))

    def _is_socket(self, mount: _MountPoint) -> bool:
        """Whether a mount is one of the sockets, or a directory above or below one."""
        source = self._stand_ins.source(mount.Source) if self._stand_ins is not None else mount.Source
        return mount.Type == "bind" and any(
            is_under(source, path) or is_under(path, source) for path in self._sockets
        )

    async def _beside(self, container: ContainerId, owner: Uid) -> set[str]:
        """The container and all whose processes it shares a PID namespace with."""
        pairs = [
            (entry.id, await self._joined(entry.id)) for entry in self._index.owned(Kind.CONTAINER, owner)
        ]
        found = {str(container)}
        while more := {id_ for pair in pairs if found & {*pair} for id_ in pair if id_ and id_ not in found}:
            found |= more
        return found

    async def _joined(self, container: str) -> str:
        """The container whose PID namespace this one is in; empty: its own."""
        try:
            answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container})
        except EngineError as error:
            if error.status == 404:
                return ""  # gone meanwhile, with its processes
            raise
        mode = msgspec.json.decode(answer, type=_Inspected).HostConfig.PidMode
        return mode.removeprefix("container:") if mode.startswith("container:") else ""


_REASON = (
    "ds01: exec in this container is not permitted: its owner's Docker socket is mounted there or in a container that shares "
    "its processes, so whoever runs a program in it would be its owner (rule share); ask the owner to run one without the socket"
)
