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
    *(
        (request(Operation.IMAGE_TAG, query={"repo": (name,)}, image="busybox"), "repo")
        for name in (
            "ds01.invalid/u1000/app",
            "ds01.invalid/u1001/app:1",
            "Ds01.Invalid/u1001/app",
            "ds01.invalid:80/u1001/app",
            "docker.io/ds01.invalid/u1001/app",
            "docker.io/ghcr.io/a",
        )
    ),
    (request(Operation.IMAGE_TAG, query={"repo": ("bob/app:1",), "tag": ("2",)}, image="busybox"), "repo"),
    (
        request(Operation.IMAGE_TAG, query={"repo": ("h:1/a@sha256:1",), "tag": ("2",)}, image="busybox"),
        "repo",
    ),
    (
        request(Operation.IMAGE_CREATE, query={"fromImage": ("docker.io/ds01.invalid/u1001/app",)}),
        "fromImage",
    ),
    (request(Operation.IMAGE_BUILD, query={"t": ("x", "ds01.invalid/u1001/app")}), "t"),
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
    request(Operation.IMAGE_BUILD, query={"t": ("app", "docker.io/library/app:1", "alice/app")}),
    request(Operation.IMAGE_CREATE, query={"fromImage": ("docker.io/library/busybox",), "tag": ("1",)}),
    request(Operation.IMAGE_CREATE, query={"fromSrc": ("-",), "repo": ("h:5000/app",), "tag": ("1",)}),
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


@pytest.mark.parametrize(
    "name",
    ["app", "app:1", "docker.io/library/app", "ds01.invalid/u1001/app", "ds01.invalid/u1/app", "ds01.invalid/app",
     "docker.io/ds01.invalid/u1000/app", "DS01.invalid/u1000/app"],
)  # fmt: skip
@pytest.mark.parametrize(
    ("operation", "key"),
    [(Operation.IMAGE_TAG, "repo"), (Operation.IMAGE_BUILD, "t"), (Operation.IMAGE_CREATE, "repo"), (Operation.IMAGE_COMMIT, "repo")],
)  # fmt: skip
def test_the_second_look_lets_nobody_write_outside_the_own_space(
    operation: Operation, key: str, name: str
) -> None:
    """A name of one part the proxy has not written; an admin may write any."""
    asked = request(
        operation, {} if operation is Operation.IMAGE_COMMIT else None, query={key: (name,)}, image="x"
    )
    assert ("names", key) in {(reason.rule, reason.field) for reason in second_look(asked)}
    assert "names" not in {reason.rule for reason in second_look(asked, ADMIN)}
    own_name = request(
        operation,
        {} if operation is Operation.IMAGE_COMMIT else None,
        query={key: ("ds01.invalid/u1000/app",)},
        image="x",
    )
    assert "names" not in {reason.rule for reason in second_look(own_name)}
