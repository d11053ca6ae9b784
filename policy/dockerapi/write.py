"""From a canonical request to fresh bytes for dockerd.

INVARIANT: `read(write(r)) == r`, and nothing in the bytes is copied from the client's head or JSON.
"""

from __future__ import annotations

import re

from policy.dockerapi import headers, query, strict_json
from policy.dockerapi.model import Outgoing, Payload, Request
from policy.dockerapi.routes import ROUTE_OF, Route
from policy.dockerapi.schema import LIST_BODY, ListBody
from policy.model import Json

_PLACE = re.compile(r"\{(\w+)(?:\.\.\.)?\}")


def write(request: Request) -> Outgoing:
    """Method, target with explicit version, headers without framing, and the JSON body if the call has one.

    Raises: MalformedRequest: the body has grown beyond what dockerd shows its plugin.
    """
    route = ROUTE_OF[request.operation]
    path = request.params["path"] if route.collective else _fill(route.template, request)
    target = f"/v{request.version[0]}.{request.version[1]}{path}" if route.versioned else path
    query_text = query.write(request.query, route.query)
    return Outgoing(
        method=request.params["method"] if route.collective else route.method,
        target=f"{target}?{query_text}" if query_text else target,
        headers=headers.write(route, request.headers, request.upgrade),
        body=_body(route, request),
    )


def _fill(template: str, request: Request) -> str:
    return _PLACE.sub(lambda place: request.params[place[1]], template)


def _body(route: Route, request: Request) -> bytes | None:
    if route.payload is not Payload.JSON:
        return None
    body: Json = dict(request.body or {})
    if isinstance(route.body, ListBody) and isinstance(body, dict):
        body = body.get(LIST_BODY, [])
    return strict_json.write_bytes(body, what="the body")
