"""The rule `capabilities`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect
from tests.fakes.policy_world import create, decide, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (create({"CapAdd": ["SYS_ADMIN"]}), "HostConfig.CapAdd"),
    (create({"CapAdd": ["ALL"]}), "HostConfig.CapAdd"),
    (create({"CapAdd": ["cap_net_admin"]}), "HostConfig.CapAdd"),
    (create({"CapAdd": ["MKNOD"]}), "HostConfig.CapAdd"),
]
ACCEPTED: list[Request] = [
    create({"CapAdd": ["CHOWN", "CAP_SYS_PTRACE"]}),
    create({"CapDrop": ["ALL"]}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("capabilities", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
