"""Facts for decisions: every reference of a request, resolved among what its actor may see.

Containers, networks and volumes come from the index, execs from what ds01 remembers or the engine, images from the engine
and the record. A reference that is absent and one that is another user's give the same None.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import msgspec

from policy.dockerapi.model import Operation
from policy.model import (
    Actor,
    ContainerId,
    EngineFacts,
    Facts,
    Kind,
    ObjectFact,
    Reference,
    RequestId,
    Uid,
    Usage,
)
from policy.ownership import is_default_network
from socket_proxy.engine import Engine
from socket_proxy.index import Index
from socket_proxy.records import Records
from socket_proxy.refusals import EngineError, Unavailable

_READY_SECONDS = 5
_FIRST_READY_SECONDS = 30  # after a start the index is on its way, however slow the machine


class _ImageFields(msgspec.Struct):
    Id: str
    RepoTags: list[str] | None = None


class _ExecFields(msgspec.Struct):
    ContainerID: str


class FactSource:
    """Resolves references; one for the whole proxy."""

    def __init__(self, *, engine: Engine, engine_facts: EngineFacts, index: Index, records: Records) -> None:
        self._engine = engine
        self._engine_facts = engine_facts
        self._index = index
        self._records = records
        self._creating: defaultdict[Uid, set[RequestId]] = defaultdict(
            set
        )  # requests that make a container now
        self._was_ready = False
        self.ready = asyncio.Event()  # the index mirrors the engine; cleared while the event stream is down

    async def gather(
        self,
        actor: Actor,
        references: Iterable[Reference],
        *,
        everything: bool,
        networks: frozenset[str] = frozenset(),
    ) -> Facts:
        """All facts for one decision.

        Args:
            everything: the actor is an admin and sees every object.
            networks: names of root's networks that policy shares with the actor.
        Raises: Unavailable: the index is not ready. UpstreamUnavailable, UpstreamLost, RecordsUnavailable.
        """
        references = tuple(references)
        if not references:
            return Facts(engine=self._engine_facts, usage=self._usage(actor))
        await self.wait_ready()
        objects = {
            ref: await self._resolve(actor, ref, everything=everything, networks=networks)
            for ref in references
        }
        return Facts(engine=self._engine_facts, objects=objects, usage=self._usage(actor))

    async def wait_ready(self) -> None:
        """Wait a little for the index; stale ownership is never used."""
        if self.ready.is_set():
            return
        try:
            await asyncio.wait_for(
                self.ready.wait(), _READY_SECONDS if self._was_ready else _FIRST_READY_SECONDS
            )
        except TimeoutError as error:
            raise Unavailable("the Docker engine is restarting; try again in a moment") from error
        self._was_ready = True

    def _usage(self, actor: Actor) -> Usage:
        if not self.ready.is_set():
            return Usage(containers=None)
        coming = sum(
            not self._index.made_by(Kind.CONTAINER, request) for request in self._creating.get(actor.uid, ())
        )
        networks = self._index.owned(Kind.NETWORK, actor.uid)
        return Usage(
            containers=self._index.count(Kind.CONTAINER, actor.uid) + coming,
            networks=sum(not is_default_network(entry.name) for entry in networks),
        )

    @contextmanager
    def creating(self, actor: Actor, request_id: RequestId) -> Iterator[None]:
        """Count a container while it is being made: a hundred creates at once are a hundred.

        Once it is in the index it counts there alone: twice would refuse a user who is still within the limit.
        """
        self._creating[actor.uid].add(request_id)
        try:
            yield
        finally:
            self._creating[actor.uid].discard(request_id)
            if not self._creating[actor.uid]:
                del self._creating[actor.uid]

    async def _resolve(
        self, actor: Actor, reference: Reference, *, everything: bool, networks: frozenset[str]
    ) -> ObjectFact | None:
        match reference.kind:
            case Kind.IMAGE:
                return await self._image(reference.text, actor.uid)
            case Kind.EXEC:
                return await self._exec(reference.text, actor.uid, everything=everything)
            case kind if reference.new:
                entry = self._index.named(kind, reference.text, actor.uid)
                return entry.fact() if entry else None
            case kind:
                entry = self._index.find(kind, reference.text, actor.uid, everything=everything)
                if entry is None and kind is Kind.NETWORK:
                    entry = self._index.find_shared(reference.text, networks)
                return entry.fact() if entry else None

    async def _exec(self, exec_id: str, uid: Uid, *, everything: bool) -> ObjectFact | None:
        container_id = self._index.container_of_exec(exec_id)
        if container_id is None:
            try:
                answer = await self._engine.ask(Operation.EXEC_INSPECT, params={"exec": exec_id})
            except EngineError as error:
                if error.status == 404:
                    return None
                raise Unavailable("the Docker engine cannot say whose this exec is; try again") from error
            container_id = msgspec.json.decode(answer, type=_ExecFields).ContainerID
            self._index.remember_exec(exec_id, container_id)
        entry = self._index.get(Kind.CONTAINER, container_id)
        if entry is None or not (everything or entry.owner == uid):
            return None
        return ObjectFact(kind=Kind.EXEC, id=exec_id, owner=entry.owner, container=ContainerId(container_id))

    async def _image(self, text: str, uid: Uid) -> ObjectFact | None:
        try:
            answer = await self._engine.ask(Operation.IMAGE_INSPECT, params={"image": text})
        except EngineError as error:
            if error.status in (400, 404):
                return self._absent_image(text)
            raise Unavailable("the Docker engine cannot resolve this image; try again") from error
        image = msgspec.json.decode(answer, type=_ImageFields)
        owner = self._image_owner(text, image, uid)
        return ObjectFact(kind=Kind.IMAGE, id=image.Id, owner=owner, shared=True, name=text)

    def _absent_image(self, text: str) -> ObjectFact | None:
        """A tag without an image may still have an owner (a pull or build in flight); absent is absent."""
        del text
        return None

    def _image_owner(self, text: str, image: _ImageFields, uid: Uid) -> Uid | None:
        """Who may remove or move what `text` names.

        A tag has one owner. An id has the owner of *all* its tags, or without tags whoever made it: removing by id takes
        every tag away.
        """
        tag = normal_tag(text)
        if tag in (image.RepoTags or ()):
            return self._records.tag_owner(tag)
        owners = {self._records.tag_owner(each) for each in image.RepoTags or ()}
        if not owners:
            makers = self._records.image_owners(image.Id)
            return uid if uid in makers else next(iter(makers), None)
        return owners.pop() if len(owners) == 1 else None


def normal_tag(text: str) -> str:
    """A reference as the engine lists it: `busybox`, `library/busybox` and `docker.io/library/busybox` are all `busybox:latest`."""
    for domain in ("docker.io/", "index.docker.io/"):
        if text.startswith(domain):
            text = text.removeprefix(domain)
            break
    text = text.removeprefix("library/")
    name = text.rpartition("/")[2]
    return text if ":" in name or "@" in name else f"{text}:latest"
