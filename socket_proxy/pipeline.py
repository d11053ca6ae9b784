"""One request from its first byte to its last: who, what, facts, may it, obligations, write, send, answer.

The order is the security argument (docs/architecture.md): nothing goes to dockerd before a decision is on record, and what
goes is written afresh from the canonical request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from time import monotonic

from http1.errors import BadRequest, ClientGone
from http1.limits import Limits
from http1.server import Exchange
from http1.writer import JSON
from observability import events
from observability.logging import log
from observability.metrics import UNKNOWN, Decided, Metrics
from policy.compile import Policy
from policy.dockerapi.bind import taken
from policy.dockerapi.model import Answer, Operation, Request
from policy.dockerapi.responses import cap_api_version
from policy.dockerapi.routes import ROUTE_OF
from policy.dockerapi.sources import with_sources
from policy.evaluate import evaluate
from policy.model import (
    Actor,
    CheckBind,
    Decision,
    Effect,
    EngineFacts,
    EnsureVolume,
    Facts,
    RequestId,
)
from socket_proxy.facts import FactSource
from socket_proxy.fulfil import Fulfilled, Fulfiller
from socket_proxy.handlers import Handlers
from socket_proxy.receiving import Receiving
from socket_proxy.refusals import Refusal, of_decision, of_error, of_taken
from socket_proxy.repeat import Reading
from socket_proxy.shaping import notes, rewritten
from socket_proxy.trail import READS, Trail
from socket_proxy.transaction import Transaction
from socket_proxy.turns import Turn, Turns

_NOTHING = Fulfilled(labels={})
_DECIDED = {
    400: Decided.MALFORMED,
    403: Decided.DENIED,
    404: Decided.NOT_VISIBLE,
    409: Decided.REFUSED,
    500: Decided.FAILED,
    502: Decided.FAILED,
}
# Answers whose handlers ask dockerd before they write a byte to the client.
_ASKED_FIRST = frozenset(
    {
        Answer.PING,
        Answer.VERSION,
        Answer.CONTAINER_LIST,
        Answer.CONTAINER_INSPECT,
        Answer.IMAGE_LIST,
        Answer.NETWORK_LIST,
        Answer.NETWORK_INSPECT,
        Answer.VOLUME_LIST,
    }
)


class Pipeline:
    """The way of a request; one for the whole proxy."""

    def __init__(
        self,
        *,
        policy: Callable[[], Policy],
        engine_facts: EngineFacts,
        facts: FactSource,
        fulfiller: Fulfiller,
        handlers: Handlers,
        trail: Trail,
        limits: Limits,
        metrics: Metrics,
        gate_closed: Callable[[], Refusal | None],
    ) -> None:
        self._policy = policy
        # As dockerd's own errors do: a client that is refused its first question still learns which API it may speak.
        version = cap_api_version("{}.{}".format(*engine_facts.api_version))
        self._refused_with = (*JSON, ("api-version", version))
        self._facts = facts
        self._fulfiller = fulfiller
        self._handlers = handlers
        self._trail = trail
        self._receiving = Receiving(engine_max=engine_facts.api_version, json_bytes=limits.json_body_bytes)
        self._metrics = metrics
        self._gate_closed = gate_closed
        self._turns = Turns()

    async def handle(self, exchange: Exchange, actor: Actor) -> None:
        """Answer one request, whatever happens. Raises: BadRequest, ClientGone, for the connection to deal with."""
        request_id = RequestId(secrets.token_hex(6))
        way = _Way(actor=actor, request_id=request_id)
        try:
            refusal = await self._serve(exchange, way)
        except (BadRequest, ClientGone):
            raise
        except Exception as error:  # the one edge of the proxy: whatever it is, the answer is no
            refusal = of_error(error, request_id)
            if refusal.status in (500, 502):
                log(
                    events.REQUEST_FAILED,
                    request_id=request_id,
                    uid=actor.uid,
                    problem=repr(error),
                    exc_info=error,
                )
            if exchange.responded:
                raise ClientGone("the engine's answer ended early") from error
        if refusal is not None:
            await self._refuse(exchange, way, refusal)

    async def _serve(self, exchange: Exchange, way: _Way) -> Refusal | None:
        closed = self._gate_closed()
        if closed is not None:
            return closed
        body = await self._receiving.receive(exchange)
        # SECURITY: what one user sends at once waits for that user's own turn; nobody else waits for it.
        async with self._turns.of(way.actor.uid) as turn:
            return await self._decide_and_do(exchange, way, body, turn)

    async def _decide_and_do(
        self, exchange: Exchange, way: _Way, body: bytes | None, turn: Turn
    ) -> Refusal | None:
        reading = await self._receiving.read(exchange, body)
        asked = way.request = reading.request
        policy = self._policy()
        facts = await self._known(way, policy, reading)
        decision = way.decision = reading.decide(policy, way.actor, facts)
        if decision.effect is not Effect.ALLOW:
            return of_decision(decision, asked, way.request_id)
        other = taken(asked, facts, uid=way.actor.uid)
        if other is not None:
            return of_taken(asked, other)
        if ROUTE_OF[asked.operation].answer not in _ASKED_FIRST:
            turn.end()  # dockerd may take long, and the answer may be a stream
        # INVARIANT: nothing is awaited between the usage in `facts` and this count, so no create slips in between.
        counted = (
            self._facts.creating(way.actor, way.request_id)
            if asked.operation is Operation.CONTAINER_CREATE
            else nullcontext()
        )
        with counted:
            return await self._carry_out(
                exchange,
                way,
                policy=policy,
                reading=reading,
                facts=facts,
                decision=decision,
            )

    async def _known(self, way: _Way, policy: Policy, reading: Reading) -> Facts:
        """What the actor may know of the objects that the request names."""
        grants = policy.for_actor(way.actor)
        return await self._facts.gather(
            way.actor,
            reading.references,
            everything=grants.admin,
            groups=grants.groups,
            networks=grants.networks,
        )

    async def _carry_out(
        self,
        exchange: Exchange,
        way: _Way,
        *,
        policy: Policy,
        reading: Reading,
        facts: Facts,
        decision: Decision,
    ) -> Refusal | None:
        """What was allowed: obligations, the rewritten request, the answer."""
        fulfilled = _NOTHING
        if decision.obligations:
            settled = await self._settle(way, policy, facts, decision)
            if isinstance(settled, Refusal):
                return settled
            decision, fulfilled = settled
        try:
            if any(isinstance(item, EnsureVolume) for item in decision.obligations):
                # The volumes exist now, and binding names them by what they are.
                facts = await self._known(way, policy, reading)
            transaction = self._shape(
                exchange, way, decision, facts, fulfilled, policy=policy, reading=reading
            )
        except BaseException:
            # INVARIANT: a lease that no create will carry is given back, whatever went wrong.
            await self._handlers.give_back(fulfilled)
            raise
        self._count(way, Decided.ALLOWED)
        return await self._forward(transaction, decision)

    async def _settle(
        self, way: _Way, policy: Policy, facts: Facts, decision: Decision
    ) -> tuple[Decision, Fulfilled] | Refusal:
        """Do what the obligations ask for.

        SECURITY: a bind source that leads elsewhere (a symbolic link) is judged again as the path it leads to, and looked
        at again with what policy says of that one.
        """
        binds = await self._fulfiller.look(way.actor, decision.obligations)
        if isinstance(binds, Refusal):
            return binds
        real = {
            asked.source: bind.source
            for asked, bind in zip(_bind_checks(decision), binds, strict=True)
            if asked.source != bind.source
        }
        if real:
            way.request = with_sources(way.asked(), real)
            decision = way.decision = evaluate(policy, way.actor, way.request, facts)
            if decision.effect is not Effect.ALLOW:
                return of_decision(decision, way.request, way.request_id)
            binds = await self._fulfiller.look(way.actor, decision.obligations)
            if isinstance(binds, Refusal):
                return binds
            if {bind.source for bind in binds} != {bind.source for bind in _bind_checks(decision)}:
                return _moving()
        fulfilled = await self._fulfiller.fulfil(way.actor, decision.obligations, facts, way.request_id)
        return fulfilled if isinstance(fulfilled, Refusal) else (decision, replace(fulfilled, binds=binds))

    def _shape(
        self,
        exchange: Exchange,
        way: _Way,
        decision: Decision,
        facts: Facts,
        fulfilled: Fulfilled,
        *,
        policy: Policy,
        reading: Reading,
    ) -> Transaction:
        """The rewritten request, with all that its handler needs."""
        grants = policy.for_actor(way.actor)
        noted = notes(decision)
        shaped = rewritten(
            way.asked(), decision, facts, fulfilled, uid=way.actor.uid, everything=grants.admin, notes=noted
        )
        return Transaction(
            exchange=exchange,
            actor=way.actor,
            everything=grants.admin,
            request_id=way.request_id,
            asked=reading.request,
            request=shaped,
            facts=facts,
            fulfilled=fulfilled,
            notes=tuple(f"ds01: {note}" for note in noted),
            user_socket=grants.user_socket,
            groups=grants.groups,
            networks=grants.networks,
            reading=reading if reading.again and shaped is reading.request else None,
        )

    async def _forward(self, transaction: Transaction, decision: Decision) -> Refusal | None:
        """Record the decision, then act on it; a lease that no create will carry is given back.

        INVARIANT: the line is written before the answer goes out. A plain read is sent first and recorded while dockerd
        works on it: what `call_soon` queues now runs before whatever the engine's answer will queue.
        """
        operation = transaction.request.operation
        if transaction.exchange.head.method in READS and ROUTE_OF[operation].answer in _ASKED_FIRST:
            asyncio.get_running_loop().call_soon(self._trail.allowed, transaction, decision)
            return await self._handlers.of(operation)(transaction)
        try:
            self._trail.allowed(transaction, decision)
        except BaseException:
            await self._handlers.give_back(transaction.fulfilled)
            raise
        return await self._handlers.of(transaction.request.operation)(transaction)

    async def _refuse(self, exchange: Exchange, way: _Way, refusal: Refusal) -> None:
        self._trail.refused(
            way.actor,
            way.request_id,
            refusal,
            target=exchange.head.target,
            method=exchange.head.method,
            request=way.request,
            decision=way.decision,
        )
        self._count(way, _DECIDED.get(refusal.status, Decided.UNAVAILABLE), refusal.rules)
        await exchange.respond(refusal.status, self._refused_with, refusal.body())

    def _count(self, way: _Way, decided: Decided, rules: tuple[str, ...] = ()) -> None:
        kind = UNKNOWN if way.request is None else ROUTE_OF[way.request.operation].outcome
        self._metrics.decided(kind, decided, monotonic() - way.began, rules)


class _Way:
    """What is known of a request so far, for the record of however it ends."""

    __slots__ = ("actor", "began", "decision", "request", "request_id")

    def __init__(self, *, actor: Actor, request_id: RequestId) -> None:
        self.actor = actor
        self.began = monotonic()
        self.request_id = request_id
        self.request: Request | None = None
        self.decision: Decision | None = None

    def asked(self) -> Request:
        if self.request is None:
            raise RuntimeError("a request is shaped before it was read")
        return self.request


def _bind_checks(decision: Decision) -> list[CheckBind]:
    return [item for item in decision.obligations if isinstance(item, CheckBind)]


def _moving() -> Refusal:
    return Refusal(
        status=403,
        message="ds01: a bind source leads elsewhere each time it is looked at (rule bind_mounts); "
        "mount the directory itself",
        rules=("bind_mounts",),
    )
