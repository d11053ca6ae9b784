"""The rule `names`: what it refuses and what it lets through."""

from __future__ import annotations

from typing import Any

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Effect, Kind
from policy.rules.names import looks_like_an_id
from tests.fakes.policy_world import ADMIN, create, decide, in_namespace, own, request, rewrite, second_look

NAMED, RENAMED = Operation.CONTAINER_CREATE, Operation.CONTAINER_RENAME


def container(name: str, host: dict[str, Any] | None = None) -> Request:
    return request(NAMED, {"Image": "busybox", "HostConfig": host or {}}, query={"name": (name,)})


def renamed(name: str) -> Request:
    return request(RENAMED, query={"name": (name,)}, container="web")


def network(name: str) -> Request:
    return request(Operation.NETWORK_CREATE, {"Name": name, "CheckDuplicate": True})


def volume(name: str) -> Request:
    return request(Operation.VOLUME_CREATE, {"Name": name})


REFUSED: list[tuple[Request, str]] = [
    (container("0123456789ab"), "name"),
    (container("/" + "a" * 64), "name"),
    (container("-web"), "name"),
    (container("x"), "name"),
    (renamed("0123456789ab"), "name"),
    (renamed(".."), "name"),
    (network("0123456789ab"), "Name"),
    (network(" "), "Name"),
    (volume(".data"), "Name"),
    (volume("x"), "Name"),
    (create({"Binds": ["x:/x"]}), "HostConfig"),
    (request(Operation.CONTAINER_DELETE, query={"link": ("1",)}, container="web"), "link"),
    (request(Operation.IMAGE_COMMIT, {}, query={"container": ("web",), "repo": ("0123456789ab",)}), "repo"),
    (request(Operation.IMAGE_BUILD, query={"t": ("x", "docker.io/library/0123456789ab:v1")}), "t"),
]
ACCEPTED: list[Request] = [
    container("0123456789abc"),
    container("/web"),
    container("u1001.web"),
    container("web", {"Binds": ["data:/data"]}),
    renamed("api"),
    network("my net"),
    volume("0123456789ab"),
    create(),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked, web=own(Kind.CONTAINER))
    assert decision.effect is Effect.DENY
    assert ("names", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize(
    ("image", "like"),
    [
        ("0123456789ab", True),
        ("0123456789ab:latest", True),
        ("library/0123456789ab@sha256:x", True),
        ("index.docker.io/0123456789ab", True),
        ("a" * 64, True),
        ("cafe", False),
        ("alice/0123456789ab", False),
        ("registry:5000/0123456789ab", False),
        ("0123456789AB", False),
    ],
)
def test_an_image_looks_like_an_id(image: str, *, like: bool) -> None:
    """Every spelling of a name that dockerd would also take for a short id; a name with a place in it is none."""
    assert looks_like_an_id(image) is like


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked, web=own(Kind.CONTAINER))
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(in_namespace(rewrite(asked, decision))) == ()


def reasons(asked: Request, *, admin: bool = False) -> set[str]:
    """What this rule has against a request in the plugin's second look."""
    looked = second_look(asked, ADMIN) if admin else second_look(asked)
    return {reason.asked for reason in looked if reason.rule == "names"}


@pytest.mark.parametrize("make", [container, renamed, network])
@pytest.mark.parametrize(("name", "fits"), [("u1000.web", True), ("u1001.web", False), ("web", False)])
def test_the_plugin_wants_the_actors_namespace(make: Any, name: str, *, fits: bool) -> None:
    """What the proxy writes is the actor's; another's or nobody's passes for an admin alone."""
    assert reasons(make(name)) == (set() if fits else {name})
    assert not reasons(make(name), admin=True)


@pytest.mark.parametrize(
    "make",
    [
        volume,
        lambda name: create({"Binds": [f"{name}:/x", "/home/alice:/y"]}),
        lambda name: create({"Mounts": [{"Type": "volume", "Source": name, "Target": "/x"}]}),
    ],
)
@pytest.mark.parametrize(
    ("name", "fits"),
    [("u1000.data", True), ("u1001.data", False), ("old", True), ("f" * 64, True), ("u1000x.data", True)],
)
def test_the_plugin_lets_nobody_make_a_volume_of_anothers(make: Any, name: str, *, fits: bool) -> None:
    """A volume that is in no namespace may be one from before, or one without a name of its own."""
    assert reasons(make(name)) == (set() if fits else {name})
