"""The page docs/engine-api.md is what the code says."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.dockerapi.model import Operation, Outcome
from policy.dockerapi.routes import ROUTES
from policy.dockerapi.table.row import Route
from policy.grants import Role
from policy.page import USERS_ALIKE, outcome, page

ROOT = Path(__file__).parents[3]
ROW = {route.operation: route for route in ROUTES}


def test_the_page_is_not_stale() -> None:
    """After a change of the table or the rules, `script/pages` writes it anew."""
    assert (ROOT / "docs/engine-api.md").read_text() == page(), "run script/pages"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_every_call_has_a_line(route: Route) -> None:
    """Each row of the table stands in the page once."""
    assert page().count(f"| `{route.method} {route.template}` |") == 1


@pytest.mark.parametrize(
    ("operation", "user", "admin"),
    [
        (Operation.SYSTEM_PING, "allowed", "allowed"),
        (Operation.CONTAINER_START, "own", "all"),
        (Operation.CONTAINER_CREATE, "rewritten", "rewritten"),
        (Operation.PLUGIN_PULL, "refused", "allowed"),
        (Operation.DEBUG, "refused", "allowed"),
        (Operation.PLUGIN_LIST, "an empty list", "all"),
        (Operation.SWARM_READ, "503, as without swarm", "503, as without swarm"),
        (Operation.SWARM_WRITE, "refused", "refused"),
        (Operation.CHECKPOINT, "refused", "refused"),
    ],
)
def test_outcomes_by_role(operation: Operation, user: str, admin: str) -> None:
    """What the page says is what the rules say of the role."""
    assert outcome(ROW[operation], Role.USER) == user
    assert outcome(ROW[operation], Role.ADMIN) == admin
    assert outcome(ROW[operation], Role.NONE) in {"refused", USERS_ALIKE.get(operation)}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_the_table_and_the_rules_say_the_same(route: Route) -> None:
    """A row that is for admins or for nobody is permitted to no one else."""
    permitted = {role: outcome(route, role) not in {"refused", *USERS_ALIKE.values()} for role in Role}
    if route.outcome is Outcome.NOBODY:
        assert not any(permitted.values())
    if route.outcome is Outcome.ADMIN:
        assert permitted == {Role.NONE: False, Role.USER: False, Role.ADMIN: True}
