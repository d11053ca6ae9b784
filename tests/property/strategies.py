"""Hypothesis strategies for Engine API requests: well-formed bodies by schema, and bytes of any kind."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from policy.dockerapi import schema
from policy.dockerapi.model import Incoming, Payload
from policy.dockerapi.query import QueryKey, QueryKind, write
from policy.dockerapi.routes import ROUTES, Route

NAMES = st.text("abcdefghijklmnopqrstuvwxyzABC0189_.-", min_size=1, max_size=12).filter(
    lambda name: name.strip(".") != ""
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
INTS = st.integers(min_value=-(2**63), max_value=2**63 - 1) | st.integers(min_value=-1, max_value=2)


def values(shape: schema.Shape) -> st.SearchStrategy[Any]:
    """JSON values a client may send for `shape`: right types, any zeros, nulls where dockerd takes them."""
    match shape:
        case schema.Kept(inner):
            return values(inner)
        case schema.Bool():
            return st.booleans()
        case schema.Int():
            return INTS
        case schema.Words():
            return TEXTS | st.lists(TEXTS, max_size=3)
        case schema.ListOf(item):
            return st.lists(values(item), max_size=2)
        case schema.MapOf(value):
            return st.dictionaries(TEXTS, st.none() | values(value), max_size=2)
        case schema.MapOfNullable():
            return st.dictionaries(TEXTS, st.none() | TEXTS, max_size=2)
        case schema.Struct():
            return structs(shape)
        case schema.ListBody(items):
            return values(items)
        case _:
            return TEXTS


@st.composite
def structs(draw: st.DrawFn, shape: schema.Struct) -> dict[str, Any]:
    """An object with a few of the shape's fields."""
    if not shape.fields:
        return {}
    names = draw(st.lists(st.sampled_from(sorted(shape.fields)), max_size=4, unique=True))
    return {name: draw(st.none() | values(shape.fields[name])) for name in names}


def query_values(key: QueryKey) -> st.SearchStrategy[tuple[str, ...]]:
    """What a client may give for one key, before percent-encoding."""
    match key.kind:
        case QueryKind.FLAG | QueryKind.FLAG_ON | QueryKind.FLAG_ON_EMPTY:
            return st.tuples(st.sampled_from(["", "0", "1", "true", "False", "no", "none", "yes"]))
        case QueryKind.INT:
            return st.tuples(INTS.map(str))
        case QueryKind.LIST:
            return st.lists(TEXTS, max_size=3).map(tuple)
        case QueryKind.JSON | QueryKind.JSON_LIST if key.shape is not None:
            return st.tuples(values(key.shape).map(json.dumps))
        case QueryKind.FILTERS:
            names = st.sampled_from(sorted(key.filters))
            chosen = st.dictionaries(TEXTS, st.booleans(), max_size=2) | st.lists(TEXTS, max_size=2)
            return st.tuples(st.dictionaries(names, chosen, max_size=2).map(json.dumps))
        case _:
            return st.tuples(TEXTS)


@st.composite
def incomings(draw: st.DrawFn, routes: tuple[Route, ...] = ROUTES) -> Incoming:
    """A well-formed request of any row of the table."""
    route = draw(st.sampled_from(routes))
    major, first = route.since
    minor = draw(st.integers(min_value=first, max_value=51))
    path = "/".join(draw(NAMES) if part.startswith("{") else part for part in route.template.split("/"))
    keys = draw(st.lists(st.sampled_from(route.query), unique=True)) if route.query else []
    query = write({key.name: draw(query_values(key)) for key in keys}, route.query)
    headers: tuple[tuple[str, str], ...] = ()
    body = None
    if route.payload is Payload.JSON and route.body is not None:
        body = json.dumps(draw(values(route.body))).encode()
        headers = (("content-type", "application/json"),)
    upgrade = draw(st.sampled_from(["", *sorted(route.upgrades)]))
    if upgrade:
        headers = (*headers, ("upgrade", upgrade))
    return Incoming(
        method=route.method, target=f"/v{major}.{minor}{path}?{query}", headers=headers, body=body
    )
