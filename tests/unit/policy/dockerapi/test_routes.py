"""The table holds every call, and a path leads to one row."""

from __future__ import annotations

import re

import pytest

from policy.dockerapi.model import Operation, Payload
from policy.dockerapi.routes import ROUTE_OF, ROUTES, Route, match


@pytest.mark.parametrize(
    ("method", "path", "operation", "params"),
    [
        ("GET", "/containers/json", Operation.CONTAINER_LIST, {}),
        ("GET", "/containers/json/json", Operation.CONTAINER_INSPECT, {"container": "json"}),
        ("POST", "/containers/create", Operation.CONTAINER_CREATE, {}),
        ("POST", "/containers/create/start", Operation.CONTAINER_START, {"container": "create"}),
        ("GET", "/containers/a/attach/ws", Operation.CONTAINER_ATTACH_WEBSOCKET, {"container": "a"}),
        ("GET", "/images/json", Operation.IMAGE_LIST, {}),
        ("GET", "/images/get", Operation.IMAGE_GET_ALL, {}),
        ("GET", "/images/r:5000/a/b:1/json", Operation.IMAGE_INSPECT, {"image": "r:5000/a/b:1"}),
        ("GET", "/images/a/json/json", Operation.IMAGE_INSPECT, {"image": "a/json"}),
        ("DELETE", "/images/a/json", Operation.IMAGE_DELETE, {"image": "a/json"}),
        ("GET", "/networks", Operation.NETWORK_LIST, {}),
        ("GET", "/networks/", Operation.NETWORK_LIST, {}),
        ("GET", "/networks/a/b", Operation.NETWORK_INSPECT, {"network": "a/b"}),
        ("POST", "/networks/a/b/connect", Operation.NETWORK_CONNECT, {"network": "a/b"}),
        ("PUT", "/volumes/v", Operation.SWARM_WRITE, {"volume": "v"}),
        ("POST", "/plugins/a/b:1/disable", Operation.PLUGIN_DISABLE, {"plugin": "a/b:1"}),
        ("GET", "/debug/pprof/heap", Operation.DEBUG, {"name": "heap"}),
        ("POST", "/containers/a/checkpoints", Operation.CHECKPOINT, {"container": "a"}),
    ],
)
def test_a_path_leads_to_its_row(
    method: str, path: str, operation: Operation, params: dict[str, str]
) -> None:
    """Literal rows come before templates, and names of images and networks may hold a slash."""
    found = match(method, path)
    assert found is not None
    assert (found.route.operation, found.params) == (operation, params)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/containers/json"),
        ("GET", "/containers/a"),
        ("PATCH", "/info"),
        ("GET", ""),
        ("GET", "/"),
        ("POST", "/exec//start"),
    ],
)
def test_no_row_no_match(method: str, path: str) -> None:
    """A wrong method or an incomplete path has no row."""
    assert match(method, path) is None


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_every_row_is_reached(route: Route) -> None:
    """No row is hidden by another one."""
    found = match(route.method, re.sub(r"\{\w+(\.\.\.)?\}", "x1", route.template))
    assert found is not None
    assert found.route is route


def test_every_operation_has_a_row() -> None:
    """What can be named can be routed."""
    assert set(ROUTE_OF) == set(Operation)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_a_row_is_sound(route: Route) -> None:
    """JSON calls and only they have a body schema; only collective operations share a name."""
    assert (route.payload is Payload.JSON) == (route.body is not None)
    names = [key.name for key in route.query]
    assert len(names) == len(set(names))
    rows = [row for row in ROUTES if row.operation is route.operation]
    assert len(rows) == 1 or route.collective or route.operation is Operation.NETWORK_LIST
