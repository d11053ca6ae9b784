"""The index's eye on the engine: one event stream, a full list whenever it (re)starts, evidence for the allocator."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import msgspec

from observability import events
from observability.logging import log
from policy import names
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.responses import JsonStream
from policy.model import ContainerId, Kind, LeaseId
from socket_proxy.adoptions import Adoptions
from socket_proxy.approvals import Approvals
from socket_proxy.engine import ITSELF, Engine
from socket_proxy.entries import Entries
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners
from socket_proxy.index import Entry, Index, nobodys
from socket_proxy.ports import Held, Leaser
from socket_proxy.records import Records
from socket_proxy.refusals import UNANSWERED, EngineError
from socket_proxy.seal import NEVER_STARTED

_RETRY_SECONDS = 0.5
_EVIDENCE_SECONDS = 30
_ANONYMOUS = re.compile("[0-9a-f]{64}")
_WATCHED = {"type": {"container": True, "network": True, "volume": True, "daemon": True}}


class _Container(msgspec.Struct):
    Id: str
    Names: list[str] | None = None
    Created: int = 0
    Labels: dict[str, str] | None = None
    State: str = ""


class _Config(msgspec.Struct):
    Labels: dict[str, str] | None = None


class _State(msgspec.Struct):
    Status: str = ""


class _Inspected(msgspec.Struct):
    Name: str
    Config: _Config
    State: _State


class _Network(msgspec.Struct):
    Id: str
    Name: str
    Labels: dict[str, str] | None = None


class _Volume(msgspec.Struct):
    Name: str
    Labels: dict[str, str] | None = None


class _Volumes(msgspec.Struct):
    Volumes: list[_Volume] | None = None


class _Image(msgspec.Struct):
    RepoTags: list[str] | None = None


class _Actor(msgspec.Struct):
    ID: str = ""
    Attributes: dict[str, str] | None = None


class _Event(msgspec.Struct):
    Type: str = ""
    Action: str = ""
    Actor: _Actor = msgspec.field(default_factory=_Actor)


class Watcher:
    """Keeps index and allocator in step with the engine."""

    def __init__(
        self,
        *,
        engine: Engine,
        index: Index,
        facts: FactSource,
        entries: Entries,
        records: Records,
        images: ImageOwners,
        leaser: Leaser,
        approvals: Approvals | None,
        adoptions: Adoptions,
    ) -> None:
        self._engine = engine
        self._index = index
        self._facts = facts
        self._entries = entries
        self._records = records
        self._images = images
        self._leaser = leaser
        self._approvals = approvals
        self._adoptions = adoptions
        self.container_gone: Callable[[str], Awaitable[None]] = (
            self._drop
        )  # told of each container that is gone
        self.container_moved: Callable[[str], None] = lambda _container: (
            None
        )  # told of each that starts or ends, and that is made or removed past ds01
        self.reconnected = asyncio.Event()
        self.reloaded = asyncio.Event()  # the engine took its settings anew: its plugins may be others now

    async def run(self) -> None:
        """Follow the engine until cancelled; while it cannot be followed, nothing is decided by the index."""
        while True:
            try:
                await self._follow()
            except UNANSWERED as error:
                log(events.INDEX_LOST, problem=str(error))
            except Exception as error:  # noqa: BLE001  the watcher's one edge: whatever the engine sent, start over
                log(events.INDEX_LOST, problem=repr(error))
            self._facts.ready.clear()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _follow(self) -> None:
        filters = msgspec.json.encode(_WATCHED).decode()
        request = Request(
            operation=Operation.SYSTEM_EVENTS, version=self._engine.version, query={"filters": (filters,)}
        )
        response = await self._engine.send(request, uid=ITSELF)
        if response.head.status != 200:
            raise EngineError(response.head.status, await response.read(65536))
        # The stream is open before the lists are read: what changes in between arrives as an event.
        await self.rebuild()
        self._facts.ready.set()
        self.reconnected.set()
        self.reloaded.set()
        log(events.INDEX_READY, objects=sum(1 for _ in self._index.all(Kind.CONTAINER)), duration_ms=None)
        stream = JsonStream()
        async for chunk in response.body():
            for document in stream.feed(chunk):
                await self._apply(msgspec.json.decode(document, type=_Event))

    async def _drop(self, container_id: str) -> None:
        self._index.drop(Kind.CONTAINER, container_id)

    def _drop_approval(self, container: ContainerId) -> None:
        if self._approvals is not None:
            self._approvals.drop(container)

    async def learn(self, document: bytes) -> None:
        """Take from an event that a user's stream brought what the own stream has not brought yet.

        Only what begins is learned here: an end is applied once, by `run`, after the streams had their chance to show it.

        SECURITY: a stream with `since` replays the beginnings of what is long gone, so the engine is asked whether the
        object is there: else anybody could fill the index with the dead, and make others' names ambiguous.
        """
        event = msgspec.json.decode(document, type=_Event)
        if event.Action != "create":
            return
        match event.Type:
            case "container" if self._index.seen(Kind.CONTAINER, event.Actor.ID) is None:
                await self._learn_container(event.Actor.ID)
            case "network" if self._index.seen(Kind.NETWORK, event.Actor.ID) is None:
                await self._learn_network(event.Actor.ID)
            case "volume" if self._index.get(Kind.VOLUME, event.Actor.ID) is None:
                await self._learn_volume(event.Actor.ID)
            case _:
                pass

    async def rebuild(self) -> None:
        """Read every container, network and volume, and give up the leases of what vanished meanwhile."""
        known = self._index.ids(Kind.CONTAINER)
        # A file is written after its container is there, so what has one now and is not in the list below is gone.
        approved = self._approvals.kept() if self._approvals is not None else frozenset()
        entries = await self._containers()
        for gone in approved - {entry.id for entry in entries}:
            self._drop_approval(ContainerId(gone))
        # SECURITY: a container made since the list was asked for is not in it; its lease must not be given up.
        for container_id in known - {entry.id for entry in entries}:
            await self.container_gone(container_id)
        self._index.replace_all(Kind.CONTAINER, entries, known=known)
        self._adoptions.sweep(lambda container: self._index.get(Kind.CONTAINER, container) is not None)
        for entry in entries:
            self.container_moved(entry.id)  # it may have, while the engine was not followed
        known = self._index.ids(Kind.NETWORK)
        networks = msgspec.json.decode(await self._engine.ask(Operation.NETWORK_LIST), type=list[_Network])
        self._index.replace_all(
            Kind.NETWORK,
            [self._entries.network(item.Id, item.Name, item.Labels) for item in networks],
            known=known,
        )
        known = self._index.ids(Kind.VOLUME)
        volumes = msgspec.json.decode(await self._engine.ask(Operation.VOLUME_LIST), type=_Volumes).Volumes
        entries = [self._volume(item) for item in volumes or ()]
        self._index.replace_all(Kind.VOLUME, entries, known=known)
        images = msgspec.json.decode(await self._engine.ask(Operation.IMAGE_LIST), type=list[_Image])
        self._images.match_local(tag for image in images for tag in image.RepoTags or ())

    async def _containers(self) -> list[Entry]:
        return [self._container(item) for item in await self._listed()]

    async def _listed(self) -> list[_Container]:
        """Every container, oldest first: of two with the same sealed labels the first is the one they were made for."""
        answer = await self._engine.ask(Operation.CONTAINER_LIST, query={"all": ("1",)})
        return sorted(msgspec.json.decode(answer, type=list[_Container]), key=lambda item: item.Created)

    async def report(self) -> None:
        """Tell the allocator, at start and every 30 s, which containers carry leases.

        INVARIANT: evidence is sent only from a list that the engine has just given: an empty index is not "no containers".
        """
        while True:
            try:
                await self._facts.wait_ready()
                await self.send_evidence()
            except UNANSWERED as error:
                log(events.EVIDENCE_UNSENT, problem=str(error))
                await asyncio.sleep(_RETRY_SECONDS * 4)
            else:
                await asyncio.sleep(_EVIDENCE_SECONDS)

    async def send_evidence(self) -> None:
        # INVARIANT: noted before the list is asked for: what is leased from here on is not in it for certain.
        asked = self._leaser.asking()
        held: dict[LeaseId, Held] = {}
        for item in await self._listed():
            entry = self._container(item)
            if entry.lease is not None and entry.owner is not None:
                found = Held(
                    container=ContainerId(entry.id),
                    lease=entry.lease,
                    owner_uid=entry.owner,
                    state=item.State,
                )
                held.setdefault(entry.lease, found)
        await self._leaser.report(tuple(held.values()), asked)

    def _container(self, item: _Container) -> Entry:
        return self._entries.container(item.Id, names.own(item.Names), item.Labels, state=item.State)

    def _volume(self, item: _Volume) -> Entry:
        return self._entries.volume(item.Name, item.Labels)

    async def _apply(self, event: _Event) -> None:
        attributes = event.Actor.Attributes or {}
        match event.Type, event.Action:
            case "container", "create":
                known = self._index.get(Kind.CONTAINER, event.Actor.ID)
                if known is not None and not known.name:
                    self._index.rename(Kind.CONTAINER, known.id, attributes.get("name", ""))
                elif known is None:
                    name = attributes.get("name", "")
                    entry = self._entries.container(event.Actor.ID, name, attributes, state=NEVER_STARTED)
                    self._index.put(entry)
                self._moved_if_foreign(event.Actor.ID)
            case "container", "rename":
                self._index.rename(Kind.CONTAINER, event.Actor.ID, attributes.get("name", ""))
            case "container", "destroy":
                self._moved_if_foreign(event.Actor.ID)
                await self.container_gone(event.Actor.ID)
            case "container", "start":
                self._started(event.Actor.ID)
                self.container_moved(event.Actor.ID)
            case "container", "die":
                self.container_moved(event.Actor.ID)
            case "network", "create" if self._index.get(Kind.NETWORK, event.Actor.ID) is None:
                await self._learn_network(event.Actor.ID)
            case "network", "destroy":
                self._index.drop(Kind.NETWORK, event.Actor.ID)
            case "volume", "create" if self._index.get(Kind.VOLUME, event.Actor.ID) is None:
                await self._learn_volume(event.Actor.ID)
            case "volume", "mount":
                self._claim_anonymous(event.Actor.ID, attributes.get("container", ""))
            case "volume", "destroy":
                self._index.drop(Kind.VOLUME, event.Actor.ID)
                self._records.drop_volume(event.Actor.ID)
            case "daemon", "reload":
                self.reloaded.set()
            case _:
                pass

    def _moved_if_foreign(self, container_id: str) -> None:
        known = self._index.get(Kind.CONTAINER, container_id)
        if known is None or known.owner is None:
            self.container_moved(container_id)

    def _started(self, container_id: str) -> None:
        known = self._index.get(Kind.CONTAINER, container_id)
        if known is not None and not self._entries.may_run(known):
            self._index.put(nobodys(known))

    async def _learn_container(self, container_id: str) -> None:
        try:
            answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container_id})
        except EngineError:
            return  # gone again
        if self._index.seen(Kind.CONTAINER, container_id) is None:
            found = msgspec.json.decode(answer, type=_Inspected)
            name = found.Name.removeprefix("/")
            self._index.put(
                self._entries.container(container_id, name, found.Config.Labels, state=found.State.Status)
            )

    async def _learn_network(self, network_id: str) -> None:
        try:
            answer = await self._engine.ask(Operation.NETWORK_INSPECT, params={"network": network_id})
        except EngineError:
            return  # gone again
        if self._index.get(Kind.NETWORK, network_id) is None:
            found = msgspec.json.decode(answer, type=_Network)
            self._index.put(self._entries.network(found.Id, found.Name, found.Labels))

    async def _learn_volume(self, name: str) -> None:
        try:
            answer = await self._engine.ask(Operation.VOLUME_INSPECT, params={"volume": name})
        except EngineError:
            return
        if self._index.get(Kind.VOLUME, name) is None:
            self._index.put(self._volume(msgspec.json.decode(answer, type=_Volume)))

    def _claim_anonymous(self, name: str, container_id: str) -> None:
        """An anonymous volume, mounted by a container that came through ds01, is that container's owner's.

        SECURITY: only names that dockerd makes up (64 hex digits): a volume that root or an earlier system named is
        never claimed by mounting it.
        """
        if not _ANONYMOUS.fullmatch(name):
            return
        volume = self._index.get(Kind.VOLUME, name)
        container = self._index.get(Kind.CONTAINER, container_id)
        if volume is None or volume.owner is not None or container is None or container.owner is None:
            return
        self._records.claim_volume(name, container.owner)
        self._index.put(Entry(kind=Kind.VOLUME, id=name, name=name, owner=container.owner))
