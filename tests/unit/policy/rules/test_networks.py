"""The rule `networks`: what it refuses and what it lets through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.dockerapi.model import Operation
from policy.evaluate import evaluate
from policy.model import Effect, Usage
from tests.fakes.policy_world import ALICE, decide, facts, in_namespace, policy, request, rewrite, second_look

POLICY = policy("defaults: {role: user, limits: {networks: 2}}")
ASKED = request(Operation.NETWORK_CREATE, {"Name": "app"})


def test_accepts() -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(ASKED)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(in_namespace(rewrite(ASKED, decision))) == ()


@pytest.mark.parametrize(("used", "allowed"), [(None, False), (0, True), (1, True), (2, False), (9, False)])
def test_the_limit_counts(used: int | None, *, allowed: bool) -> None:
    """At the limit, and when the number is unknown, a network is refused by this rule alone."""
    decision = evaluate(POLICY, ALICE, ASKED, replace(facts(ASKED), usage=Usage(networks=used)))
    assert (decision.effect is Effect.ALLOW) == allowed
    assert {reason.rule for reason in decision.reasons} == (set() if allowed else {"networks"})
