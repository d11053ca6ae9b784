"""The rule `timing`: what it refuses and what it lets through."""

from __future__ import annotations

from typing import Any

import pytest

from policy.dockerapi.model import Request
from policy.model import Effect, Kind, ObjectFact
from tests.fakes.policy_world import create, decide, rewrite, second_look

ACCEPTED: list[Request] = [
    create(Healthcheck={"Test": ["CMD", "true"], "Interval": 1_000_000}, StopTimeout=10**6),
]


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()


@pytest.mark.parametrize(
    ("asked", "of_image", "written"),
    [
        ({}, (1_000_000, 0), {"Interval": 5_000_000_000}),
        ({}, (0, 1_000_000), {"StartInterval": 5_000_000_000}),
        ({"Test": ["CMD", "x"]}, (1_000_000, 0), {"Test": ["CMD", "x"], "Interval": 5_000_000_000}),
        ({"Interval": 7_000_000_000}, (1_000_000, 0), {"Interval": 7_000_000_000}),
        ({}, (30_000_000_000, 0), None),
        ({}, (0, 0), None),
    ],
)
def test_an_images_health_check_is_slowed_down(
    asked: dict[str, Any], of_image: tuple[int, int], written: dict[str, Any] | None
) -> None:
    """What the request leaves to the image is judged as the image has it, and what the image may have stays there."""
    sent = create(Healthcheck=asked) if asked else create()
    image = ObjectFact(kind=Kind.IMAGE, id="sha256:1", owner=None, shared=True, check_intervals_ns=of_image)
    body = rewrite(sent, decide(sent, busybox=image)).body or {}
    assert body.get("Healthcheck") == written
