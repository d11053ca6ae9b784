"""The rule `ports`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect
from tests.fakes.policy_world import create, decide, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (
        create({"PortBindings": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}}),
        "HostConfig.PortBindings.HostIp",
    ),
    (create({"PortBindings": {"80/tcp": [{"HostPort": "22"}]}}), "HostConfig.PortBindings.HostPort"),
    (create({"PortBindings": {"80/tcp": [{"HostPort": "2000-99999"}]}}), "HostConfig.PortBindings.HostPort"),
    (create({"PublishAllPorts": True}), "HostConfig.PublishAllPorts"),
]
ACCEPTED: list[Request] = [
    create({"PortBindings": {"80/tcp": [{"HostPort": "8080"}, {}]}}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("ports", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
