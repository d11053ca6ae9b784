"""The one table of Engine API calls: what each method and path means, and what it may carry.

Owns every call ds01 has heard of, the refused ones included (rows stand in `policy.dockerapi.table`), and matching a
path to a row. A method and path without a row is refused. SOURCE: engine routers 20.10-28.5; API reference 1.24-1.51.

In a template `{x}` is one segment and `{x...}` any number of them: names of images and networks hold `/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from policy.dockerapi.model import Operation
from policy.dockerapi.table import (
    builds,
    containers,
    debug,
    images,
    networks,
    plugins,
    swarm,
    system,
    volumes,
)
from policy.dockerapi.table.row import VERSION_MAX, VERSION_MIN, Route, Version

__all__ = ["ROUTES", "ROUTE_OF", "VERSION_MAX", "VERSION_MIN", "Match", "Route", "Version", "match"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The row a path belongs to, and what stands at the places of its template."""

    route: Route
    params: Mapping[str, str] = field(default_factory=dict)


ROUTES: tuple[Route, ...] = (
    *system.ROUTES,
    *containers.ROUTES,
    *images.ROUTES,
    *builds.ROUTES,
    *networks.ROUTES,
    *volumes.ROUTES,
    *plugins.ROUTES,
    *swarm.ROUTES,
    *debug.ROUTES,
)

# --- matching --------------------------------------------------------------------------------------------

_Key = tuple[str, str, str]  # method, first segment, last segment of the template if it is literal


def _index() -> tuple[dict[tuple[str, str], Match], dict[_Key, list[tuple[re.Pattern[str], Route]]]]:
    literal: dict[tuple[str, str], Match] = {}
    patterns: dict[_Key, list[tuple[re.Pattern[str], Route]]] = {}
    for route in ROUTES:
        segments = route.template.split("/")
        if "{" not in route.template:
            literal[route.method, route.template] = Match(route=route)
            continue
        last = "" if segments[-1].startswith("{") else segments[-1]
        patterns.setdefault((route.method, segments[1], last), []).append((_pattern(route.template), route))
    return literal, patterns


def _pattern(template: str) -> re.Pattern[str]:
    many = re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", template)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", many))


_LITERAL, _PATTERNS = _index()

ROUTE_OF: Mapping[Operation, Route] = MappingProxyType(
    {route.operation: route for route in reversed(ROUTES)}  # the first row of an operation is the one written
)


def match(method: str, path: str) -> Match | None:
    """The row for a path without its version prefix, or None."""
    found = _LITERAL.get((method, path))
    if found is not None:
        return found
    first = path[1:].partition("/")[0]
    for last in (path.rpartition("/")[2], ""):
        for pattern, route in _PATTERNS.get((method, first, last), ()):
            if hit := pattern.fullmatch(path):
                return Match(route=route, params=hit.groupdict())
    return None
