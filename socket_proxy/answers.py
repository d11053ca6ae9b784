"""The engine's answers on their way back: relayed as they come, or read whole and filtered.

Filters are pure and live in `policy.dockerapi.responses`; here is who sees what, and the streaming.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import msgspec

from http1.client import Response
from http1.duplex import Duplex
from http1.relay import relay, relay_hijack
from http1.writer import forwardable
from policy import ownership
from policy.dockerapi import responses
from policy.dockerapi.model import Answer, Operation, Payload, Request
from policy.dockerapi.routes import ROUTE_OF
from policy.model import Uid
from socket_proxy.engine import Engine
from socket_proxy.index import Index
from socket_proxy.refusals import Refusal
from socket_proxy.trail import READS
from socket_proxy.transaction import Handler, Transaction
from socket_proxy.visibility import ActorVisibility

ANSWER_BYTES = 64 * 1024 * 1024  # a list of 50,000 containers; more is refused, never passed on unfiltered
ERROR_BYTES = 64 * 1024
DOCKER_SOCKET = "/var/run/docker.sock"

Filter = Callable[[bytes, Transaction, ActorVisibility], bytes]
Learn = Callable[[bytes], Awaitable[None]]


class Answers:
    """A handler for each `Answer` of the route table."""

    def __init__(self, *, engine: Engine, index: Index, learn: Learn) -> None:
        """`learn` takes an event document, so that the index knows an object before its event is judged."""
        self._engine = engine
        self._index = index
        self._learn = learn
        self._attached: dict[str, set[Duplex]] = {}  # by container: clients that wait for its output
        self.by_kind: dict[Answer, Handler] = {
            Answer.RELAY: self.relay,
            Answer.HIJACK: self.hijack,
            Answer.PING: self.ping,
            Answer.INFO: self.info,
            Answer.EVENTS: self.events,
            Answer.PLUGIN_LIST: self.plugins,
            **{kind: self._filtered(shape) for kind, shape in _FILTERS.items()},
        }

    def sees(self, transaction: Transaction) -> ActorVisibility:
        return ActorVisibility(self._index, transaction.actor.uid, everything=transaction.everything)

    async def send(self, transaction: Transaction, *, outlives_client: bool = False) -> Response:
        """Forward the request, with the client's upload behind it if the operation has one.

        Args:
            outlives_client: the request is finished even when the client leaves: its outcome must be known.
        """
        exchange = transaction.exchange
        route = ROUTE_OF[transaction.request.operation]
        reading = transaction.reading
        if reading is not None and route.payload is Payload.NONE and exchange.head.method in READS:
            if reading.written is None:
                reading.written = self._engine.written(_sent(transaction), uid=transaction.actor.uid)
            return await self._engine.send_again(reading.written, watch=None if outlives_client else exchange)
        streams = route.payload is Payload.STREAM and (exchange.head.chunked or exchange.head.content_length)
        exchange.may_hijack = route.payload is Payload.HIJACK
        return await self._engine.send(
            _sent(transaction),
            uid=transaction.actor.uid,
            leases=(transaction.fulfilled.lease,) if transaction.fulfilled.lease else (),
            upload=exchange.body() if streams else None,
            upload_length=exchange.head.content_length if streams else None,
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
        kept = frozenset(transaction.request.params.values()) | frozenset(found)
        shown = responses.error(body, self.sees(transaction), kept=kept)
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
        await transaction.exchange.respond(200, (("content-type", "application/json"),), b"[]\n")
        return None

    async def info(self, transaction: Transaction) -> Refusal | None:
        """Counts of own objects cost a list of them: /info is rare, a wrong count is a lie."""
        response = await self.send(transaction)
        if response.head.status >= 400:
            return await self.error(transaction, response)
        body = await response.read(ANSWER_BYTES)
        shown = body if transaction.everything else responses.info(body, await self._counts(transaction))
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), shown)
        return None

    async def _counts(self, transaction: Transaction) -> responses.Counts:
        listed = await self._engine.ask(Operation.CONTAINER_LIST, query={"all": ("1",)})
        states = [
            item.State
            for item in msgspec.json.decode(listed, type=list[_Listed])
            if self.sees(transaction).sees_container(item.Id)
        ]
        images = msgspec.json.decode(await self._engine.ask(Operation.IMAGE_LIST), type=list[msgspec.Raw])
        running = sum(state in ("running", "restarting") for state in states)
        paused = states.count("paused")
        return responses.Counts(
            running=running, paused=paused, stopped=len(states) - running - paused, images=len(images)
        )

    async def events(self, transaction: Transaction) -> Refusal | None:
        """Each message on its own, as soon as it is whole."""
        response = await self.send(transaction)
        if response.head.status >= 400:
            return await self.error(transaction, response)
        if transaction.everything:
            await relay(response, transaction.exchange)
            return None
        exchange = transaction.exchange
        headers = forwardable(response.head.headers)
        content_type = next((value for name, value in headers if name == "content-type"), "application/json")
        shown = responses.EventFilter(self.sees(transaction), content_type=content_type)
        documents = responses.JsonStream()
        exchange.start_response(response.head.status, headers)
        async for chunk in response.body():
            for document in documents.feed(chunk):
                await self._learn(document)
                await exchange.write(shown.feed(document))
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
        kept = shape(body, transaction, self.sees(transaction))
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), kept)
        return None


def _sent(transaction: Transaction) -> Request:
    if transaction.request.operation is Operation.CONTAINER_LIST and not transaction.everything:
        return narrowed(transaction.request, transaction.actor.uid)
    return transaction.request


def narrowed(request: Request, uid: Uid) -> Request:
    """A container list as it is asked of dockerd: one owner's, and never cut short.

    `limit` counts what the user sees, so it is applied after filtering; dockerd takes it to mean stopped ones too.
    The label is only a quicker way to the same list: the filter judges by the seal.
    """
    query = {**request.query}
    if int(next(iter(query.pop("limit", ())), "0")) > 0:
        query["all"] = ("1",)
    filters = msgspec.json.decode(next(iter(query.get("filters", ())), "{}"), type=dict[str, dict[str, bool]])
    filters["label"] = {**filters.get("label", {}), f"{ownership.UID}={uid}": True}
    query["filters"] = (msgspec.json.encode(filters).decode(),)
    return replace(request, query=query)


class _Listed(msgspec.Struct):
    Id: str
    State: str = ""


def _limit(transaction: Transaction) -> int:
    """The client's `limit`, which counts after filtering: it was not sent to dockerd."""
    return int(next(iter(transaction.asked.query.get("limit", ())), "0"))


def _container_inspect(body: bytes, transaction: Transaction, sees: ActorVisibility) -> bytes:
    socket = transaction.user_socket
    return responses.container_inspect(body, sees, sources={socket: DOCKER_SOCKET} if socket else None)


_FILTERS: dict[Answer, Filter] = {
    Answer.VERSION: lambda body, _transaction, _sees: responses.version(body),
    Answer.DISK_USAGE: lambda body, _transaction, sees: responses.disk_usage(body, sees),
    Answer.CONTAINER_LIST: lambda body, transaction, sees: responses.container_list(
        body, sees, limit=_limit(transaction)
    ),
    Answer.CONTAINER_INSPECT: _container_inspect,
    Answer.EXEC_INSPECT: lambda body, _transaction, sees: responses.exec_inspect(body, sees),
    Answer.IMAGE_INSPECT: lambda body, _transaction, sees: responses.image_inspect(body, sees),
    Answer.VOLUME_INSPECT: lambda body, _transaction, sees: responses.volume_inspect(body, sees),
    Answer.IMAGE_LIST: lambda body, _transaction, sees: responses.image_list(body, sees),
    Answer.NETWORK_LIST: lambda body, _transaction, sees: responses.network_list(body, sees),
    Answer.NETWORK_INSPECT: lambda body, _transaction, sees: responses.network_inspect(body, sees),
    Answer.VOLUME_LIST: lambda body, _transaction, sees: responses.volume_list(body, sees),
}
