"""The rule `names`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Effect
from tests.fakes.policy_world import decide, request, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (request(Operation.CONTAINER_CREATE, {"HostConfig": {}}, query={"name": ("0123456789ab",)}), "name"),
    (request(Operation.CONTAINER_CREATE, {"HostConfig": {}}, query={"name": ("/" + "a" * 64,)}), "name"),
]
ACCEPTED: list[Request] = [
    request(Operation.CONTAINER_CREATE, {"HostConfig": {}}, query={"name": ("0123456789abc",)}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("names", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
