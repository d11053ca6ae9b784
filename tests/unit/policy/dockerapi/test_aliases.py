"""A container answers to its plain name wherever dockerd answers for names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.dockerapi.aliases import with_aliases
from policy.dockerapi.model import Operation, Request
from policy.model import Facts, Kind, ObjectFact, Reference, Uid
from tests.fakes.policy_world import ENGINE

NET, OTHER, BOX = "1" * 64, "2" * 64, "a" * 64
NO_FACTS = Facts(engine=ENGINE)


def create(
    mode: str = "", endpoints: dict[str, Any] | None = None, *, version: tuple[int, int] = (1, 41)
) -> Request:
    body: dict[str, Any] = {"HostConfig": {"NetworkMode": mode} if mode else {}}
    if endpoints is not None:
        body["NetworkingConfig"] = {"EndpointsConfig": endpoints}
    return Request(
        operation=Operation.CONTAINER_CREATE, version=version, body=body, query={"name": ("u1001.web",)}
    )


def endpoints_of(request: Request, name: str = "web") -> Any:
    asked = replace(request, query={"name": (name,)} if name else {})
    body: Any = with_aliases(request, asked, NO_FACTS).body
    return body.get("NetworkingConfig", {}).get("EndpointsConfig")


@pytest.mark.parametrize(
    ("mode", "given", "written"),
    [
        (NET, None, {NET: {"Aliases": ["web"]}}),
        (NET, {}, {NET: {"Aliases": ["web"]}}),
        (NET, {NET: {"Aliases": ["db"]}}, {NET: {"Aliases": ["db", "web"]}}),
        (NET, {NET: {"Aliases": ["web"]}}, {NET: {"Aliases": ["web"]}}),
        ("", {NET: {"GwPriority": 1}}, {NET: {"GwPriority": 1, "Aliases": ["web"]}}),
        (NET, {OTHER: {}}, {OTHER: {"Aliases": ["web"]}}),
        ("", None, None),
        ("bridge", None, None),
        ("host", {"host": {}}, {"host": {}}),
        ("default", {"bridge": {}}, {"bridge": {}}),
        (f"container:{BOX}", None, None),
    ],
    ids=str,
)
def test_a_new_container_has_its_plain_name_as_alias(mode: str, given: Any, written: Any) -> None:
    """On each user-defined network; dockerd refuses aliases on the others."""
    assert endpoints_of(create(mode, given)) == written
    assert endpoints_of(create(mode, given), "/web") == written


@pytest.mark.parametrize("given", [None, {NET: {}}], ids=["by mode", "by endpoint"])
def test_a_network_of_all_users_gets_no_alias(given: Any) -> None:
    """There a chosen name could take another's visitors."""
    lan = ObjectFact(kind=Kind.NETWORK, id=NET, owner=None, shared=True, name="u0.lan")
    facts = Facts(engine=ENGINE, objects={Reference(kind=Kind.NETWORK, text="lan"): lan})
    request = create(NET, given)
    asked = replace(request, query={"name": ("web",)})
    assert with_aliases(request, asked, facts).body == request.body
    joined = Request(
        operation=Operation.NETWORK_CONNECT, version=(1, 41), params={"network": NET}, body={"Container": BOX}
    )
    assert with_aliases(joined, joined, facts) is joined


def test_from_api_1_44_the_mode_is_one_of_many_endpoints() -> None:
    """Before, a create takes one endpoint."""
    assert endpoints_of(create(NET, {OTHER: {}}, version=(1, 44))) == {
        OTHER: {"Aliases": ["web"]},
        NET: {"Aliases": ["web"]},
    }


def test_a_container_without_a_name_gets_no_alias() -> None:
    """dockerd makes its name up, and answers for it."""
    assert endpoints_of(create(NET), "") is None


@pytest.mark.parametrize(
    ("network", "real_name", "owner", "written"),
    [
        (NET, "u1001.web", Uid(1001), {"Aliases": ["db", "web"]}),
        (NET, "nice_name", Uid(1001), {"Aliases": ["db"]}),
        (NET, "u1001.web", None, {"Aliases": ["db"]}),
        ("bridge", "u1001.web", Uid(1001), {"Aliases": ["db"]}),
    ],
)
def test_a_container_that_joins_has_its_plain_name_as_alias(
    network: str, real_name: str, owner: Uid | None, written: Any
) -> None:
    """If dockerd knows it by another."""
    asked = Request(
        operation=Operation.NETWORK_CONNECT,
        version=(1, 41),
        params={"network": "net"},
        body={"Container": "/web", "EndpointConfig": {"Aliases": ["db"]}},
    )
    bound = replace(asked, params={"network": network}, body={**(asked.body or {}), "Container": BOX})
    fact = ObjectFact(kind=Kind.CONTAINER, id=BOX, owner=owner, name=real_name)
    facts = Facts(engine=ENGINE, objects={Reference(kind=Kind.CONTAINER, text="web"): fact})
    body: Any = with_aliases(bound, asked, facts).body
    assert body == {"Container": BOX, "EndpointConfig": written}


def test_other_requests_stay_the_very_same() -> None:
    """Nothing else names a container on a network."""
    request = Request(operation=Operation.CONTAINER_LIST, version=(1, 41))
    assert with_aliases(request, request, NO_FACTS) is request
