"""How a request ends when it does not reach dockerd: one place turns kinds of failure into status and message."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from http1.errors import UpstreamLost, UpstreamUnavailable
from observability.audit import AuditUnavailable
from policy.dockerapi import responses
from policy.dockerapi.model import MalformedRequest, Operation, Request
from policy.dockerapi.read import UnknownField, UnknownRoute
from policy.dockerapi.responses import UnreadableAnswer
from policy.model import Decision, ObjectFact, RequestId
from socket_proxy.records import RecordsUnavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that ds01 gives itself. `rules` are the rule ids, for the audit and `ds01 explain`."""

    status: int
    message: str
    rules: tuple[str, ...] = ()

    def body(self) -> bytes:
        """Docker's error form, which every client shows."""
        return msgspec.json.encode({"message": self.message}) + b"\n"


class EngineError(Exception):
    """dockerd answered one of ds01's own calls with an error status."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"HTTP {status}: {body[:300]!r}")
        self.status = status
        self.body = body


class Unavailable(Exception):  # noqa: N818  the project's word for "an operator must act" (503)
    """Something ds01 needs is not there now: the engine's index, the allocator, the audit file."""


# What a task of ds01's own meets when the engine or the allocator has no answer for it: it logs that and tries again.
UNANSWERED = (Unavailable, UpstreamUnavailable, UpstreamLost, EngineError, msgspec.DecodeError)


def of_decision(decision: Decision, request: Request, request_id: RequestId) -> Refusal:
    """The refusal that a denying decision amounts to.

    What is absent and what is another's is answered in dockerd's own words, and so is swarm, which clients ask about.
    """
    if decision.missing is not None:
        status, message = responses.not_found(decision.missing.kind, decision.missing.text)
        return Refusal(status=status, message=message, rules=("ownership",))
    rules = tuple(dict.fromkeys(reason.rule for reason in decision.reasons))
    if request.operation is Operation.SWARM_READ:
        return Refusal(status=responses.NO_SWARM_STATUS, message=responses.NO_SWARM_MESSAGE, rules=rules)
    if request.operation is Operation.PLUGIN_INSPECT:
        # `docker inspect NAME` asks for every kind of object in turn and stops at anything but a 404.
        return Refusal(
            status=404, message=f'plugin "{request.params.get("plugin", "")}" not found', rules=rules
        )
    text = "; ".join(reason.text() for reason in decision.reasons)
    return Refusal(status=403, message=f"ds01: {text}, or: ds01 explain {request_id}", rules=rules)


def of_taken(request: Request, other: ObjectFact) -> Refusal:
    """The refusal of a new name that another object of the user's own has already."""
    given = next(iter(request.query.get("name", ())), "") or str((request.body or {}).get("Name", ""))
    status, message = responses.taken(other.kind, given.removeprefix("/"), other.id)
    return Refusal(status=status, message=message, rules=("names",))


def of_error(error: Exception, request_id: RequestId) -> Refusal:
    """The refusal that a failure amounts to, told apart by who can do something about it."""
    match error:
        case MalformedRequest():
            return Refusal(
                status=400, message=f"ds01: malformed request: {error}", rules=("malformed_request",)
            )
        case UnknownRoute():
            return Refusal(status=404, message=str(error) or "page not found", rules=("route_table",))
        case UnknownField():
            return Refusal(status=403, message=f"ds01: {error}", rules=("unknown_field",))
        case UpstreamUnavailable():
            return Refusal(
                status=503,
                message=f"ds01: the Docker engine is not running or is restarting ({error}); try again in a moment",
                rules=("engine",),
            )
        case UpstreamLost():
            return Refusal(
                status=503,
                message="ds01: the Docker engine went away during this request, which may have taken effect; "
                "look with docker ps -a before trying again",
                rules=("engine",),
            )
        case UnreadableAnswer():
            return Refusal(
                status=502,
                message=f"ds01: the Docker engine gave an answer that ds01 cannot filter ({error}); "
                f"tell the admin the request id {request_id}",
                rules=("engine",),
            )
        case EngineError():
            return Refusal(
                status=503,
                message=f"ds01: the Docker engine refused one of ds01's own questions (HTTP {error.status}); "
                f"tell the admin the request id {request_id}",
                rules=("engine",),
            )
        case AuditUnavailable():
            return Refusal(
                status=503,
                message="ds01: the audit log cannot be written, so nothing may be changed; look at what there is with "
                f"docker ps, and tell the admin: {error}",
                rules=("unavailable",),
            )
        case Unavailable() | RecordsUnavailable():
            return Refusal(status=503, message=f"ds01: {error}", rules=("unavailable",))
        case _:
            return Refusal(
                status=500,
                message=f"ds01: an error of ds01 itself; nothing was done; tell the admin the request id {request_id}",
                rules=("bug",),
            )
