"""Facts for decisions: every reference of a request, resolved among what its actor may see.

Containers, networks and volumes come from the index, execs from what ds01 remembers or the engine, images from the engine
and the record. A reference that is absent and one that is another user's give the same None; but for images, whose names
with a slash are one space for all: another's private one is a fact that is not shared, so that its name is not taken for free.
"""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec

from policy import image_names
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
    Share,
    Uid,
    Usage,
)
from policy.ownership import is_default_network
from socket_proxy.engine import Engine
from socket_proxy.image_owners import ImageOwners, Reader, normal_tag
from socket_proxy.index import Index
from socket_proxy.refusals import EngineError, Unavailable
from socket_proxy.shared_containers import SharedContainers

_READY_SECONDS = 5
_FIRST_READY_SECONDS = 30  # after a start the index is on its way, however slow the machine
# More than dockerd takes for an image reference or id. SOURCE: distribution/reference, regexp.go.
_IMAGE = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._/:@\[\]-]{0,511}", re.ASCII)


class Healthcheck(msgspec.Struct):
    Interval: int = 0
    StartInterval: int = 0


class ImageConfig(msgspec.Struct):
    OnBuild: list[str] | None = None
    Healthcheck: Healthcheck | None = None


class ImageFields(msgspec.Struct):
    """What ds01 asks of an image."""

    Id: str
    Parent: str = ""
    RepoTags: list[str] | None = None
    Config: ImageConfig | None = None

    @property
    def tags(self) -> list[str]:
        return self.RepoTags or []

    @property
    def triggers(self) -> list[str]:
        return (self.Config.OnBuild if self.Config else None) or []


class _ExecFields(msgspec.Struct):
    ContainerID: str


class FactSource:
    """Resolves references; one for the whole proxy."""

    def __init__(
        self,
        *,
        engine: Engine,
        engine_facts: EngineFacts,
        index: Index,
        images: ImageOwners,
        shared: SharedContainers | None = None,
    ) -> None:
        """`shared`: what of others users may use; without it nothing is."""
        self._engine = engine
        self._engine_facts = engine_facts
        self._index = index
        self._images = images
        self._shared = shared
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
        groups: tuple[str, ...] = (),
    ) -> Facts:
        """All facts for one decision.

        Args:
            everything: the actor is an admin and sees every object.
            networks: names of root's networks that policy shares with the actor.
            groups: the actor's policy groups; images are shared with groups.
        Raises: Unavailable: the index is not ready. UpstreamUnavailable, UpstreamLost, RecordsUnavailable.
        """
        references = tuple(references)
        if not references:
            return Facts(engine=self._engine_facts, usage=self._usage(actor))
        await self.wait_ready()
        if self._shared is not None:
            await self._shared.refresh(actor.uid)
        reader = Reader.of(actor, groups=groups, networks=networks, everything=everything)
        objects = {ref: await self._resolve(reader, ref) for ref in references}
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

    async def _resolve(self, reader: Reader, reference: Reference) -> ObjectFact | None:
        match reference.kind:
            case Kind.IMAGE:
                return await self._image(reference, reader)
            case Kind.EXEC:
                return await self._exec(reference.text, reader)
            case kind if reference.new:
                entry = self._index.named(kind, reference.text, reader.uid)
                return entry.fact() if entry else None
            case kind:
                entry = self._index.find(kind, reference.text, reader.uid, everything=reader.everything)
                if entry is None and kind is Kind.NETWORK:
                    entry = self._index.find_shared(reference.text, reader.networks)
                if entry is None and kind is Kind.CONTAINER:
                    return self._shared_container(reference.text, reader)
                return entry.fact() if entry else None

    def _shared_container(self, text: str, reader: Reader) -> ObjectFact | None:
        found = self._shared.find(reader, text) if self._shared is not None else None
        return replace(found[0].fact(), share=found[1]) if found is not None else None

    async def _exec(self, exec_id: str, reader: Reader) -> ObjectFact | None:
        fact = self._exec_in(self._index.container_of_exec(exec_id), exec_id, reader)
        if fact is None:
            # SECURITY: asked for another's exec as for one there is none of, so that the clock tells nobody which it is.
            fact = self._exec_in(await self._container_of(exec_id), exec_id, reader)
        return fact

    def _exec_in(self, container_id: str | None, exec_id: str, reader: Reader) -> ObjectFact | None:
        """An exec in one's own container, or one's own in a container that is shared."""
        entry = self._index.get(Kind.CONTAINER, container_id) if container_id is not None else None
        if entry is None:
            return None
        share = Share.NONE
        if not reader.everything and entry.owner != reader.uid:
            made = self._shared is not None and self._index.maker_of_exec(exec_id) == reader.uid
            share = self._shared.share(reader, entry.id) if self._shared is not None and made else Share.NONE
            if share is Share.NONE:
                return None
        return ObjectFact(
            kind=Kind.EXEC,
            id=exec_id,
            owner=entry.owner,
            container=ContainerId(entry.id),
            share=share,
            adopted=entry.adopted,
        )

    async def _container_of(self, exec_id: str) -> str | None:
        """The container of an exec as the engine says it; None if there is no such exec."""
        try:
            answer = await self._engine.ask(Operation.EXEC_INSPECT, params={"exec": exec_id})
        except EngineError as error:
            if error.status == 404:
                return None
            raise Unavailable("the Docker engine cannot say whose this exec is; try again") from error
        container_id = msgspec.json.decode(answer, type=_ExecFields).ContainerID
        self._index.remember_exec(exec_id, container_id)
        return container_id

    async def find_image(self, text: str) -> ImageFields | None:
        """The image that `text` names now, whoever's it is. Raises: Unavailable, UpstreamUnavailable, UpstreamLost."""
        # SECURITY: it goes into the path of ds01's own question, and comes from bodies, Dockerfiles and tars as well.
        if not _IMAGE.fullmatch(text) or not {"", ".", ".."}.isdisjoint(text.split("/")):
            return None
        try:
            answer = await self._engine.ask(Operation.IMAGE_INSPECT, params={"image": text})
        except EngineError as error:
            if error.status in (400, 404):
                return None
            raise Unavailable("the Docker engine cannot resolve this image; try again") from error
        return msgspec.json.decode(answer, type=ImageFields)

    async def find_readable(self, reader: Reader, tag: str) -> ImageFields | None:
        """The image of a tag, if the reader may read it, and by this tag of it. Raises: as `find_image`."""
        image = await self.find_image(tag)
        readable = (
            image is not None
            and self._images.shows_tag(reader, tag)
            and self._images.may_read(reader, image.Id, image.tags)
        )
        return image if readable else None

    async def find_meant(self, reader: Reader, text: str) -> tuple[str, ImageFields] | None:
        """What `text` means to this reader: the name inside dockerd, and its image. Raises: as `find_image`."""
        return await self._find_first(self.image_names(Reference(kind=Kind.IMAGE, text=text), reader))

    def image_names(self, reference: Reference, reader: Reader) -> Iterable[str]:
        """What a reference may mean inside dockerd: the reader's own local name before what others see by it.

        SECURITY: so nobody else's image answers for an own name; and an own name answers for nobody else.
        """
        if reader.everything or reference.literal:
            return (reference.text,)
        own = image_names.real(reader.uid, reference.text)
        if own == reference.text:
            return (own,)
        others = () if reference.new else (reference.text,)
        return (own, *others) if self._images.knows(own) else others

    async def _find_first(self, names: Iterable[str]) -> tuple[str, ImageFields] | None:
        for name in names:
            image = await self.find_image(name)
            if image is not None:
                return name, image
        return None

    async def _image(self, reference: Reference, reader: Reader) -> ObjectFact | None:
        found = await self._find_first(self.image_names(reference, reader))
        return self._image_fact(found[1], found[0], reader) if found else None

    def _image_fact(self, image: ImageFields, text: str, reader: Reader) -> ObjectFact:
        """Args: text: the name inside dockerd, as `ObjectFact.name` then says it."""
        tag = normal_tag(text)
        named = tag in image.tags
        shared = self._images.may_read(reader, image.Id, image.tags) and (
            not named or self._images.shows_tag(reader, tag)
        )
        owner = self._images.tag_owner(tag) if named else self._owner_by_id(image, reader.uid)
        check = (image.Config.Healthcheck if image.Config else None) or Healthcheck()
        return ObjectFact(
            kind=Kind.IMAGE,
            id=image.Id,
            owner=owner,
            shared=shared,
            name=text,
            check_intervals_ns=(check.Interval, check.StartInterval),
        )

    def _owner_by_id(self, image: ImageFields, uid: Uid) -> Uid | None:
        """Who may remove an image that was named by id or digest: a maker, or who has a tag on it; each the own share."""
        makers = self._images.makers(image.Id, image.tags)
        holders = makers | {self._images.tag_owner(tag) for tag in image.tags}
        return uid if uid in holders else next(iter(makers), None)
