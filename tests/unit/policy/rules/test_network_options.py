"""The rule `network_options`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Effect
from tests.fakes.policy_world import decide, in_namespace, request, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (request(Operation.NETWORK_CREATE, {"Name": "x", "Driver": "macvlan"}), "Driver"),
    (request(Operation.NETWORK_CREATE, {"Name": "host"}), "Name"),
    (
        request(
            Operation.NETWORK_CREATE, {"Name": "x", "Options": {"com.docker.network.bridge.name": "eth0"}}
        ),
        "Options",
    ),
    (
        request(Operation.NETWORK_CREATE, {"Name": "x", "IPAM": {"Config": [{"Subnet": "8.8.8.0/24"}]}}),
        "IPAM.Config.Subnet",
    ),
    (request(Operation.NETWORK_CREATE, {"Name": "x", "Ingress": True}), "Ingress"),
]
ACCEPTED: list[Request] = [
    request(Operation.NETWORK_CREATE, {"Name": "x", "IPAM": {"Config": [{"Subnet": "10.9.0.0/24"}]}}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("network_options", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(in_namespace(rewrite(asked, decision))) == ()
