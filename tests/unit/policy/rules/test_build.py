"""The rule `build`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Effect
from tests.fakes.policy_world import decide, request, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (request(Operation.IMAGE_BUILD, query={"remote": ("http://169.254.169.254/",)}), "remote"),
    (request(Operation.IMAGE_BUILD, query={"networkmode": ("host",)}), "networkmode"),
    (request(Operation.IMAGE_BUILD, query={"version": ("3",)}), "version"),
    (request(Operation.IMAGE_BUILD, query={"securityopt": ('["seccomp=unconfined"]',)}), "securityopt"),
]
ACCEPTED: list[Request] = [
    request(Operation.IMAGE_BUILD, query={"t": ("mine",)}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("build", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
