"""One request from its first byte to its last: who, what, facts, may it, obligations, write, send, answer.

The order is the security argument (docs/architecture.md): nothing goes to dockerd before a decision is on record, and what
goes is written afresh from the canonical request.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace

from http1.errors import BadRequest, ClientGone
from http1.limits import Limits
from http1.server import Exchange
from observability import events
from observability.logging import log
from policy import facts as policy_facts
from policy.compile import Policy
from policy.dockerapi.bind import bind
from policy.dockerapi.model import Incoming, Request
from policy.dockerapi.read import read
from policy.evaluate import evaluate
from policy.grants import Role
from policy.dockerapi.sources import with_sources
from policy.model import (
    Actor,
    CheckBind,
    Decision,
    Effect,
    EngineFacts,
    EnsureVolume,
    Facts,
    RequestId,
    SetField,
    SetQuery,
)
from policy.obligations import apply
from socket_proxy.facts import FactSource
from socket_proxy.fulfil import Fulfilled, Fulfiller
from socket_proxy.handlers import Handlers
from socket_proxy.refusals import Refusal, of_decision, of_error
from socket_proxy.trail import Trail
from socket_proxy.transaction import Transaction

JSON = (("content-type", "application/json"),)
_NOTHING = Fulfilled(labels={})


class Pipeline:
    """The way of a request; one for the whole proxy, no state of its own."""

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
        gate_closed: Callable[[], Refusal | None],
    ) -> None:
        self._policy = policy
        self._engine_max = engine_facts.api_version
        self._engine_facts = engine_facts
        self._facts = facts
        self._fulfiller = fulfiller
        self._handlers = handlers
        self._trail = trail
        self._json_bytes = limits.json_body_bytes
        self._gate_closed = gate_closed

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
        asked = way.request = await self._read(exchange)
        policy = self._policy()
        everything = policy.for_actor(way.actor).role is Role.ADMIN
        facts = await self._facts.gather(way.actor, policy_facts.needed(asked), everything=everything)
        decision = way.decision = evaluate(policy, way.actor, asked, facts)
        if decision.effect is not Effect.ALLOW:
            return of_decision(decision, asked, way.request_id)
        fulfilled = _NOTHING
        if decision.obligations:
            settled = await self._settle(way, policy, facts, decision)
            if isinstance(settled, Refusal):
                return settled
            decision, fulfilled = settled
            if any(isinstance(item, EnsureVolume) for item in decision.obligations):
                # The volumes exist now, and binding names them by what they are.
                facts = await self._facts.gather(way.actor, policy_facts.needed(asked), everything=everything)
        transaction = self._shape(exchange, way, decision, facts, fulfilled, everything=everything)
        return await self._forward(transaction, decision)

    async def _settle(
        self, way: _Way, policy: Policy, facts: Facts, decision: Decision
    ) -> tuple[Decision, Fulfilled] | Refusal:
        """Do what the obligations ask for.

        SECURITY: a bind source that leads elsewhere (a symbolic link) is judged again as the path it leads to.
        """
        binds = await self._fulfiller.look(way.actor, decision.obligations)
        if isinstance(binds, Refusal):
            return binds
        sources = [item.source for item in decision.obligations if isinstance(item, CheckBind)]
        real = {
            source: bind.source for source, bind in zip(sources, binds, strict=True) if source != bind.source
        }
        if real:
            way.request = with_sources(way.asked(), real)
            decision = way.decision = evaluate(policy, way.actor, way.request, facts)
            if decision.effect is not Effect.ALLOW:
                return of_decision(decision, way.request, way.request_id)
        fulfilled = await self._fulfiller.fulfil(way.actor, decision.obligations, way.request_id)
        return fulfilled if isinstance(fulfilled, Refusal) else (decision, replace(fulfilled, binds=binds))

    async def _read(self, exchange: Exchange) -> Request:
        head = exchange.head
        body = await exchange.read_body(self._json_bytes) if _has_json(head.headers) else None
        incoming = Incoming(method=head.method, target=head.target, headers=head.headers, body=body)
        return read(incoming, engine_max=self._engine_max)

    def _shape(
        self,
        exchange: Exchange,
        way: _Way,
        decision: Decision,
        facts: Facts,
        fulfilled: Fulfilled,
        *,
        everything: bool,
    ) -> Transaction:
        """The rewritten request: obligations applied, references bound to full ids."""
        asked = way.asked()
        shaped = asked
        if decision.obligations:
            shaped = apply(
                asked,
                decision.obligations,
                labels=fulfilled.labels,
                devices=fulfilled.devices,
                engine=self._engine_facts,
            )
        if facts.objects:
            shaped = bind(shaped, facts)
        notes = tuple(
            f"ds01: {item.note}"
            for item in decision.obligations
            if isinstance(item, SetField | SetQuery) and item.note
        )
        return Transaction(
            exchange=exchange,
            actor=way.actor,
            everything=everything,
            request_id=way.request_id,
            asked=asked,
            request=shaped,
            facts=facts,
            fulfilled=fulfilled,
            notes=notes,
        )

    async def _forward(self, transaction: Transaction, decision: Decision) -> Refusal | None:
        """Record the decision, then act on it; a lease that no create will carry is given back."""
        try:
            self._trail.allowed(transaction, decision)
        except BaseException:
            await self._handlers.give_back(transaction)
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
        await exchange.respond(refusal.status, JSON, refusal.body())


class _Way:
    """What is known of a request so far, for the record of however it ends."""

    __slots__ = ("actor", "decision", "request", "request_id")

    def __init__(self, *, actor: Actor, request_id: RequestId) -> None:
        self.actor = actor
        self.request_id = request_id
        self.request: Request | None = None
        self.decision: Decision | None = None

    def asked(self) -> Request:
        if self.request is None:
            raise RuntimeError("a request is shaped before it was read")
        return self.request


def _has_json(headers: tuple[tuple[str, str], ...]) -> bool:
    return any(name == "content-type" and "json" in value.lower() for name, value in headers)
