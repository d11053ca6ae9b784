"""Prune: dockerd's own would take everybody's objects, so ds01 removes the caller's, one by one, and builds the report."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from http1.writer import JSON
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.dockerapi.selection import Candidate, moment, select
from policy.model import Kind
from policy.ownership import is_default_network
from socket_proxy.answers import Answers
from socket_proxy.containers import Containers
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource
from socket_proxy.image_removal import ImageRemoval
from socket_proxy.index import Index
from socket_proxy.records import Records
from socket_proxy.refusals import EngineError, Refusal
from socket_proxy.transaction import Handler, Transaction

_STOPPED = ("created", "exited", "dead")
_NAMED_VOLUMES_SINCE = (1, 42)  # before, prune took named volumes too


_TRUE = {"1", "t", "true", "True", "TRUE"}


class _Container(msgspec.Struct):
    Id: str
    SizeRw: int = 0
    Created: int = 0
    Labels: dict[str, str] | None = None


class _Network(msgspec.Struct):
    Id: str
    Name: str
    Created: str
    Labels: dict[str, str] | None = None


class _Image(msgspec.Struct):
    Id: str
    Size: int = 0
    Created: int = 0
    Labels: dict[str, str] | None = None


class _UsageData(msgspec.Struct):
    Size: int = -1


class _Volume(msgspec.Struct):
    Name: str
    Labels: dict[str, str] | None = None
    UsageData: _UsageData | None = None


class _Volumes(msgspec.Struct):
    Volumes: list[_Volume] | None = None


class Prunes:
    """Handlers by operation."""

    def __init__(
        self,
        *,
        engine: Engine,
        facts: FactSource,
        index: Index,
        records: Records,
        containers: Containers,
        removal: ImageRemoval,
        answers: Answers,
    ) -> None:
        self._engine = engine
        self._facts = facts
        self._removal = removal
        self._index = index
        self._records = records
        self._containers = containers
        self._answers = answers
        self.by_operation: dict[Operation, Handler] = {
            Operation.CONTAINER_PRUNE: self.prune_containers,
            Operation.NETWORK_PRUNE: self.prune_networks,
            Operation.VOLUME_PRUNE: self.prune_volumes,
            Operation.IMAGE_PRUNE: self.prune_images,
        }

    async def prune_containers(self, transaction: Transaction) -> Refusal | None:
        """Own containers that do not run."""
        chosen = _Chosen(transaction)
        listed = await self._engine.ask(
            Operation.CONTAINER_LIST,
            query={
                "all": ("1",),
                "size": ("1",),
                "filters": _encode({"status": dict.fromkeys(_STOPPED, True)}),
            },
        )
        removed, reclaimed = [], 0
        for item in msgspec.json.decode(listed, type=list[_Container]):
            if not self._owns(Kind.CONTAINER, item.Id, transaction) or not chosen.has(
                item.Labels, item.Created
            ):
                continue
            if await self._remove(transaction, Operation.CONTAINER_DELETE, {"container": item.Id}):
                await self._containers.forget(item.Id)
                removed.append(item.Id)
                reclaimed += item.SizeRw
        return await _report(transaction, responses.container_prune(removed, reclaimed_bytes=reclaimed))

    async def prune_networks(self, transaction: Transaction) -> Refusal | None:
        """Own networks; dockerd refuses to remove one that is in use."""
        chosen = _Chosen(transaction)
        removed = []
        for item in msgspec.json.decode(await self._engine.ask(Operation.NETWORK_LIST), type=list[_Network]):
            if (
                not self._owns(Kind.NETWORK, item.Id, transaction)
                or is_default_network(item.Name)  # stopped containers would not start again without it
                or not chosen.has(item.Labels, moment(item.Created))
            ):
                continue
            if await self._remove(transaction, Operation.NETWORK_DELETE, {"network": item.Id}):
                self._index.drop(Kind.NETWORK, item.Id)
                removed.append(self._answers.names(transaction).plain(item.Name))
        return await _report(transaction, responses.network_prune(removed))

    async def prune_volumes(self, transaction: Transaction) -> Refusal | None:
        """Own volumes that no container uses: anonymous ones, and named ones where the API version or `all` says so."""
        chosen = _Chosen(transaction)
        every = transaction.asked.version < _NAMED_VOLUMES_SINCE or bool(
            _TRUE & set(chosen.filters.get("all", {}))
        )
        listed = await self._engine.ask(
            Operation.VOLUME_LIST, query={"filters": _encode({"dangling": {"true": True}})}
        )
        sizes = await self._volume_sizes()
        removed, reclaimed = [], 0
        for item in msgspec.json.decode(listed, type=_Volumes).Volumes or ():
            anonymous = self._records.volume_owner(item.Name) is not None
            if not self._owns(Kind.VOLUME, item.Name, transaction) or not (every or anonymous):
                continue
            if not chosen.has(item.Labels, None):
                continue
            if await self._remove(transaction, Operation.VOLUME_DELETE, {"volume": item.Name}):
                self._index.drop(Kind.VOLUME, item.Name)
                self._records.drop_volume(item.Name)
                removed.append(self._answers.names(transaction).plain(item.Name))
                reclaimed += max(0, sizes.get(item.Name, 0))
        return await _report(transaction, responses.volume_prune(removed, reclaimed_bytes=reclaimed))

    def _owns(self, kind: Kind, object_id: str, transaction: Transaction) -> bool:
        entry = self._index.get(kind, object_id)
        return entry is not None and entry.owner == transaction.actor.uid

    async def _volume_sizes(self) -> Mapping[str, int]:
        usage = await self._engine.ask(Operation.SYSTEM_DATA_USAGE)
        volumes = msgspec.json.decode(usage, type=_Volumes).Volumes or ()
        return {item.Name: item.UsageData.Size for item in volumes if item.UsageData}

    async def prune_images(self, transaction: Transaction) -> Refusal | None:
        """Own images that no container uses: untagged ones, or with dangling=false all."""
        chosen = _Chosen(transaction)
        dangling = not ({"false", "0"} & set(chosen.filters.get("dangling", {})))
        listed = await self._engine.ask(
            Operation.IMAGE_LIST, query={"filters": _encode({"dangling": {str(dangling).lower(): True}})}
        )
        report: list[dict[str, str]] = []
        reclaimed = 0
        for item in msgspec.json.decode(listed, type=list[_Image]):
            if not chosen.has(item.Labels, item.Created):
                continue
            image = await self._facts.find_image(item.Id)
            answer = await self._removal.prune(image, transaction.actor.uid) if image else None
            if answer:
                report += answer
                reclaimed += item.Size
        names = self._answers.names(transaction)
        return await _report(transaction, responses.image_prune(report, names, reclaimed_bytes=reclaimed))

    async def _remove(
        self, transaction: Transaction, operation: Operation, params: Mapping[str, str]
    ) -> bool:
        try:
            await self._engine.ask(operation, params=params, uid=transaction.actor.uid)
        except EngineError:
            return False  # started, connected or mounted since it was listed
        return True


class _Chosen:
    """What the client's filters select, at the moment of the request."""

    def __init__(self, transaction: Transaction) -> None:
        text = next(iter(transaction.asked.query.get("filters", ())), "{}")
        self.filters = msgspec.json.decode(text, type=dict[str, dict[str, bool]])
        self._now_seconds = time.time()

    def has(self, labels: Mapping[str, str] | None, created_seconds: float | None) -> bool:
        """Raises: MalformedRequest: an `until` that is no time."""
        candidate = Candidate(labels=labels or {}, created_seconds=created_seconds)
        return select(self.filters, candidate, now_seconds=self._now_seconds)


def _encode(filters: Mapping[str, Mapping[str, bool]]) -> tuple[str, ...]:
    return (msgspec.json.encode(filters).decode(),)


async def _report(transaction: Transaction, body: bytes) -> Refusal | None:
    await transaction.exchange.respond(200, JSON, body)
    return None
