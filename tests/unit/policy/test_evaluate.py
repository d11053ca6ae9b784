"""Combining rules, and the second look at what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from policy.ask import Ask, Finding, Permit, Rule
from policy.dockerapi.model import Operation, Request
from policy.evaluate import check, combine
from policy.model import Effect, LeaseGpus, Reason
from policy.obligations import put
from tests.fakes.policy_world import (
    ALICE,
    BOB,
    GPUS,
    POLICY,
    create,
    decide,
    facts,
    policy,
    request,
    rewrite,
    second_look,
)

REASON = Reason(rule="stub", field="f", asked="a", limit="l", next_step="n")


def stub(name: str, found: Callable[[Ask], Iterable[Finding]]) -> Rule:
    return Rule(id=name, operations=frozenset(Operation), needs_facts=False, decide=found)


def breaks(_: Ask) -> Iterable[Finding]:
    raise RuntimeError("broken rule")


PERMITS = stub("permits", lambda _: [Permit()])
DENIES = stub("denies", lambda _: [REASON])
SILENT = stub("silent", lambda _: [])
BREAKS = stub("breaks", breaks)


def ask() -> Ask:
    asked = request(Operation.SYSTEM_PING)
    return Ask(grants=POLICY.for_actor(ALICE), actor=ALICE, request=asked, facts=facts(asked))


@pytest.mark.parametrize(
    ("rules", "effect"),
    [
        ([], Effect.DENY),
        ([SILENT], Effect.DENY),
        ([PERMITS, SILENT], Effect.ALLOW),
        ([PERMITS, DENIES], Effect.DENY),
        ([BREAKS, PERMITS], Effect.DENY),
        ([BREAKS], Effect.DENY),
    ],
)
def test_combining(rules: list[Rule], effect: Effect) -> None:
    """Deny beats permit, silence denies, and a rule that raises denies under its own name."""
    decision = combine(rules, ask())
    assert decision.effect is effect
    if BREAKS in rules:
        assert "breaks" in {reason.rule for reason in decision.reasons}


def test_an_empty_policy_allows_nothing() -> None:
    """Without a role nobody may even ping."""
    for operation in Operation:
        assert decide(request(operation, image="x"), under=policy("")).effect is not Effect.ALLOW


def grant() -> Request:
    asked = create({"DeviceRequests": [{"Count": 2, "Capabilities": [["gpu"]]}]})
    decision = decide(asked)
    assert any(isinstance(one, LeaseGpus) for one in decision.obligations)
    return rewrite(asked, decision)


def test_a_grant_needs_the_stamp_to_name_its_lease() -> None:
    """The same body is refused when the stamp names no lease or another one."""
    written = grant()
    assert second_look(written) == ()
    assert check(POLICY, ALICE, written, leases=()) != ()
    assert check(POLICY, ALICE, written, leases=("other",)) != ()


FORGED: list[tuple[tuple[str, ...], Any]] = [
    (("HostConfig", "Privileged"), True),
    (("HostConfig", "CgroupParent"), "/ds01/1001"),
    (("HostConfig", "CgroupParent"), "/ds01/1000/../.."),
    (("HostConfig", "CgroupnsMode"), "host"),
    (("HostConfig", "Memory"), 10**15),
    (("HostConfig", "MemorySwap"), -1),
    (("HostConfig", "PidsLimit"), None),
    (("HostConfig", "Runtime"), "nvidia"),
    (("HostConfig", "Binds"), ["/etc:/x"]),
    (("HostConfig", "Binds"), ["/var/run/docker.sock:/x"]),
    (("HostConfig", "IpcMode"), "host"),
    (("HostConfig", "RestartPolicy"), {"Name": "always"}),
    (("HostConfig", "DeviceRequests"), [{"Count": -1, "Capabilities": [["gpu"]]}]),
    (("HostConfig", "DeviceRequests"), [{"Driver": "nvidia", "DeviceIDs": [GPUS[5]]}]),
    (("HostConfig", "Devices"), [{"PathOnHost": "/dev/nvidia0"}]),
    (("Env",), ["NVIDIA_VISIBLE_DEVICES=all"]),
    (("Labels", "ds01.owner"), "bob"),
    (("Labels", "ds01.uid"), None),
    (("Labels", "ds01.seal"), None),
    (("Labels", "DS01.lease"), "L9"),
]


@pytest.mark.parametrize(("path", "value"), FORGED)
def test_the_second_look_refuses_what_the_proxy_would_not_write(path: tuple[str, ...], value: Any) -> None:
    """A rewritten create with one field changed is refused."""
    asked = create()
    written = rewrite(asked, decide(asked))
    assert second_look(written) == ()
    forged = replace(written, body=put(written.body or {}, path, value))
    assert second_look(forged) != ()


def test_the_second_look_is_for_one_actor() -> None:
    """What was written for one user is refused for another."""
    asked = create()
    assert second_look(rewrite(asked, decide(asked)), BOB) != ()


def test_the_second_look_wants_a_host_config() -> None:
    """Old engines honour HostConfig fields at top level when there is no HostConfig."""
    assert second_look(request(Operation.CONTAINER_CREATE, {"Image": "busybox"})) != ()
