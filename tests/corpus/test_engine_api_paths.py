"""The route table against a list of calls that was not made from it: nothing is missing, nothing is invented."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from policy.dockerapi.model import Incoming, UnknownRoute
from policy.dockerapi.read import read
from policy.dockerapi.routes import ROUTES, VERSION_MAX, VERSION_MIN, Version, match
from policy.dockerapi.table.row import Route

HERE = Path(__file__).parent / "engine_api"
VERSIONS = [(1, minor) for minor in range(24, 52)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One line of the list. `since` None: served whatever version the path names."""

    method: str
    path: str
    since: Version | None
    until: Version | None
    query: tuple[tuple[str, Version | None], ...]

    def example(self) -> str:
        return re.sub(r"\{\w+\}", "x1", self.path)


def version(text: str) -> Version | None:
    major, dot, minor = text.partition(".")
    return (int(major), int(minor)) if dot else None


def calls() -> list[Call]:
    found = []
    for line in (HERE / "paths.tsv").read_text().splitlines():
        if line.startswith("#"):
            continue
        method, path, since, until, query = [*line.split("\t"), ""][:5]
        keys = tuple((key.partition("@")[0], version(key.partition("@")[2])) for key in query.split())
        found.append(Call(method=method, path=path, since=version(since), until=version(until), query=keys))
    return found


CALLS = calls()


def row(call: Call) -> Route:
    found = match(call.method, call.example())
    assert found is not None, f"{call.method} {call.path} has no row"
    return found.route


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_every_call_of_the_reference_has_a_row(call: Call) -> None:
    """With the version that brought it, and every query key it ever had."""
    route = row(call)
    assert route.since == (call.since or VERSION_MIN)
    if not route.collective:
        assert {key for key, _ in call.query} <= {key.name for key in route.query}


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call.method} {call.path}")
def test_a_call_is_known_from_its_version_on(call: Call) -> None:
    """In an older version it is not found, in every later one it is read as itself."""
    for asked in VERSIONS:
        target = f"/v{asked[0]}.{asked[1]}{call.example()}"
        incoming = Incoming(method=call.method, target=target, headers=(), body=None)
        if call.since is not None and asked < call.since:
            with pytest.raises(UnknownRoute):
                read(incoming, engine_max=VERSION_MAX)
        else:
            assert read(incoming, engine_max=VERSION_MAX).operation is row(call).operation


def test_no_row_is_invented() -> None:
    """Each row of the table stands for a call of the list; debug pages are served for any method by Debian's 20.10."""
    listed = {id(row(call)) for call in CALLS}
    left = [route for route in ROUTES if id(route) not in listed]
    assert all(route.template.startswith("/debug/") and route.method != "GET" for route in left), left
