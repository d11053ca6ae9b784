"""The rule `security_opt`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect
from tests.fakes.policy_world import create, decide, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (create({"SecurityOpt": ["seccomp={}"]}), "HostConfig.SecurityOpt"),
    (create({"SecurityOpt": ["no-new-privileges=false"]}), "HostConfig.SecurityOpt"),
    (create({"SecurityOpt": ["writable-cgroups=true"]}), "HostConfig.SecurityOpt"),
]
ACCEPTED: list[Request] = [
    create({"SecurityOpt": ["seccomp=unconfined", "no-new-privileges"], "MaskedPaths": []}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("security_opt", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
