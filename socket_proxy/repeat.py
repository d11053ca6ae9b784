"""What a client asks again and again on one connection: understood once, written once, and one stamp signed ahead.

A signature costs about as much as all the rest of a small call, and dockerd needs longer than that to answer: so the next
stamp is made while the engine works on this one. It is used once, for the same actor and the same bytes, or thrown away.
"""

from __future__ import annotations

import asyncio

from host.clock import boottime_ms
from http1.client import Call, prepare
from policy.compile import Policy
from policy.dockerapi.model import Outgoing, Request
from policy.dockerapi.write import write
from policy.evaluate import evaluate
from policy.model import Actor, Decision, Facts, Reference, Uid
from socket_proxy.stamp import LIFETIME_MS, Stamper

_FRESH_MS = LIFETIME_MS // 2  # a spare stamp must live at least this long, as dockerd may be slow to ask


_Question = tuple[Policy, Actor, Facts]


class Reading:
    """All that follows from one request head alone; kept while its connection repeats that head."""

    __slots__ = ("_answer", "_question", "again", "references", "request", "written")

    def __init__(self, request: Request, references: tuple[Reference, ...]) -> None:
        self.request = request
        self.references = references
        self.again = False  # this head came at least twice in a row
        self.written: Written | None = None
        self._question: _Question | None = None
        self._answer: Decision | None = None

    def decide(self, policy: Policy, actor: Actor, facts: Facts) -> Decision:
        """Ask the rules, unless the very same was asked last: deciding is pure. What names objects is always asked."""
        if self.references:
            return evaluate(policy, actor, self.request, facts)
        asked = self._question
        if self._answer is None or asked is None or not _same(asked, (policy, actor, facts)):
            self._question, self._answer = (
                (policy, actor, facts),
                evaluate(policy, actor, self.request, facts),
            )
            self.written = None  # how a list is narrowed follows from the policy too
        return self._answer


def _same(asked: _Question, now: _Question) -> bool:
    return asked[0] is now[0] and asked[1] is now[1] and asked[2] == now[2]


class Written:
    """A request without body, obligations or leases, ready to be sent by one user any number of times."""

    __slots__ = ("_call", "_outgoing", "_spare", "_stamper", "_uid")

    def __init__(self, request: Request, *, uid: Uid, stamper: Stamper) -> None:
        self._outgoing: Outgoing = write(request)
        self._call = prepare(self._outgoing.method, self._outgoing.target, self._outgoing.headers)
        self._uid = uid
        self._stamper = stamper
        self._spare: tuple[Call, int] | None = None

    def next(self) -> Call:
        """The request under a stamp of its own; the one after it is signed once this one is on its way."""
        spare, self._spare = self._spare, None
        call = spare[0] if spare is not None and spare[1] > boottime_ms() else self._stamped()
        asyncio.get_running_loop().call_soon(self._sign_ahead)
        return call

    def _sign_ahead(self) -> None:
        until_ms = boottime_ms() + LIFETIME_MS - _FRESH_MS
        self._spare = self._stamped(), until_ms

    def _stamped(self) -> Call:
        return self._call.with_field(
            *self._stamper.header(self._outgoing, uid=self._uid, upgrade=None, streams=False)
        )
