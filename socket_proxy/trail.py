"""The record of decisions: one audit line each, written before the answer, and what `ds01 explain` reads back.

A decision that would change something and cannot be recorded does not happen (503); a read goes on, with an alarm.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from observability import events
from observability.audit import AuditLog, AuditUnavailable
from observability.logging import log
from policy.dockerapi.model import Request
from policy.dockerapi.write import write
from policy.model import Actor, Decision, Facts, RequestId, Share
from socket_proxy.refusals import Refusal
from socket_proxy.transaction import Transaction

_REMEMBERED = 2048
# SECURITY: what a client writes is cut, so that nobody fills the disk with what was refused, or makes a line too long
# to be written at all. Names in use are shorter.
_LONGEST = 300
_MOST_REASONS = 8
READS = frozenset({"GET", "HEAD"})


class Trail:
    """Writes the audit trail and remembers the latest refusals for their users."""

    def __init__(
        self,
        audit: AuditLog,
        *,
        policy_digest: Callable[[], str],
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        """Write to `audit`. on_failure: a record could not be written."""
        self._audit = audit
        self._policy_digest = policy_digest
        self._refused: OrderedDict[RequestId, dict[str, Any]] = OrderedDict()
        self._on_failure = on_failure
        self._failing = False

    def allowed(
        self,
        transaction: Transaction,
        decision: Decision,
    ) -> None:
        """Record an allow. Raises: AuditUnavailable: the request must not go on (never for a read)."""
        method = transaction.exchange.head.method
        record = self._record(transaction.actor, transaction.request_id, method, transaction.request)
        record["decision"] = "allow"
        if shared := _shared(transaction.facts):
            record["shared"] = shared
        if transaction.request.body is not None:
            record["digest"] = sha256(write(transaction.request).body or b"").hexdigest()
        if transaction.fulfilled.lease is not None:
            record["leases"] = [transaction.fulfilled.lease]
        if transaction.notes:
            record["changed"] = [note[:_LONGEST] for note in transaction.notes[:_MOST_REASONS]]
        if decision.reasons:
            record["reasons"] = [reason.rule for reason in decision.reasons]
        self._write(record, method)

    def refused(
        self,
        actor: Actor | None,
        request_id: RequestId,
        refusal: Refusal,
        *,
        method: str,
        target: str,
        request: Request | None,
        decision: Decision | None = None,
    ) -> None:
        """Record a refusal; it stands whether or not it can be written."""
        record = self._record(actor, request_id, method, request)
        if request is None:
            record["target"] = target[:200].partition("?")[0]  # unread: its query may hold anything
        record |= {
            "decision": "refuse",
            "status": refusal.status,
            "rules": list(refusal.rules),
            "message": refusal.message[:1000],
            "reasons": [
                {
                    "rule": r.rule,
                    "field": r.field[:_LONGEST],
                    "asked": r.asked[:_LONGEST],
                    "limit": r.limit[:_LONGEST],
                    "next_step": r.next_step,
                }
                for r in (decision.reasons[:_MOST_REASONS] if decision else ())
            ],
        }
        self._remember(request_id, record)
        log(
            events.REQUEST_DENIED,
            request_id=request_id,
            uid=actor.uid if actor else None,
            operation=record.get("operation"),
            status=refusal.status,
            rules=list(refusal.rules),
        )
        self._write(record, "GET")

    def note(self, record: dict[str, Any]) -> None:
        """Record something that is not a request (break-glass, policy). Raises: AuditUnavailable."""
        self._audit.append(record)

    def find(self, request_id: str, *, uid: int | None) -> dict[str, Any] | None:
        """The record of a decision; with `uid`, only if it was that user's."""
        record = self._refused.get(RequestId(request_id)) or self._audit.tail_find(request_id)
        if record is None or (uid is not None and record.get("uid") != uid):
            return None
        return record

    def _record(
        self, actor: Actor | None, request_id: RequestId, method: str, request: Request | None
    ) -> dict[str, Any]:
        record: dict[str, Any] = {"event": "request", "request_id": request_id, "method": method}
        if actor is not None:
            record |= {"actor": actor.name, "uid": actor.uid, "door": actor.door, "pid": actor.peer_pid}
            if actor.login_uid is not None and actor.login_uid != actor.uid:
                record["login_uid"] = actor.login_uid
            if actor.peer_container is not None:
                record["peer_container"] = actor.peer_container
        if request is not None:
            record["operation"] = request.operation
            if request.params:
                record["params"] = {key: value[:_LONGEST] for key, value in request.params.items()}
        record["policy"] = self._policy_digest()
        return record

    def _remember(self, request_id: RequestId, record: dict[str, Any]) -> None:
        self._refused[request_id] = {**record, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        if len(self._refused) > _REMEMBERED:
            self._refused.popitem(last=False)

    def _write(self, record: dict[str, Any], method: str) -> None:
        try:
            self._audit.append(record)
        except AuditUnavailable as error:
            self._on_failure()
            if not self._failing:
                log(events.AUDIT_FAILED, path="audit.jsonl", problem=str(error))
            self._failing = True
            if method not in READS:
                raise
        else:
            if self._failing:
                log(events.AUDIT_RECOVERED, path="audit.jsonl")
            self._failing = False


def _shared(facts: Facts) -> list[dict[str, Any]]:
    """Others' containers that a request is about, with their owners."""
    return [
        {"container": fact.container or fact.id, "owner_uid": fact.owner, "share": fact.share}
        for fact in facts.objects.values()
        if fact is not None and fact.share is not Share.NONE
    ]
