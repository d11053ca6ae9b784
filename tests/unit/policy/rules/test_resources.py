"""The rule `resources`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect
from tests.fakes.policy_world import create, decide, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (create({"OomScoreAdj": -1}), "HostConfig.OomScoreAdj"),
    (create({"OomKillDisable": True}), "HostConfig.OomKillDisable"),
    (create({"CpuRealtimeRuntime": 1}), "HostConfig.CpuRealtimeRuntime"),
    (create({"NanoCpus": 10**9, "CpuQuota": 100_000}), "HostConfig.NanoCpus"),
    (create({"NanoCpus": 10**9, "CpuQuota": 100_000, "CpuPeriod": 50_000}), "HostConfig.NanoCpus"),
]
ACCEPTED: list[Request] = [
    create({"Memory": 10**13, "NanoCpus": 10**12, "PidsLimit": -1}),
    create({"CpuPeriod": 1000, "CpuQuota": -1}),
    create({"NanoCpus": 2 * 10**9, "CpuQuota": 200_000, "CpuPeriod": 100_000}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("resources", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()


def test_a_limit_that_is_said_in_both_forms_is_written_once() -> None:
    """As a client does that makes a create of what inspect showed; bounded as ever."""
    for nano, written in ((2 * 10**9, 2 * 10**9), (64 * 10**9, 4 * 10**9)):
        asked = create({"NanoCpus": nano, "CpuQuota": nano // 10_000, "CpuPeriod": 100_000})
        body = rewrite(asked, decide(asked)).body
        assert body is not None
        host = body["HostConfig"]
        assert isinstance(host, dict)
        assert {name: host.get(name) for name in ("NanoCpus", "CpuQuota", "CpuPeriod")} == {
            "NanoCpus": written,
            "CpuQuota": None,
            "CpuPeriod": None,
        }
