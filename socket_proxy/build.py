"""docker build, on the classic builder: its Dockerfile is read and judged before dockerd gets any of it.

SECURITY: the engine would build on any image in its store, pull over any tag, and run what ONBUILD lines of a base say.
So an image a build may read must be the actor's to read, and what is not here is pulled by ds01, as a pull is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec

from policy import fetches, image_names
from policy.buildkit.builder import is_buildkit
from policy.compile import Policy
from policy.dockerapi import responses, strict_json
from policy.dockerapi.dockerfile import Bases, UnreadableDockerfile, bases, check_triggers, pinned
from policy.dockerapi.model import Operation
from policy.grants import Grants
from policy.model import Kind, Reference
from policy.rules import registry
from socket_proxy.answers import ERROR_BYTES, Answers
from socket_proxy.build_cache import cache_sources
from socket_proxy.build_context import Dockerfile, dockerfile_in, with_dockerfile
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners, normal_tag
from socket_proxy.image_tar import off_loop
from socket_proxy.image_words import BUILT, BUILT_QUIETLY, STEP, Words, relay_words
from socket_proxy.images import Makers
from socket_proxy.pull import pull_request
from socket_proxy.refusals import Refusal
from socket_proxy.spool import Spool, Spools
from socket_proxy.transaction import Handler, Transaction


class ClassicBuilds:
    """Handlers by operation."""

    def __init__(
        self,
        *,
        engine: Engine,
        facts: FactSource,
        owners: ImageOwners,
        makers: Makers,
        answers: Answers,
        spools: Spools,
        policy: Callable[[], Policy],
        buildkit: Handler,
    ) -> None:
        """`buildkit` takes the calls to /build that are meant for BuildKit."""
        self._buildkit = buildkit
        self._engine = engine
        self._facts = facts
        self._owners = owners
        self._makers = makers
        self._answers = answers
        self._spools = spools
        self._policy = policy
        self.by_operation: dict[Operation, Handler] = {Operation.IMAGE_BUILD: self.build}

    async def build(self, transaction: Transaction) -> Refusal | None:
        """Spool the context, judge its Dockerfile, fetch what is not here, forward."""
        grants = self._policy().for_actor(transaction.actor)
        query = transaction.asked.query
        if is_buildkit(query):
            return await self._buildkit(transaction)
        with self._spools.open(transaction.actor.uid, grants.limits.uploads_bytes) as spool:
            refusal = await spool.fill(transaction.exchange.body())
            if refusal is not None:
                return refusal
            asked = next(iter(query.get("dockerfile", ())), "")
            dockerfile = await asyncio.to_thread(dockerfile_in, spool.file, asked)
            if isinstance(dockerfile, Refusal):
                return dockerfile
            try:
                found = await asyncio.to_thread(_bases, transaction, dockerfile)
                refusal = await self._ready(transaction, grants, found)
                if refusal is None:
                    refusal = await self._build(transaction, spool, dockerfile, found)
            except UnreadableDockerfile as error:
                message = f"ds01: Dockerfile: {error} (rule build)"
                refusal = Refusal(status=403, message=message, rules=("build",))
            return await self._end(transaction, refusal)

    async def _ready(self, transaction: Transaction, grants: Grants, found: Bases) -> Refusal | None:
        """Every image the build may read is here, and the actor's to read; a Refusal otherwise."""
        here, refusal = await self._judge(transaction, found)
        pulling = bool(transaction.request.query.get("pull"))
        for name in found.named if refusal is None else ():
            if name not in here or (pulling and not name.startswith("sha256:")):
                refusal = await self._pull(transaction, grants, name)
                if refusal is not None:
                    return refusal
        fetched = [*found.fetched]
        for stage in found.stages if refusal is None else ():
            meant = await self._facts.find_meant(transaction.reader, stage.image)
            fetched += check_triggers(stage, meant[1].triggers if meant else ())
        return refusal or _fetch_refusal(grants, fetched)

    async def _judge(self, transaction: Transaction, found: Bases) -> tuple[frozenset[str], Refusal | None]:
        """The names that are here, and the refusal of the first that is here and another's.

        It is answered like a name that no registry has: what is private is absent (I4).
        SECURITY: what is suspected is not rewritten, so it would mean what dockerd has under the name.
        """
        references = [Reference(kind=Kind.IMAGE, text=name) for name in found.named]
        references += [Reference(kind=Kind.IMAGE, text=name, literal=True) for name in found.suspected]
        facts = await self._facts.gather(
            transaction.actor, references, everything=transaction.everything, groups=transaction.groups
        )
        for reference, fact in facts.objects.items():
            if fact is not None and not fact.shared:
                return frozenset(), _absent(reference.text)
        return frozenset(ref.text for ref, fact in facts.objects.items() if fact is not None), None

    async def _pull(self, transaction: Transaction, grants: Grants, name: str) -> Refusal | None:
        """Fetch one image as `docker pull` does, its progress shown in the build's own stream."""
        if image_names.is_reserved(name) or image_names.is_disguised(name):
            return _absent(name)  # as for one of another's that is there
        reason = registry.refusal(grants, "FROM", registry.registry_of(name))
        if reason is not None:
            return Refusal(status=403, message=f"ds01: {reason.text()}", rules=(reason.rule,))
        async with self._makers.tags.writing(transaction, name, pulling=True) as writing:
            if isinstance(writing, Refusal):
                return writing
            response = await self._engine.send(
                pull_request(transaction.request, name),
                uid=transaction.actor.uid,
                watch=transaction.exchange,
            )
            if response.head.status != 200:
                return await self._said(transaction, response.head.status, await response.read(ERROR_BYTES))
            words = await relay_words(transaction, response)
            if words.failed:
                return _ALREADY_SAID
            await self._makers.pulled(transaction, writing.tags[0])
        return None

    async def _pins(self, transaction: Transaction, found: Bases) -> dict[str, str] | Refusal:
        """Ids for the names that somebody may move while the build goes on, each still the actor's to read.

        SECURITY: own names as well: moved since they were judged, they could bring ONBUILD lines that nobody has read.
        Raises: UnreadableDockerfile.
        """
        pins: dict[str, str] = {}
        fetched: list[str] = []
        stages = {stage.image: stage for stage in found.stages}
        for name in found.named:
            meant = await self._facts.find_meant(transaction.reader, name)
            if meant is None:
                continue
            inside, image = meant
            if not self._owners.may_read(transaction.reader, image.Id, image.tags):
                return _absent(name)
            if normal_tag(inside) not in image.tags or self._owners.tag_owner(normal_tag(inside)) is not None:
                pins[name] = image.Id
                if name in stages:
                    fetched += check_triggers(stages[name], image.triggers)
        return _fetch_refusal(self._policy().for_actor(transaction.actor), fetched) or pins

    async def _build(
        self, transaction: Transaction, spool: Spool, dockerfile: Dockerfile, found: Bases
    ) -> Refusal | None:
        pins = await self._pins(transaction, found)
        if isinstance(pins, Refusal):
            return pins
        if pins:
            arguments = _arguments(transaction)
            dockerfile = dockerfile.rewritten(lambda text: pinned(text, pins, arguments=arguments))
        query = {**transaction.request.query, "dockerfile": (dockerfile.path,)}
        query.pop("pull", None)  # done, tag by tag
        sources = await cache_sources(self._engine, self._owners, transaction)
        query["cachefrom"] = (strict_json.write(list(sources)),)
        tags = transaction.request.query.get("t", ())
        async with self._makers.tags.writing(transaction, *tags) as writing:
            if isinstance(writing, Refusal):
                return writing
            response = await self._engine.send(
                replace(transaction.request, query=query),
                uid=transaction.actor.uid,
                upload=off_loop(with_dockerfile(spool.file, dockerfile)),
                watch=transaction.exchange,
            )
            if response.head.status != 200:
                await writing.undo()
                return await self._said(transaction, response.head.status, await response.read(ERROR_BYTES))
            words = Words((BUILT_QUIETLY if query.get("q") else BUILT, STEP))
            try:
                await relay_words(transaction, response, words=words, names=pins)
            finally:  # clients leave as soon as they hear of a failure, and by Ctrl-C
                await self._makers.steps(transaction, words.found(STEP))
            built = words.found(BUILT_QUIETLY if query.get("q") else BUILT)[-1:]
            if words.failed or not built:
                await writing.undo()
            else:
                await self._makers.made(transaction, tags, built)
        return None

    async def _said(self, transaction: Transaction, status: int, body: bytes) -> Refusal:
        """Dockerd's refusal, without what it says of others."""
        names = self._answers.names(transaction)
        shown = responses.error(body, self._answers.sees(transaction), kept=frozenset(), names=names)
        return Refusal(status=status, message=msgspec.json.decode(shown)["message"], rules=("engine",))

    async def _end(self, transaction: Transaction, refusal: Refusal | None) -> Refusal | None:
        """The end of the stream; a refusal that comes after its beginning is said in it, as the builder does."""
        exchange = transaction.exchange
        if not exchange.responded:
            return refusal
        if refusal is not None and refusal is not _ALREADY_SAID:
            await exchange.write(responses.error_line(refusal.message))
        await exchange.end()
        return None


_ALREADY_SAID = Refusal(status=500, message="said in the stream")


def _bases(transaction: Transaction, dockerfile: Dockerfile) -> Bases:
    return bases(dockerfile.text(), arguments=_arguments(transaction))


def _arguments(transaction: Transaction) -> dict[str, str | None]:
    text = next(iter(transaction.asked.query.get("buildargs", ())), "{}")
    return msgspec.json.decode(text, type=dict[str, str | None])


def _fetch_refusal(grants: Grants, addresses: Iterable[str]) -> Refusal | None:
    """SECURITY: dockerd fetches what ADD names itself, as root and from the host's network."""
    for address in addresses:
        reason = fetches.refusal(grants.fetch_hosts, address)
        if reason is not None:
            return Refusal(status=403, message=f"ds01: {reason.text()}", rules=(reason.rule,))
    return None


def _absent(name: str) -> Refusal:
    """What dockerd says when no registry has it either."""
    message = f"pull access denied for {name}, repository does not exist or may require 'docker login'"
    return Refusal(status=404, message=message, rules=("ownership",))
