"""The rule `volume_options`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Effect
from tests.fakes.policy_world import decide, in_namespace, request, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (request(Operation.VOLUME_CREATE, {"Name": "vol", "Driver": "sshfs"}), "Driver"),
    (
        request(
            Operation.VOLUME_CREATE,
            {"Name": "vol", "DriverOpts": {"type": "none", "o": "bind", "device": "/etc"}},
        ),
        "DriverOpts",
    ),
    (
        request(
            Operation.VOLUME_CREATE,
            {"Name": "vol", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1g,bind"}},
        ),
        "DriverOpts",
    ),
    (request(Operation.VOLUME_CREATE, {"ClusterVolumeSpec": {"Group": "x"}}), "ClusterVolumeSpec"),
]
ACCEPTED: list[Request] = [
    request(
        Operation.VOLUME_CREATE,
        {"Name": "vol", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=64m"}},
    ),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("volume_options", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(in_namespace(rewrite(asked, decision))) == ()
