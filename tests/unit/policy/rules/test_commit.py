"""The rule `commit`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Effect
from tests.fakes.policy_world import decide, in_namespace, request, rewrite, second_look

ACCEPTED: list[Request] = [
    request(Operation.IMAGE_COMMIT, {"Labels": {"ds01.owner": "bob"}}, query={"repo": ("web",)}),
]


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(in_namespace(rewrite(asked, decision))) == ()
