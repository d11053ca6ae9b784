"""The rule `ownership`: what it refuses, what it hides and what it lets through."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Operation, Request
from policy.evaluate import evaluate
from policy.model import Effect, Facts, Kind, ObjectFact
from tests.fakes.policy_world import ADMIN, ALICE, ENGINE, POLICY, create, decide, facts, own, request

START = request(Operation.CONTAINER_START, container="web")
MINE, BOBS = own(Kind.CONTAINER), own(Kind.CONTAINER, owner=1001)
SHARED_IMAGE = own(Kind.IMAGE, owner=None, shared=True)
TAG = request(Operation.IMAGE_TAG, query={"repo": ("mine",)}, image="busybox")

BUILD = request(Operation.IMAGE_BUILD, query={"t": ("mine",), "cachefrom": ('["cache"]',)})
PULL = request(Operation.IMAGE_CREATE, query={"fromImage": ("busybox",), "tag": ("latest",)})

CASES: list[tuple[Request, str, ObjectFact | None, Effect]] = [
    (START, "web", MINE, Effect.ALLOW),
    (START, "web", None, Effect.NOT_VISIBLE),
    (START, "web", BOBS, Effect.NOT_VISIBLE),
    (START, "web", own(Kind.CONTAINER, owner=None), Effect.NOT_VISIBLE),
    (create({"PidMode": "container:web"}), "web", None, Effect.NOT_VISIBLE),
    (create({"VolumesFrom": ["web"]}), "web", BOBS, Effect.NOT_VISIBLE),
    (create({"NetworkMode": "net"}), "net", None, Effect.NOT_VISIBLE),
    (create({"Binds": ["data:/x"]}), "data", None, Effect.ALLOW),
    (create({"Binds": ["data:/x"]}), "data", own(Kind.VOLUME, owner=1001), Effect.NOT_VISIBLE),
    (create(), "busybox", None, Effect.NOT_VISIBLE),
    (request(Operation.IMAGE_DELETE, image="busybox"), "busybox", SHARED_IMAGE, Effect.DENY),
    (request(Operation.IMAGE_DELETE, image="mine"), "mine", own(Kind.IMAGE), Effect.ALLOW),
    (request(Operation.IMAGE_INSPECT, image="busybox"), "busybox", SHARED_IMAGE, Effect.ALLOW),
    (
        request(Operation.NETWORK_DELETE, network="bridge"),
        "bridge",
        own(Kind.NETWORK, owner=None, shared=True),
        Effect.DENY,
    ),
    (
        request(Operation.NETWORK_INSPECT, network="bridge"),
        "bridge",
        own(Kind.NETWORK, owner=None, shared=True),
        Effect.ALLOW,
    ),
    (TAG, "mine", None, Effect.ALLOW),
    (TAG, "mine", own(Kind.IMAGE), Effect.ALLOW),
    (TAG, "mine", own(Kind.IMAGE, owner=1001, shared=True), Effect.DENY),
    (TAG, "mine", own(Kind.IMAGE, owner=1001), Effect.DENY),
    (TAG, "busybox", own(Kind.IMAGE, owner=1001), Effect.NOT_VISIBLE),
    (TAG, "busybox", own(Kind.IMAGE), Effect.NOT_VISIBLE),
    (create(), "busybox", own(Kind.IMAGE, owner=1001), Effect.NOT_VISIBLE),
    (create(), "busybox", own(Kind.IMAGE), Effect.NOT_VISIBLE),
    (create(), "busybox", own(Kind.IMAGE, owner=None), Effect.NOT_VISIBLE),
    (request(Operation.IMAGE_DELETE, image="mine"), "mine", own(Kind.IMAGE, owner=1001), Effect.NOT_VISIBLE),
    (BUILD, "mine", None, Effect.ALLOW),
    (BUILD, "mine", own(Kind.IMAGE, owner=1001), Effect.DENY),
    (BUILD, "cache", own(Kind.IMAGE, owner=1001), Effect.ALLOW),
    (BUILD, "cache", None, Effect.ALLOW),
    (request(Operation.IMAGE_GET_ALL, query={"names": ("a",)}), "a", None, Effect.ALLOW),
    (request(Operation.IMAGE_GET_ALL, query={"names": ("a:1",)}), "a:1", None, Effect.NOT_VISIBLE),
    (PULL, "busybox:latest", own(Kind.IMAGE, owner=None, shared=True), Effect.ALLOW),
    (PULL, "busybox:latest", own(Kind.IMAGE, owner=1001), Effect.DENY),
    (request(Operation.EXEC_START, {}, exec="e1"), "e1", None, Effect.NOT_VISIBLE),
    (request(Operation.IMAGE_GET_ALL), "", None, Effect.DENY),
]


@pytest.mark.parametrize(("asked", "name", "fact", "effect"), CASES)
def test_ownership(asked: Request, name: str, fact: ObjectFact | None, effect: Effect) -> None:
    """Own objects pass, another's are not there, shared ones are read and not removed."""
    assert evaluate(POLICY, ALICE, asked, facts(asked, **{name: fact})).effect is effect


def test_a_fact_that_was_not_fetched_counts_as_absent() -> None:
    """A reference without a fact is never taken for one's own."""
    assert evaluate(POLICY, ALICE, START, Facts(engine=ENGINE)).effect is Effect.NOT_VISIBLE


def test_admins_act_on_all() -> None:
    """An admin starts another's container, and still gets no privileged one."""
    assert decide(START, ADMIN, web=BOBS).effect is Effect.ALLOW
    assert decide(create({"Privileged": True}), ADMIN).effect is Effect.DENY
