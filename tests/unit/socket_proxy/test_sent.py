"""What of a list is asked of dockerd."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Uid
from socket_proxy.sent import narrowed, uncut


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ({}, {}),
        ({"limit": ("3",)}, {"all": ("1",)}),
        ({"limit": ("0",)}, {}),
        ({"size": ("1",)}, {"size": ("1",)}),
    ],
)
def test_a_list_is_one_owners_and_never_cut(
    query: dict[str, tuple[str, ...]], sent: dict[str, tuple[str, ...]]
) -> None:
    """`limit` is kept back, since it counts what is left after filtering, and the client's own filters stay."""
    filters = (json.dumps({"label": {"x": True}, "status": {"exited": True}}),)
    asked = Request(operation=Operation.CONTAINER_LIST, version=(1, 41), query={**query, "filters": filters})
    shaped = dict(narrowed(uncut(asked), Uid(1001)).query)
    assert json.loads(shaped.pop("filters")[0]) == {
        "label": {"x": True, "ds01.uid=1001": True},
        "status": {"exited": True},
    }
    assert shaped == sent
