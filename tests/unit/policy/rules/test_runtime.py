"""The rule `runtime`: what it refuses and what it lets through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.dockerapi.model import Request
from policy.evaluate import check, evaluate
from policy.model import Effect
from tests.fakes.policy_world import (
    ALICE,
    ENGINE,
    LEASE,
    POLICY,
    create,
    decide,
    facts,
    rewrite,
    second_look,
)

REFUSED: list[tuple[Request, str]] = [
    (create({"Runtime": "io.containerd.runc.v2"}), "HostConfig.Runtime"),
    (create({"Runtime": "runc "}), "HostConfig.Runtime"),
    (create({"Runtime": "crun"}), "HostConfig.Runtime"),
    (create({"Annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=all"}}), "HostConfig.Annotations"),
]
ACCEPTED: list[Request] = [
    create({"Runtime": "runc"}),
    create({"Runtime": "ds01"}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("runtime", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()


@pytest.mark.parametrize("asked", ["", "runc", "ds01", "nvidia"])
def test_where_the_engine_has_the_guard_nobody_goes_around_it(asked: str) -> None:
    """Whoever writes runc gets the guarded one, with a GPU and without; the second look lets nothing else pass."""
    guarded = replace(ENGINE, runtime="ds01")
    for host in ({}, {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]]}]}):
        request = create({"Runtime": asked, **host})
        decision = evaluate(POLICY, ALICE, request, replace(facts(request), engine=guarded))
        assert decision.effect is Effect.ALLOW, decision.reasons
        written = rewrite(request, decision, engine=guarded)
        assert (written.body or {})["HostConfig"]["Runtime"] == "ds01"  # type: ignore[index,call-overload]  # JSON
        assert check(POLICY, ALICE, written, leases=(LEASE,), runtime="ds01") == ()
        (reason,) = check(POLICY, ALICE, written, leases=(LEASE,))
        assert (reason.rule, reason.field) == ("runtime", "HostConfig.Runtime")
