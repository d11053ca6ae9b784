"""How a failure or a denial becomes status and message."""

from __future__ import annotations

import json

import pytest

from http1.errors import UpstreamLost, UpstreamUnavailable
from observability.audit import AuditUnavailable
from policy.dockerapi.model import MalformedRequest, Operation, Request
from policy.dockerapi.read import UnknownField, UnknownRoute
from policy.dockerapi.responses import UnreadableAnswer
from policy.model import Decision, Effect, Kind, Reason, Reference, RequestId
from socket_proxy.records import RecordsUnavailable
from socket_proxy.refusals import EngineError, Refusal, Unavailable, of_decision, of_error

ID = RequestId("abc123")
REASON = Reason(
    rule="privileged", field="HostConfig.Privileged", asked="true", limit="false", next_step="leave it out"
)


def request(operation: Operation, **params: str) -> Request:
    return Request(operation=operation, version=(1, 41), params=params)


@pytest.mark.parametrize(
    ("error", "status", "rule"),
    [
        (MalformedRequest("x"), 400, "malformed_request"),
        (UnknownRoute(), 404, "route_table"),
        (UnknownField("x", "y"), 403, "unknown_field"),
        (UpstreamUnavailable(), 503, "engine"),
        (UpstreamLost("x"), 503, "engine"),
        (UnreadableAnswer("x"), 502, "engine"),
        (EngineError(500, b"secret"), 503, "engine"),
        (Unavailable("x"), 503, "unavailable"),
        (RecordsUnavailable("x"), 503, "unavailable"),
        (AuditUnavailable("x"), 503, "unavailable"),
        (KeyError("secret"), 500, "bug"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_each_failure_has_its_status(error: Exception, status: int, rule: str) -> None:
    """Told apart by who can do something about it, and without the engine's words or Python's."""
    refusal = of_error(error, ID)
    assert (refusal.status, refusal.rules) == (status, (rule,))
    assert "secret" not in refusal.message
    assert "\n" not in refusal.message


@pytest.mark.parametrize("error", [KeyError("x"), EngineError(500, b""), UnreadableAnswer("x")])
def test_what_the_admin_must_look_at_has_the_request_id(error: Exception) -> None:
    """The user has something to tell."""
    assert ID in of_error(error, ID).message


def test_a_lost_create_says_to_look_first() -> None:
    """It may have taken effect: trying again blindly could make two."""
    assert "docker ps -a" in of_error(UpstreamLost("x"), ID).message


def test_a_denial_names_rule_and_explain() -> None:
    """The same rule twice is named once among the rules, and the id stands at the end."""
    decision = Decision(effect=Effect.DENY, reasons=(REASON, REASON))
    refusal = of_decision(decision, request(Operation.CONTAINER_CREATE), ID)
    assert (refusal.status, refusal.rules) == (403, ("privileged",))
    assert refusal.message.endswith("or: ds01 explain abc123")


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.NETWORK, Kind.VOLUME, Kind.EXEC, Kind.IMAGE])
def test_what_is_not_visible_is_said_as_dockerd_does(kind: Kind) -> None:
    """404 with the name that was asked for, no rule and no mention of ds01 in it."""
    decision = Decision(effect=Effect.NOT_VISIBLE, missing=Reference(kind=kind, text="theirs"))
    refusal = of_decision(decision, request(Operation.CONTAINER_INSPECT), ID)
    assert refusal.status == 404
    assert "theirs" in refusal.message
    assert "ds01" not in refusal.message


def test_there_is_no_swarm() -> None:
    """Clients ask on their own; they get dockerd's own answer of an engine without one."""
    decision = Decision(effect=Effect.DENY, reasons=(REASON,))
    refusal = of_decision(decision, request(Operation.SWARM_READ), ID)
    assert refusal.status == 503
    assert "not a swarm manager" in refusal.message


def test_inspecting_any_kind_gets_past_plugins() -> None:
    """`docker inspect NAME` goes on after a 404 alone; changing a plugin stays a 403."""
    decision = Decision(effect=Effect.DENY, reasons=(REASON,))
    read = request(Operation.PLUGIN_INSPECT, plugin="x")
    change = request(Operation.PLUGIN_SET, plugin="x")
    assert of_decision(decision, read, ID).status == 404
    assert of_decision(decision, change, ID).status == 403


def test_the_body_is_dockers_form() -> None:
    """One JSON object with a message, whatever characters the message holds."""
    assert json.loads(Refusal(status=403, message='ds01: "ü"').body()) == {"message": 'ds01: "ü"'}
