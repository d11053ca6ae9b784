"""The rule `gpu`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect
from tests.fakes.policy_world import create, decide, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (create({"DeviceRequests": [{"Driver": "nvidia", "Count": 3}]}), "HostConfig.DeviceRequests"),
    (create({"DeviceRequests": [{"Driver": "amd", "Count": 1}]}), "HostConfig.DeviceRequests.Driver"),
    (
        create({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/x=0"]}]}),
        "HostConfig.DeviceRequests.DeviceIDs",
    ),
    (create({"DeviceRequests": [{"Count": 1}, {"DeviceIDs": ["0"]}]}), "HostConfig.DeviceRequests"),
    (create({"Devices": [{"PathOnHost": "/dev/nvidia-caps/nvidia-cap1"}]}), "HostConfig.Devices"),
]
ACCEPTED: list[Request] = [
    create({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}),
    create({"Runtime": "nvidia"}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("gpu", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
