"""Images that are made, fetched or named: tag, commit, import, load, pull. Who made them is on record before the answer.

Building is `build`'s, removing `image_removal`'s, saving and pushing `image_transfer`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress

import msgspec

from http1.writer import forwardable
from policy import image_names
from policy.compile import Policy
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.references import tagged
from policy.model import Uid
from policy.rules.names import looks_like_an_id
from socket_proxy.answers import ANSWER_BYTES, Answers
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource, ImageFields
from socket_proxy.image_owners import ALL, ImageOwners, normal_tag, repository
from socket_proxy.image_tags import EVERY_TAG, Tags, Taken, taken
from socket_proxy.image_tar import off_loop, tags_in, written_afresh
from socket_proxy.image_words import IMPORTED, LOADED, relay_words
from socket_proxy.refusals import EngineError, Refusal
from socket_proxy.spool import Spool, Spools
from socket_proxy.transaction import Handler, Transaction


class _Committed(msgspec.Struct):
    Id: str


class Makers:
    """Puts on record whose an image is that a request made or fetched."""

    def __init__(
        self,
        *,
        engine: Engine,
        owners: ImageOwners,
        facts: FactSource,
        tags: Tags,
        policy: Callable[[], Policy],
    ) -> None:
        self._engine = engine
        self._owners = owners
        self._facts = facts
        self._policy = policy
        self.tags = tags

    async def made(
        self, transaction: Transaction, tags: Iterable[str] = (), image_ids: Iterable[str] = ()
    ) -> None:
        """The actor made these images, and gave them these tags; to be told of success only."""
        for text in (*tags, *image_ids):
            image = await self._facts.find_image(text)
            if image is not None and not transaction.everything:
                self._owners.claim(image.Id, image.tags, transaction.actor.uid)
            elif image is not None and image.tags:
                self._owners.publish(image.Id)
        self.named(transaction, tags)

    def named(self, transaction: Transaction, tags: Iterable[str]) -> None:
        """These tags were written. What an admin tags is for everybody to use; a user's is, if policy says so."""
        shared = not self._policy().for_actor(transaction.actor).images_private
        for tag in map(normal_tag, tags):
            if transaction.everything:
                self._owners.set_tag(tag, None)
            elif shared:
                self._owners.share(tag, ALL)
            self._owners.note_local(tag)

    async def steps(self, transaction: Transaction, image_ids: Iterable[str]) -> None:
        """What a build left on its way is the actor's to see and prune, if it is nobody's yet."""
        for text in image_ids:
            image = await self._facts.find_image(text)
            if image is None or image.tags or self._owners.makers(image.Id) or transaction.everything:
                continue
            if not self._owners.is_public(image.Id, image.tags):
                self._owners.claim(image.Id, image.tags, transaction.actor.uid)

    async def named_so(self, name: str) -> list[str]:
        """Every tag of the repository that `name` stands for, whoever's."""
        wanted = repository(normal_tag(name))
        filters = msgspec.json.encode({"reference": {wanted: True}}).decode()
        listed = await self._engine.ask(Operation.IMAGE_LIST, query={"filters": (filters,)})
        images = msgspec.json.decode(listed, type=list[ImageFields])
        return [tag for image in images for tag in image.tags if repository(tag) == wanted]

    async def foreign(self, transaction: Transaction, name: str) -> list[str]:
        """Those of them that are another user's."""
        own = (None, transaction.actor.uid)
        tags = [] if transaction.everything else await self.named_so(name)
        return [tag for tag in tags if self._owners.tag_owner(tag) not in own]

    async def pulled(self, transaction: Transaction, tag: str) -> None:
        """An image came from a registry: everybody's, unless the tag is the actor's own or its content is private here.

        To its puller the name means this image from now on.
        SECURITY: content that somebody made here does not become everybody's by a pull; who could pull it has it too.
        """
        image = await self._facts.find_image(tag)
        if image is None:
            return
        self._fetched(transaction, tag, image)
        if not transaction.everything:
            await self._end_local(transaction.actor.uid, tag, image.Id)

    def _fetched(self, transaction: Transaction, tag: str, image: ImageFields) -> None:
        uid = transaction.actor.uid
        if self._owners.tag_owner(tag) == uid:
            self._owners.claim(image.Id, image.tags, uid)
            return
        self._owners.set_tag(tag, None)
        others = self._owners.makers(image.Id)
        if others and not transaction.everything and not self._owners.is_public(image.Id, image.tags):
            self._owners.claim(image.Id, image.tags, uid)
        else:
            self._owners.publish(image.Id)

    async def _end_local(self, uid: Uid, tag: str, image_id: str) -> None:
        """An own local name of the same spelling ends; its image stays without it, as dockerd leaves one whose tag moved."""
        own = image_names.real(uid, tag)
        if own == tag or await self._facts.find_image(own) is None:
            return
        at = {"repo": (repository(own),), "tag": (own.rpartition(":")[2],)}
        with suppress(EngineError):  # then it stays, and is meant as before
            # Moved here first: dockerd would remove an image with its last name, and this one has another.
            await self._engine.ask(Operation.IMAGE_TAG, params={"image": image_id}, query=at)
            report = await self._engine.ask(
                Operation.IMAGE_DELETE, params={"image": own}, query={"noprune": ("1",)}
            )
            self._owners.forget(msgspec.json.decode(report, type=list[dict[str, str]]))


class Images:
    """Handlers by operation."""

    def __init__(
        self,
        *,
        engine: Engine,
        makers: Makers,
        answers: Answers,
        spools: Spools,
        policy: Callable[[], Policy],
    ) -> None:
        self._engine = engine
        self._makers = makers
        self._answers = answers
        self._spools = spools
        self._policy = policy
        self.by_operation: dict[Operation, Handler] = {
            Operation.IMAGE_TAG: self.tag,
            Operation.IMAGE_CREATE: self.create,
            Operation.IMAGE_COMMIT: self.commit,
            Operation.IMAGE_LOAD: self.load,
        }

    async def tag(self, transaction: Transaction) -> Refusal | None:
        tag = _repo_tag(transaction.request, "repo", "tag")
        async with self._makers.tags.writing(transaction, tag) as writing:
            if isinstance(writing, Refusal):
                return writing
            response = await self._answers.send(transaction, outlives_client=True)
            if response.head.status != 201:
                await writing.undo()
            else:
                self._makers.named(transaction, [tag])
            return await self._answers.relay_response(transaction, response)

    async def create(self, transaction: Transaction) -> Refusal | None:
        """Pull or import."""
        if "fromSrc" in transaction.asked.query:
            return await self._import(transaction)
        tag = _repo_tag(transaction.asked, "fromImage", "tag")
        if repository(tag) == tag:
            return await self._pull_every(transaction, tag)
        async with self._makers.tags.writing(transaction, tag, pulling=True) as writing:
            if isinstance(writing, Refusal):
                return writing
            response = await self._answers.send(transaction)
            if response.head.status != 200:
                return await self._answers.relay_response(transaction, response)
            words = await relay_words(transaction, response)
            if not words.failed:
                await self._makers.pulled(transaction, normal_tag(tag))
            await transaction.exchange.end()
        return None

    async def _pull_every(self, transaction: Transaction, name: str) -> Refusal | None:
        """A pull without a tag fetches every tag of the repository: not over one of another's."""
        every = f"{repository(normal_tag(name))}{EVERY_TAG}"
        async with self._makers.tags.writing(transaction, every, pulling=True) as writing:
            if isinstance(writing, Refusal):
                return writing
            foreign = await self._makers.foreign(transaction, name)
            if foreign:
                return taken(foreign[0])
            response = await self._answers.send(transaction)
            if response.head.status != 200:
                return await self._answers.relay_response(transaction, response)
            words = await relay_words(transaction, response)
            if not words.failed:
                for tag in await self._makers.named_so(name):
                    await self._makers.pulled(transaction, tag)
            await transaction.exchange.end()
        return None

    async def _import(self, transaction: Transaction) -> Refusal | None:
        tags = [_repo_tag(transaction.request, "repo", "tag")] if _first(transaction.request, "repo") else []
        async with self._makers.tags.writing(transaction, *tags) as writing:
            if isinstance(writing, Refusal):
                return writing
            response = await self._answers.send(transaction)
            if response.head.status != 200:
                await writing.undo()
                return await self._answers.relay_response(transaction, response)
            words = await relay_words(transaction, response, IMPORTED)
            if words.failed:
                await writing.undo()
            else:
                await self._makers.made(transaction, tags, words.found(IMPORTED))
            await transaction.exchange.end()
        return None

    async def commit(self, transaction: Transaction) -> Refusal | None:
        tags = [_repo_tag(transaction.request, "repo", "tag")] if _first(transaction.request, "repo") else []
        async with self._makers.tags.writing(transaction, *tags) as writing:
            if isinstance(writing, Refusal):
                return writing
            response = await self._answers.send(transaction, outlives_client=True)
            if response.head.status != 201:
                await writing.undo()
                return await self._answers.relay_response(transaction, response)
            body = await response.read(ANSWER_BYTES)
            committed = msgspec.json.decode(body, type=_Committed)
            await self._makers.made(transaction, tags, [committed.Id])
            await transaction.exchange.respond(201, forwardable(response.head.headers), body)
        return None

    async def load(self, transaction: Transaction) -> Refusal | None:
        """Spool the tar, read which tags it brings, decide, forward."""
        limit = self._policy().for_actor(transaction.actor).limits.uploads_bytes
        with self._spools.open(transaction.actor.uid, limit) as spool:
            exchange = transaction.exchange
            refusal = await spool.fill(exchange.body(), announced_bytes=exchange.head.content_length)
            if refusal is not None:
                return refusal
            tags = await asyncio.to_thread(tags_in, spool.file)
            if isinstance(tags, Refusal):
                return tags
            refusal = _refused_name(tags, everything=transaction.everything)
            return refusal or await self._load(transaction, spool, tags)

    async def _load(self, transaction: Transaction, spool: Spool, names: tuple[str, ...]) -> Refusal | None:
        def inside(name: str) -> str:
            return name if transaction.everything else image_names.real(transaction.actor.uid, name)

        tags = tuple(map(inside, names))
        async with self._makers.tags.writing(transaction, *tags) as writing:
            if isinstance(writing, Taken):
                return Refusal(
                    status=403,
                    message=f"ds01: the tar would move the tag {writing.tag}, limit is free names and tags of your own "
                    "(rule image_tags); save it under a name of your own",
                    rules=("image_tags",),
                )
            response = await self._engine.send(
                transaction.request,
                uid=transaction.actor.uid,
                upload=off_loop(written_afresh(spool.file, rename=inside)),
            )
            if response.head.status != 200:
                await writing.undo()
                return await self._answers.relay_response(transaction, response)
            words = await relay_words(transaction, response, LOADED)
            if words.failed:
                await writing.undo()
            else:
                await self._makers.made(transaction, tags, words.found(LOADED))
            await transaction.exchange.end()
        return None


def _refused_name(tags: Iterable[str], *, everything: bool) -> Refusal | None:
    """A tar's names are judged like those that a request writes."""
    if any(map(looks_like_an_id, tags)):
        return _not_loaded("names an image like an id")
    if not everything and any(image_names.is_reserved(tag) or image_names.is_disguised(tag) for tag in tags):
        return _not_loaded("names an image as only ds01 does, or as another registry's behind docker.io/")
    return None


def _not_loaded(what: str) -> Refusal:
    return Refusal(
        status=403,
        message=f"ds01: the tar {what} (rule names); save it under another name",
        rules=("names",),
    )


def _first(request: Request, key: str) -> str:
    return next(iter(request.query.get(key, ())), "")


def _repo_tag(request: Request, repo_key: str, tag_key: str) -> str:
    return tagged(_first(request, repo_key), _first(request, tag_key))
