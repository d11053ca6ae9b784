"""The rule `registry`: what it refuses and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Effect
from tests.fakes.policy_world import decide, request, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (request(Operation.IMAGE_CREATE, query={"fromSrc": ("http://x/y",)}), "fromSrc"),
    (request(Operation.IMAGE_CREATE, query={"fromImage": ("localhost:5000/x",)}), "fromImage"),
    (request(Operation.SYSTEM_AUTH, {"serveraddress": "http://127.0.0.1:80/"}), "serveraddress"),
    *(
        (request(Operation.SYSTEM_AUTH, {"serveraddress": address}), "serveraddress")
        for address in (
            "http://x@127.0.0.1:5000/",
            "0.0.0.0:5000",
            "https://[::]:1",
            "LOCALHOST.:1",
            "0x7f.1:1",
            "2130706433:1",
            "127.1:1",
        )
    ),
    (request(Operation.IMAGE_SEARCH, query={"term": ("127.0.0.1:5000/x",)}), "term"),
    (request(Operation.IMAGE_CREATE, query={"fromImage": ("ds01.invalid/u1000/x",)}), "fromImage"),
    (request(Operation.IMAGE_PUSH, image="DS01.INVALID:443/u1000/x"), "image"),
    (request(Operation.SYSTEM_AUTH, {"serveraddress": "https://ds01.invalid/"}), "serveraddress"),
    (request(Operation.DISTRIBUTION_INSPECT, image="ds01.invalid/u1000/x"), "image"),
]
ACCEPTED: list[Request] = [
    request(Operation.IMAGE_CREATE, query={"fromImage": ("busybox",), "tag": ("latest",)}),
    request(Operation.IMAGE_CREATE, query={"fromImage": ("ghcr.io/a/b",)}),
    request(Operation.IMAGE_CREATE, query={"fromImage": ("10.1.2.3:5000/a/b",)}),
    request(Operation.IMAGE_SEARCH, query={"term": ("library/busybox",)}),
    request(Operation.SYSTEM_AUTH, {"serveraddress": "https://index.docker.io/v1/"}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("registry", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()
