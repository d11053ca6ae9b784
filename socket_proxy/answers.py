"""The engine's answers on their way back: relayed as they come, or read whole and filtered.

Filters are pure and live in `policy.dockerapi.responses`; here is who sees what, and the streaming.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

import msgspec

from http1.client import Response
from http1.duplex import Duplex
from http1.relay import relay, relay_hijack
from http1.writer import JSON, forwardable
from policy.dockerapi import responses
from policy.dockerapi.model import Answer, Operation, Payload
from policy.dockerapi.name_filters import name_filter
from policy.dockerapi.routes import ROUTE_OF
from policy.model import ContainerId, Kind
from policy.names import ViewerNames
from policy.stand_ins import StandIns
from socket_proxy.engine import Engine
from socket_proxy.image_owners import ImageOwners
from socket_proxy.index import Index
from socket_proxy.questions import Questions
from socket_proxy.refusals import Refusal
from socket_proxy.shared_containers import SharedContainers
from socket_proxy.trail import READS
from socket_proxy.transaction import Handler, Transaction
from socket_proxy.visibility import ActorVisibility

ANSWER_BYTES = 64 * 1024 * 1024  # a list of 50,000 containers; more is refused, never passed on unfiltered
ERROR_BYTES = 64 * 1024
_DANGLING_UNMARKED_SINCE = (1, 43)  # before, an image without tags is listed as <none>:<none>
DOCKER_SOCKET = "/var/run/docker.sock"

Filter = Callable[[bytes, Transaction, ActorVisibility, ViewerNames], bytes]
Shape = Callable[[bytes, ViewerNames], bytes | msgspec.Raw]
ShapeShared = Callable[[bytes, str], bytes]  # with the name that the container is shown by
Learn = Callable[[bytes], Awaitable[None]]
HasGpus = Callable[[], Awaitable[bool]]
Words = Callable[[ContainerId], Mapping[str, str]]


class Answers:
    """A handler for each `Answer` of the route table."""

    def __init__(
        self,
        *,
        engine: Engine,
        index: Index,
        images: ImageOwners,
        learn: Learn,
        has_gpus: HasGpus | None = None,
        stand_ins: StandIns | None = None,
        words: Words = lambda _: {},
        shared: SharedContainers | None = None,
    ) -> None:
        """`learn` takes an event document, so that the index knows an object before its event is judged.

        `has_gpus` says whether there are GPUs to lease; without it there are none. `stand_ins` is what dockerd knows host
        paths by, if not by themselves; `words` how the create of a container had written them, by target. `shared` says what
        of others a user may see; without it nothing is.
        """
        self._engine = engine
        self._index = index
        self._images = images
        self._learn = learn
        self._has_gpus = has_gpus
        self._stand_ins = stand_ins
        self._words = words
        self._shared = shared
        self._questions = Questions(index, shared, stand_ins)
        self._attached: dict[str, set[Duplex]] = {}  # by container: clients that wait for its output
        self.by_kind: dict[Answer, Handler] = {
            Answer.RELAY: self.relay,
            Answer.HIJACK: self.hijack,
            Answer.PING: self.ping,
            Answer.INFO: self.info,
            Answer.EVENTS: self.events,
            Answer.STATS: self._documents(responses.stats, responses.shared_stats),
            Answer.WAIT: self._documents(responses.wait, lambda document, _: responses.shared_wait(document)),
            Answer.PLUGIN_LIST: self.plugins,
            Answer.CONTAINER_INSPECT: self._filtered(self._container_inspect),
            **{kind: self._filtered(shape) for kind, shape in _FILTERS.items()},
        }

    def sees(self, transaction: Transaction) -> ActorVisibility:
        return ActorVisibility(self._index, self._images, transaction.reader, self._shared)

    def names(self, transaction: Transaction) -> ViewerNames:
        return ViewerNames(
            transaction.actor.uid,
            everything=transaction.everything,
            networks=transaction.networks,
            stand_ins=self._stand_ins,
        )

    async def send(
        self,
        transaction: Transaction,
        *,
        outlives_client: bool = False,
        through: Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]] | None = None,
    ) -> Response:
        """Forward the request, with the client's upload behind it if the operation has one.

        Args:
            outlives_client: the request is finished even when the client leaves: its outcome must be known.
            through: what the client's upload goes through; its length is then no longer known.
        """
        exchange = transaction.exchange
        route = ROUTE_OF[transaction.request.operation]
        reading = transaction.reading
        if (
            reading is not None
            and route.payload is Payload.NONE
            and exchange.head.method in READS
            and not self._questions.holds_shared(transaction)  # it depends on more than its head
        ):
            if reading.written is None:
                question = self._questions.written(transaction)
                reading.written = self._engine.written(question, uid=transaction.actor.uid)
            return await self._engine.send_again(reading.written, watch=None if outlives_client else exchange)
        streams = route.payload is Payload.STREAM and (exchange.head.chunked or exchange.head.content_length)
        upload = exchange.body() if streams else None
        if upload is not None and through is not None:
            upload = through(upload)
        exchange.may_hijack = route.payload is Payload.HIJACK
        return await self._engine.send(
            self._questions.written(transaction),
            uid=transaction.actor.uid,
            leases=(transaction.fulfilled.lease,) if transaction.fulfilled.lease else (),
            upload=upload,
            upload_length=exchange.head.content_length if streams and through is None else None,
            watch=None if outlives_client else exchange,
        )

    async def relay(self, transaction: Transaction) -> Refusal | None:
        """Pass the answer on as it comes."""
        return await self.relay_response(transaction, await self.send(transaction))

    async def relay_response(self, transaction: Transaction, response: Response) -> Refusal | None:
        """Pass one answer on; an error without what it says of others' objects."""
        if response.head.status >= 400 and transaction.exchange.head.method != "HEAD":
            return await self.error(transaction, response)
        await relay(response, transaction.exchange)
        return None

    async def error(self, transaction: Transaction, response: Response) -> Refusal | None:
        """Pass dockerd's error on, scrubbed."""
        await self.give_error(transaction, response, await response.read(ERROR_BYTES))
        return None

    async def give_error(self, transaction: Transaction, response: Response, body: bytes) -> None:
        found = (fact.id.removeprefix("sha256:") for fact in transaction.facts.objects.values() if fact)
        written = (reference.text for reference in transaction.facts.objects)
        kept = frozenset(written) | frozenset(found)
        shown = responses.error(body, self.sees(transaction), kept=kept, names=self.names(transaction))
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), shown)

    async def hijack(self, transaction: Transaction) -> Refusal | None:
        """Attach, exec start: after the engine's 101 or 200 only bytes pass, each way on its own."""
        response = await self.send(transaction)
        if not response.raw:
            return await self.relay_response(transaction, response)
        upstream = response.hijack()
        container = transaction.request.params.get("container", "")
        attached = self._attached.setdefault(container, set())
        attached.add(upstream)
        try:
            await relay_hijack(response, transaction.exchange)
        finally:
            attached.discard(upstream)
            if not attached:
                self._attached.pop(container, None)
        return None

    def detach(self, container: str) -> None:
        """End the attach streams of a container that will not start.

        dockerd ends them when a start fails; `docker run` waits for that. A start that ds01 refuses must look the same.
        """
        for upstream in tuple(self._attached.get(container, ())):
            upstream.abort()

    async def ping(self, transaction: Transaction) -> Refusal | None:
        """Cap the API version that clients negotiate by."""
        response = await self.send(transaction)
        body = await response.read(ERROR_BYTES)
        await transaction.exchange.respond(
            response.head.status, responses.ping_headers(response.head.headers), body
        )
        return None

    async def plugins(self, transaction: Transaction) -> Refusal | None:
        """An empty list for users, who have none."""
        if transaction.everything:
            return await self.relay(transaction)
        await transaction.exchange.respond(200, JSON, b"[]\n")
        return None

    async def info(self, transaction: Transaction) -> Refusal | None:
        """Counts of own objects cost a list of them: /info is rare, a wrong count is a lie."""
        response = await self.send(transaction)
        if response.head.status >= 400:
            return await self.error(transaction, response)
        body = await response.read(ANSWER_BYTES)
        if not transaction.everything:
            gpus = self._has_gpus is not None and await self._has_gpus()
            body = responses.info(body, await self._counts(transaction), gpus=gpus)
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), body)
        return None

    async def _counts(self, transaction: Transaction) -> responses.Counts:
        listed = await self._engine.ask(Operation.CONTAINER_LIST, query={"all": ("1",)})
        states = [
            item.State
            for item in msgspec.json.decode(listed, type=list[_Listed])
            if self.sees(transaction).sees_container(item.Id)
        ]
        images = responses.image_count(await self._engine.ask(Operation.IMAGE_LIST), self.sees(transaction))
        running = sum(state in ("running", "restarting") for state in states)
        paused = states.count("paused")
        return responses.Counts(
            running=running, paused=paused, stopped=len(states) - running - paused, images=images
        )

    async def events(self, transaction: Transaction) -> Refusal | None:
        """Each message on its own, as soon as it is whole."""
        response = await self.send(transaction)
        if response.head.status >= 400:
            return await self.error(transaction, response)
        exchange = transaction.exchange
        headers = forwardable(response.head.headers)
        content_type = next((value for name, value in headers if name == "content-type"), "application/json")
        shared = self._shared if self._questions.holds_shared(transaction) else None
        shown = responses.EventFilter(
            ActorVisibility(self._index, self._images, transaction.reader, shared),
            content_type=content_type,
            names=self.names(transaction),
            everything=transaction.everything,
        )
        documents = responses.JsonStream()
        exchange.start_response(response.head.status, headers)
        async for chunk in response.body():
            for document in documents.feed(chunk):
                await self._learn(document)
                if shared is not None:
                    await shared.refresh(transaction.actor.uid)
                await exchange.write(shown.feed(document))
        await exchange.end()
        return None

    def _container_inspect(
        self, body: bytes, transaction: Transaction, sees: ActorVisibility, names: ViewerNames
    ) -> bytes:
        """The owner reads the words of the own create, an admin what they stand for."""
        socket, container = transaction.user_socket, ContainerId(transaction.request.params["container"])
        entry = self._index.get(Kind.CONTAINER, container)
        owns = entry is not None and entry.owner == transaction.actor.uid
        sources = responses.Sources(
            words=self._words(container) if owns else {}, real={socket: DOCKER_SOCKET} if socket else {}
        )
        return responses.container_inspect(body, sees, sources=sources, names=names)

    def _documents(self, shape: Shape, shape_shared: ShapeShared) -> Handler:
        async def handle(transaction: Transaction) -> Refusal | None:
            response = await self.send(transaction)
            if response.head.status >= 400:
                return await self.error(transaction, response)
            called = self.sees(transaction).shown_as(transaction.request.params["container"])
            names = self.names(transaction)
            return await self._document_by_document(
                transaction,
                response,
                lambda document: shape(document, names) if called is None else shape_shared(document, called),
            )

        return handle

    async def _document_by_document(
        self, transaction: Transaction, response: Response, shape: Callable[[bytes], bytes | msgspec.Raw]
    ) -> Refusal | None:
        """The head at once, each JSON document as soon as it is whole."""
        exchange, documents = transaction.exchange, responses.JsonStream()
        exchange.start_response(response.head.status, forwardable(response.head.headers))
        async for chunk in response.body():
            for document in documents.feed(chunk):
                await exchange.write(bytes(shape(document)) + b"\n")
        await exchange.end()
        return None

    def _filtered(self, shape: Filter) -> Handler:
        async def handle(transaction: Transaction) -> Refusal | None:
            return await self.filter_response(transaction, await self.send(transaction), shape)

        return handle

    async def filter_response(
        self, transaction: Transaction, response: Response, shape: Filter
    ) -> Refusal | None:
        """Read the answer whole, filter it, send it."""
        if response.head.status >= 400:
            return await self.error(transaction, response)
        body = await response.read(ANSWER_BYTES)
        kept = shape(body, transaction, self.sees(transaction), self.names(transaction))
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), kept)
        return None


class _Listed(msgspec.Struct):
    Id: str
    State: str = ""


def _limit(transaction: Transaction) -> int:
    """The client's `limit`, which counts after filtering."""
    return int(next(iter(transaction.asked.query.get("limit", ())), "0"))


def _image_list(body: bytes, transaction: Transaction, sees: ActorVisibility, names: ViewerNames) -> bytes:
    asked = transaction.asked
    by_name = "filter" in asked.query or '"reference"' in next(iter(asked.query.get("filters", ())), "")
    return responses.image_list(
        body, sees, names=names, by_name=by_name, marked=asked.version < _DANGLING_UNMARKED_SINCE
    )


_FILTERS: dict[Answer, Filter] = {
    Answer.VERSION: lambda body, _transaction, _sees, _names: responses.version(body),
    Answer.DISK_USAGE: lambda body, asked, sees, names: responses.disk_usage(
        body, sees, names=names, uid=asked.actor.uid
    ),
    Answer.CONTAINER_LIST: lambda body, transaction, sees, names: responses.container_list(
        body, sees, limit=_limit(transaction), names=names, wanted=name_filter(transaction.asked)
    ),
    Answer.EXEC_INSPECT: lambda body, _transaction, sees, _names: responses.exec_inspect(body, sees),
    Answer.IMAGE_INSPECT: lambda body, _transaction, sees, names: responses.image_inspect(
        body, sees, names=names
    ),
    Answer.VOLUME_INSPECT: lambda body, _transaction, sees, names: responses.volume_inspect(
        body, sees, names=names
    ),
    Answer.IMAGE_LIST: _image_list,
    Answer.IMAGE_HISTORY: lambda body, _transaction, sees, names: responses.image_history(
        body, sees, names=names
    ),
    Answer.NETWORK_LIST: lambda body, transaction, sees, names: responses.network_list(
        body, sees, names=names, wanted=name_filter(transaction.asked)
    ),
    Answer.NETWORK_INSPECT: lambda body, _transaction, sees, names: responses.network_inspect(
        body, sees, names=names
    ),
    Answer.VOLUME_LIST: lambda body, transaction, sees, names: responses.volume_list(
        body, sees, names=names, wanted=name_filter(transaction.asked)
    ),
}
