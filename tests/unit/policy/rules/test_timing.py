"""The rule `timing`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect
from tests.fakes.policy_world import create, decide, rewrite, second_look

ACCEPTED: list[Request] = [
    create(Healthcheck={"Test": ["CMD", "true"], "Interval": 1_000_000}, StopTimeout=10**6),
]


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
