"""The rule `gpu`: what it refuses and what it lets through."""

from __future__ import annotations

from fractions import Fraction

import pytest

from policy.compile import compile_policy
from policy.dockerapi.model import Request
from policy.document import parse
from policy.fields import as_object
from policy.model import Effect, GroupGpus, LeaseGpus
from tests.fakes.policy_world import create, decide, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (create({"DeviceRequests": [{"Driver": "nvidia", "Count": 3}]}), "HostConfig.DeviceRequests"),
    (create({"DeviceRequests": [{"Driver": "amd", "Count": 1}]}), "HostConfig.DeviceRequests.Driver"),
    (
        create({"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["vendor.com/x=0"]}]}),
        "HostConfig.DeviceRequests.DeviceIDs",
    ),
    (create({"DeviceRequests": [{"Count": 1}, {"DeviceIDs": ["0"]}]}), "HostConfig.DeviceRequests"),
    (create(Labels={"ds01.gpu.profile": "big"}), "Labels.ds01.gpu.profile"),
    (create({"DeviceRequests": [{"Count": 1}]}, Labels={"ds01.wait": "2h"}), "Labels.ds01.wait"),
    (create({"Devices": [{"PathOnHost": "/dev/nvidia-caps/nvidia-cap1"}]}), "HostConfig.Devices"),
]
ACCEPTED: list[Request] = [
    create({"DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}]}),
    create({"Runtime": "nvidia"}),
    create(Labels={"ds01.gpu.profile": "1g.5gb", "ds01.wait": "1h", "ds01.gpu.time": "2h"}),
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


TERMS = """
version: 1
defaults:
  role: user
  limits: {gpus: 4, gpus_per_container: 2, gpu_equivalents: 10/7, gpu_time: 1d, gpu_hold: 1h, wait: 5m}
  gpu: {classes: [mig, gpu], weight: 3, priority: 2}
groups: {all: {members: [alice], gpu: {group_gpus: 6}}}
"""


def leased(asked: Request) -> LeaseGpus:
    decision = decide(asked, under=compile_policy(parse(TERMS)))
    (found,) = [one for one in decision.obligations if isinstance(one, LeaseGpus)]
    return found


def test_policy_and_labels_become_one_obligation() -> None:
    """What policy says, and of times the shorter; a wait that the create states counts instead of the policy's."""
    assert leased(create({"DeviceRequests": [{"Count": 2}]})) == LeaseGpus(
        count=2,
        classes=("mig", "gpu"),
        limit=4,
        equivalents=Fraction(10, 7),
        groups=(GroupGpus(name="all", devices=6),),
        seconds=86400,
        hold_seconds=3600,
        wait_seconds=300,
        wait_most_seconds=3600,
        weight=3,
        priority=2,
    )
    labels = {"ds01.gpu.memory": "8GiB", "ds01.gpu.time": "2h", "ds01.wait": "0s"}
    found = leased(create(Labels=labels))
    assert (found.count, found.memory_mib, found.seconds, found.wait_seconds) == (1, 8192, 7200, 0)


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        (create({"DeviceRequests": [{"Count": 3}]}), "2 for group all"),
        (create(Labels={"ds01.gpu.profile": "any", "ds01.gpu.time": "2d"}), "86400s for group all"),
    ],
)
def test_limits_of_one_container_are_told(asked: Request, limit: str) -> None:
    """Devices of one container, and how long."""
    decision = decide(asked, under=compile_policy(parse(TERMS)))
    assert [reason.limit for reason in decision.reasons] == [limit]


def test_labels_that_ask_for_gpus_do_not_reach_the_engine() -> None:
    """They are read and gone, as all that begin with ds01."""
    asked = create(Labels={"ds01.gpu.profile": "1g.5gb", "ds01.wait": "1h", "mine": "x"})
    written = rewrite(asked, decide(asked)).body or {}
    labels = as_object(written["Labels"])
    assert labels["mine"] == "x"
    assert not {"ds01.gpu.profile", "ds01.wait"} & labels.keys()
