"""The page docs/engine-api.md, written from the route table and the rules: what becomes of each call, for whom.

`script/pages` prints it; a test compares the file with it.
"""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Permit
from policy.dockerapi.model import Operation, Outcome, Request
from policy.dockerapi.query import QueryKind
from policy.dockerapi.routes import ROUTES, VERSION_MAX, VERSION_MIN
from policy.dockerapi.table.row import Route, Version
from policy.grants import Grants, Role
from policy.model import Actor, Gid, Uid
from policy.rules import RULES, operation

_HEAD = """# Engine API calls

Written by `script/pages` from the route table (`policy/dockerapi/table/`) and the rules; do not edit it by hand.

ds01 speaks API {first} to {last}. A path without a version means the highest version that the engine and ds01 share.
What is not in this table is answered with 404 `page not found`, as dockerd answers what it does not know. Refused with
400 before any rule is asked: other versions, a `%` in the path (but for `%3A` and `%40`), empty and dot segments, form
bodies, a body on calls that take none, JSON that two readers could read differently.

- **user** and **admin** say what becomes of a call by the role of who asks. Role `none` is refused everything.
- *own*: what belongs to somebody else is answered as what does not exist, byte for byte; a container that is shared is
  judged by the rule `share`. Admins see and act on all.
- *rewritten*: the body or query is bounded and completed by the rules named beside it.
- **query** are the keys that are read; any other key is dropped if empty and refused if not.
- **rules** judge a call that a role may make; each has a page in [rules/](rules/).
"""
_MAY = {
    Outcome.SYSTEM: "allowed",
    Outcome.OWN: "own",
    Outcome.CREATE: "rewritten",
    Outcome.LIST: "own and shared only",
    Outcome.STREAM: "of own objects only",
    Outcome.IMAGE: "readable images, own tags",
    Outcome.ADMIN: "allowed",
    Outcome.NOBODY: "refused",
}
_ADMIN_MAY = {Outcome.OWN: "all", Outcome.LIST: "all", Outcome.STREAM: "all", Outcome.IMAGE: "all"}
# Answers that clients cope with, in dockerd's own words, where a plain refusal would stop them.
USERS_ALIKE = {
    Operation.PLUGIN_LIST: "an empty list",
    Operation.BUILD_PRUNE: "own cache mounts",
    Operation.PLUGIN_INSPECT: "404, as absent",
    Operation.SWARM_READ: "503, as without swarm",
}


def page() -> str:
    """The whole page, in Markdown."""
    head = _HEAD.format(first=_dotted(VERSION_MIN), last=_dotted(VERSION_MAX))
    return head + "".join(_section(name, rows) for name, rows in _sections())


def _sections() -> Iterable[tuple[str, list[Route]]]:
    """Rows by the first segment of their path, in the table's order."""
    found: dict[str, list[Route]] = {}
    for route in ROUTES:
        found.setdefault(route.template.split("/")[1], []).append(route)
    return found.items()


def _section(name: str, rows: list[Route]) -> str:
    lines = [
        f"\n## /{name}\n",
        "| call | since | user | admin | query | rules |",
        "|---|---|---|---|---|---|",
    ]
    return "\n".join([*lines, *(_line(route) for route in rows)]) + "\n"


def _line(route: Route) -> str:
    cells = (
        f"`{route.method} {route.template}`",
        _dotted(route.since),
        outcome(route, Role.USER),
        outcome(route, Role.ADMIN),
        ", ".join(key.name for key in route.query if key.kind is not QueryKind.IGNORED),
        ", ".join(_judges(route)),
    )
    return f"| {' | '.join(cells)} |"


def outcome(route: Route, role: Role) -> str:
    """What becomes of a call that `role` makes, in a few words."""
    if role is Role.USER and route.operation in USERS_ALIKE:
        return USERS_ALIKE[route.operation]
    if not _permitted(route.operation, role):
        return USERS_ALIKE.get(route.operation, "refused")
    words = _ADMIN_MAY if role is Role.ADMIN else {}
    return words.get(route.outcome, _MAY[route.outcome])


def _permitted(asked: Operation, role: Role) -> bool:
    actor = Actor(uid=Uid(1000), gid=Gid(1000), name="someone")
    request = Request(operation=asked, version=VERSION_MAX)
    ask = Ask(grants=Grants(role=role), actor=actor, request=request, facts=None)
    return any(isinstance(finding, Permit) for finding in operation.decide(ask))


def _judges(route: Route) -> list[str]:
    if not _permitted(route.operation, Role.ADMIN):
        return []
    return [rule.id for rule in RULES if route.operation in rule.operations and rule.id != operation.RULE_ID]


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"
