"""The rule `containers`: what it refuses and what it lets through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.dockerapi.model import Request
from policy.evaluate import evaluate
from policy.model import Effect, Usage
from tests.fakes.policy_world import ALICE, POLICY, create, decide, facts, rewrite, second_look

ACCEPTED: list[Request] = [
    create(),
]


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()


def test_unknown_usage_is_not_zero() -> None:
    """At the limit, and when the number is unknown, a create is refused."""
    asked = create()
    for used in (None, 5, 6):
        known = replace(facts(asked), usage=Usage(containers=used))
        assert evaluate(POLICY, ALICE, asked, known).effect is Effect.DENY
