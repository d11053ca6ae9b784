"""Rewritten requests other than creates read back as themselves and pass the second look."""

from __future__ import annotations

import json
from typing import Any

import pytest

from policy.dockerapi.model import Incoming
from policy.dockerapi.read import read
from policy.dockerapi.write import write
from policy.evaluate import evaluate
from policy.model import Effect, Kind
from tests.fakes.policy_world import ALICE, POLICY, facts, in_namespace, own, rewrite, second_look

CASES: list[tuple[str, dict[str, Any] | None]] = [
    ("/v1.41/containers/web/update", {"Memory": 10**13, "CpuPeriod": 1000, "PidsLimit": -1}),
    ("/v1.41/containers/web/update", {"MemorySwap": -1, "RestartPolicy": {"Name": "always"}}),
    ("/v1.41/containers/web/stop?t=99999", None),
    ("/v1.41/containers/web/exec", {"Cmd": ["sh"]}),
    ("/v1.41/volumes/create", {"Name": "vol", "Labels": {"ds01.uid": "0", "a": "b"}}),
    ("/v1.41/networks/create", {"Name": "n"}),
    ("/v1.41/build?t=mine&memory=1&labels=%7B%22ds01.uid%22%3A%220%22%7D&cgroupparent=x&shmsize=5", None),
    ("/v1.41/commit?container=web&repo=mine", {"Labels": {"DS01.x": "y"}}),
]


@pytest.mark.parametrize(("target", "body"), CASES)
def test_rewriting_is_a_fixpoint(target: str, body: dict[str, Any] | None) -> None:
    """The engine reads what ds01 wrote exactly as ds01 meant it."""
    build = "/build" in target
    kind = "application/x-tar" if build else "application/json"
    head = (("content-type", kind), *((("transfer-encoding", "chunked"),) if build else ()))
    text = None if body is None else json.dumps(body).encode()
    asked = read(Incoming(method="POST", target=target, headers=head, body=text), engine_max=(1, 41))
    decision = evaluate(POLICY, ALICE, asked, facts(asked, web=own(Kind.CONTAINER, lease="L9")))
    assert decision.effect is Effect.ALLOW, decision.reasons
    written = rewrite(asked, decision)
    out = write(written)
    again = Incoming(method=out.method, target=out.target, headers=(*out.headers, *head[1:]), body=out.body)
    assert read(again, engine_max=(1, 41)) == written
    assert second_look(in_namespace(written)) == ()
