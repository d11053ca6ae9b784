"""One row of the route table, and the words that rows are written in."""

from __future__ import annotations

from dataclasses import dataclass

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.query import QueryKey, QueryKind
from policy.dockerapi.schema import Shape

Version = tuple[int, int]
VERSION_MIN: Version = (1, 24)
VERSION_MAX: Version = (1, 51)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row.

    upgrades: the protocols a hijacked call may ask for. headers: forwarded.
    collective: one of several rows of an operation, which is named and not taken apart: method and path stay as
        they are. versioned: False where engines serve the path without a version alone.
    """

    method: str
    template: str
    operation: Operation
    outcome: Outcome
    since: Version = VERSION_MIN
    payload: Payload = Payload.NONE
    answer: Answer = Answer.RELAY
    query: tuple[QueryKey, ...] = ()
    body: Shape | None = None
    upgrades: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()
    collective: bool = False
    versioned: bool = True


def flag(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.FLAG) for name in names)


def on(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.FLAG_ON) for name in names)


def integer(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.INT) for name in names)


def text(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.TEXT) for name in names)


def texts(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.LIST) for name in names)


def ignored(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.IGNORED) for name in names)


def json_of(name: str, shape: Shape) -> tuple[QueryKey, ...]:
    return (QueryKey(name=name, kind=QueryKind.JSON, shape=shape),)


def filters(names: str) -> tuple[QueryKey, ...]:
    return (QueryKey(name="filters", kind=QueryKind.FILTERS, filters=frozenset(names.split())),)


PLATFORM = json_of("platform", bodies.PLATFORM)
PLATFORM_TEXT = text("platform")  # os/arch/variant, where the API takes it as text
PLATFORM_LIST = (QueryKey(name="platform", kind=QueryKind.JSON_LIST, shape=bodies.PLATFORM),)
PLATFORMS = (QueryKey(name="platforms", kind=QueryKind.JSON_LIST, shape=bodies.PLATFORM),)

TCP = frozenset({"tcp"})
H2C = frozenset({"h2c"})
WEBSOCKET = frozenset({"websocket"})
REGISTRY_AUTH = frozenset({"x-registry-auth"})
REGISTRY_CONFIG = frozenset({"x-registry-config"})
ACCEPT = frozenset({"accept"})


def refused(operation: Operation, *lines: str) -> tuple[Route, ...]:
    """Rows that are named only to be refused by name; each line is a method, a template, and since when if not always."""
    return tuple(_refused(operation, *line.split()) for line in lines)


def _refused(operation: Operation, method: str, template: str, since: str = "1.24") -> Route:
    major, _, minor = since.partition(".")
    return Route(
        method=method,
        template=template,
        operation=operation,
        outcome=Outcome.NOBODY,
        since=(int(major), int(minor)),
        collective=True,
    )
