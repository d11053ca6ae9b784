"""The rule `build`: what it refuses and what it lets through."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.dockerapi.model import Incoming, Operation, Request
from policy.dockerapi.read import read
from policy.dockerapi.write import write
from policy.model import Effect
from tests.fakes.policy_world import decide, in_namespace, request, rewrite, second_look

REFUSED: list[tuple[Request, str]] = [
    (request(Operation.IMAGE_BUILD, query={"remote": ("http://169.254.169.254/",)}), "remote"),
    (request(Operation.IMAGE_BUILD, query={"networkmode": ("host",)}), "networkmode"),
    (request(Operation.IMAGE_BUILD, query={"version": ("3",)}), "version"),
    (request(Operation.IMAGE_BUILD, query={"securityopt": ('["seccomp=unconfined"]',)}), "securityopt"),
]
ACCEPTED: list[Request] = [
    request(Operation.IMAGE_BUILD, query={"t": ("mine",)}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("build", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(in_namespace(rewrite(asked, decision))) == ()


@pytest.mark.parametrize("query", [{}, {"rm": ("0",)}, {"rm": ("0",), "forcerm": ("0",)}])
def test_no_step_stays_behind(query: dict[str, tuple[str, ...]]) -> None:
    """Nobody owns the container of a step, so that none is kept, and the plugin lets no other words through."""
    asked = request(Operation.IMAGE_BUILD, query=query)
    written = in_namespace(rewrite(asked, decide(asked)))
    assert (written.query.get("rm"), written.query["forcerm"]) == (None, ("1",))
    sent = write(written)
    incoming = Incoming(method=sent.method, target=sent.target, headers=sent.headers, body=None)
    assert second_look(read(incoming, engine_max=(1, 41))) == ()
    assert second_look(replace(written, query={**written.query, "rm": ("0",)})) != ()


def test_the_proxy_may_name_images_to_take_steps_from() -> None:
    """By id; what a client names is dropped before, and is nothing that the plugin lets through."""
    asked = request(Operation.IMAGE_BUILD, query={"t": ("mine",), "cachefrom": ('["busybox"]',)})
    written = in_namespace(rewrite(asked, decide(asked)))
    assert "cachefrom" not in written.query
    one = f'"sha256:{"a" * 64}"'
    for text, passes in (
        (f"[{one}]", True),
        (f"[{one},{one}]", True),
        ('["busybox"]', False),
        (f"[{one},1]", False),
    ):
        again = replace(written, query={**written.query, "cachefrom": (text,)})
        assert (second_look(again) == ()) is passes, text
