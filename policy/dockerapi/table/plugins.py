"""Engine plugins: code that runs as root, so that only admins see or change them."""

from __future__ import annotations

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.query import QueryKey
from policy.dockerapi.schema import Shape
from policy.dockerapi.table.row import REGISTRY_AUTH, Route, Version, filters, flag, integer, text

_ONE = "/plugins/{plugin...}"


def _admin(
    method: str,
    template: str,
    operation: Operation,
    query: tuple[QueryKey, ...] = (),
    *,
    since: Version = (1, 25),
    payload: Payload = Payload.NONE,
    body: Shape | None = None,
    headers: frozenset[str] = frozenset(),
) -> Route:
    return Route(
        method=method,
        template=template,
        operation=operation,
        outcome=Outcome.ADMIN,
        since=since,
        query=query,
        payload=payload,
        body=body,
        headers=headers,
    )


ROUTES = (
    Route(
        method="GET",
        template="/plugins",
        operation=Operation.PLUGIN_LIST,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.PLUGIN_LIST,
        query=filters("capability enabled"),
    ),
    _admin(
        "GET", "/plugins/privileges", Operation.GET_PLUGIN_PRIVILEGES, text("remote"), headers=REGISTRY_AUTH
    ),
    _admin(
        "POST",
        "/plugins/pull",
        Operation.PLUGIN_PULL,
        text("remote", "name"),
        payload=Payload.JSON,
        body=bodies.PLUGIN_PRIVILEGES,
        headers=REGISTRY_AUTH,
    ),
    _admin("POST", "/plugins/create", Operation.PLUGIN_CREATE, text("name"), payload=Payload.STREAM),
    _admin("GET", _ONE + "/json", Operation.PLUGIN_INSPECT),
    _admin("POST", _ONE + "/enable", Operation.PLUGIN_ENABLE, integer("timeout")),
    # SECURITY: turns off an AuthZ plugin that the engine manages; ds01's own is none of those.
    _admin("POST", _ONE + "/disable", Operation.PLUGIN_DISABLE, flag("force")),
    _admin("POST", _ONE + "/set", Operation.PLUGIN_SET, payload=Payload.JSON, body=bodies.PLUGIN_SETTINGS),
    _admin(
        "POST",
        _ONE + "/upgrade",
        Operation.PLUGIN_UPGRADE,
        text("remote"),
        since=(1, 26),
        payload=Payload.JSON,
        body=bodies.PLUGIN_PRIVILEGES,
        headers=REGISTRY_AUTH,
    ),
    _admin("POST", _ONE + "/push", Operation.PLUGIN_PUSH, headers=REGISTRY_AUTH),
    _admin("DELETE", _ONE, Operation.PLUGIN_DELETE, flag("force")),
)
