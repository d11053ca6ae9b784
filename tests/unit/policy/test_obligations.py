"""Carrying out obligations on a request."""

from __future__ import annotations

from typing import Any

import pytest

from policy.dockerapi.model import Operation
from policy.model import LeaseGpus, SealLabels, SetField, SetQuery
from policy.obligations import apply, join
from tests.fakes.policy_world import ENGINE, GPUS, create, request


def test_fields_are_set_and_empty_ones_removed() -> None:
    """None, empty lists and empty objects leave no key, and the request given stays as it was."""
    asked = create({"CapAdd": ["X"], "Memory": 1})
    found = apply(
        asked,
        [SetField(path=("HostConfig", "CapAdd"), value=[]), SetField(path=("HostConfig", "Memory"), value=2)],
        labels={},
        devices=(),
        engine=ENGINE,
    )
    assert found.body == {"Image": "busybox", "HostConfig": {"Memory": 2}}
    assert asked.body == {"Image": "busybox", "HostConfig": {"CapAdd": ["X"], "Memory": 1}}


@pytest.mark.parametrize("network", ["default", "bridge", ""])
@pytest.mark.parametrize("endpoints", [{}, {"default": {"Links": ["c:d"]}}, {"bridge": {"GwPriority": 1}}])
def test_links_of_the_default_network_become_its_endpoints(network: str, endpoints: dict[str, Any]) -> None:
    """dockerd would not look at them in HostConfig; its DNS knows short ids."""
    host: dict[str, Any] = {"Links": [f"{'a' * 64}:db"], "NetworkMode": network}
    asked = create(host, NetworkingConfig={"EndpointsConfig": endpoints})
    body: Any = join(asked, "n" * 64).body
    given: dict[str, Any] = next(iter(endpoints.values()), {})
    assert body["HostConfig"] == {"NetworkMode": "n" * 64}
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "n" * 64: {**given, "Links": [*given.get("Links", ()), f"{'a' * 12}:db"]}
    }


def test_links_on_another_network_stay() -> None:
    """The client says where they belong."""
    asked = create({"Links": ["a:db"], "NetworkMode": "b" * 64})
    assert join(asked, "n" * 64).body == asked.body


def test_labels_are_sealed_in_body_and_query() -> None:
    """Reserved labels go, whatever their case; the given ones come."""
    sealed = {"ds01.owner": "alice"}
    body = apply(
        create(Labels={"DS01.Owner": "bob", "a": "b"}),
        [SealLabels(path=("Labels",))],
        labels=sealed,
        devices=(),
        engine=ENGINE,
    )
    assert (body.body or {})["Labels"] == {"a": "b", "ds01.owner": "alice"}
    build = request(Operation.IMAGE_BUILD, query={"labels": ('{"ds01.uid":"0"}',), "squash": ("1",)})
    built = apply(
        build,
        [SealLabels(path=()), SetQuery(key="squash", values=())],
        labels=sealed,
        devices=(),
        engine=ENGINE,
    )
    assert built.query == {"labels": ('{"ds01.owner":"alice"}',)}


def test_devices_are_written_exactly_where_a_lease_is_obliged() -> None:
    """A lease without devices, or devices without a lease, is a bug and raises."""
    with pytest.raises(ValueError, match="lease"):
        apply(create(), [LeaseGpus(count=1, limit=1)], labels={}, devices=(), engine=ENGINE)
    with pytest.raises(ValueError, match="lease"):
        apply(create(), [], labels={}, devices=GPUS[:1], engine=ENGINE)
