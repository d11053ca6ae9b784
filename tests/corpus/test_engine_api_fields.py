"""Each field of each body against a list that was not made from ds01's tables: known, and treated as the list says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from policy.dockerapi import schema
from policy.dockerapi.bind import bind
from policy.dockerapi.model import Incoming, Operation, Request, UnknownField
from policy.dockerapi.read import read
from policy.dockerapi.routes import ROUTE_OF, VERSION_MAX
from policy.dockerapi.write import write
from policy.evaluate import evaluate
from policy.model import Decision, Effect, Kind, ObjectFact, Uid
from policy.obligations import get
from policy.rules import RULES
from tests.fakes.policy_world import ALICE, OWN_NETWORK, POLICY, facts, own, rewrite, second_look

LINES = (Path(__file__).parent / "engine_api" / "fields.tsv").read_text().splitlines()
KNOWN: dict[str, ObjectFact | None] = {
    "mine": own(Kind.CONTAINER),
    "net": own(Kind.NETWORK),
    "run": own(Kind.EXEC),
    OWN_NETWORK: ObjectFact(kind=Kind.NETWORK, id=OWN_NETWORK, owner=Uid(1000), name="u1000.bridge"),
    "bob/img": ObjectFact(kind=Kind.IMAGE, id="sha256:2", owner=Uid(1001), shared=True),
}
QUERIES = {  # query keys that a call needs
    Operation.IMAGE_COMMIT: {"container": "mine"},
    Operation.IMAGE_CREATE: {"repo": "mine/x"},
    Operation.IMAGE_TAG: {"repo": "mine/x"},
}
NEEDED = {  # what a body must hold besides the field, or dockerd would refuse it
    Operation.CONTAINER_CREATE: {"Image": "busybox"},
    Operation.NETWORK_CONNECT: {"Container": "mine"},
    Operation.NETWORK_DISCONNECT: {"Container": "mine"},
}
PATHS = {"container": "mine", "network": "net", "exec": "run", "image": "busybox"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the list."""

    operation: Operation
    field: str
    outcome: str
    rule: str
    value: Any
    becomes: Any

    @property
    def path(self) -> tuple[str, ...]:
        """Where the value stands: the field, up to its first list or map."""
        return tuple(re.split(r"\[\]|\{\}", self.field)[0].split("."))


def rows() -> list[Row]:
    found = []
    for line in LINES:
        if not line.startswith("#"):
            call, field, _, outcome, rule, value, becomes = (*line.split("\t"), "", "")[:7]
            found.append(
                Row(
                    operation=Operation(call),
                    field=field,
                    outcome=outcome,
                    rule=rule,
                    value=json.loads(value),
                    becomes=json.loads(becomes) if becomes else None,
                )
            )
    return found


ROWS = rows()


def leaves(shape: schema.Shape, at: str = "") -> Iterator[str]:
    """Every field below `shape` that has no fields of its own, spelled as the list spells it."""
    match shape:
        case schema.Struct(fields=fields) if fields:
            for name, inner in fields.items():
                yield from leaves(inner, f"{at}.{name}" if at else name)
        case schema.Kept(inner):
            yield from leaves(inner, at)
        case schema.ListOf(schema.Struct() as inner) if inner.fields:
            yield from leaves(inner, f"{at}[]")
        case schema.MapOf(schema.ListOf(schema.Struct() as inner)):
            yield from leaves(inner, f"{at}{{}}[]")
        case schema.MapOf(schema.Struct() as inner) if inner.fields:
            yield from leaves(inner, f"{at}{{}}")
        case _:
            yield at


@pytest.mark.parametrize("operation", sorted({row.operation for row in ROWS}))
def test_the_reader_knows_the_fields_of_the_list_and_no_others(operation: Operation) -> None:
    """A field that the reader lacks would be refused; one that the list lacks is one nobody has thought about."""
    listed = {row.field for row in ROWS if row.operation is operation and row.rule != "unknown_field"}
    route = ROUTE_OF[operation]
    known = set(leaves(route.body)) if route.body else set()
    assert listed - known - {f"?{key.name}" for key in route.query} == set()
    assert known - listed == set()
    if any(field.startswith("?") for field in listed):
        assert {f"?{key.name}" for key in route.query} - listed == set()


def test_every_body_that_users_send_is_in_the_list() -> None:
    """Bodies of calls that only admins may make are not bounded."""
    users = {route.operation for route in ROUTE_OF.values() if route.body and route.outcome != "admin"}
    assert users == {row.operation for row in ROWS if not row.field.startswith("?")}


def put(path: tuple[str, ...], value: Any, into: dict[str, Any]) -> dict[str, Any]:
    key, *rest = path
    return {**into, key: put(tuple(rest), value, into.get(key, {})) if rest else value}


def sent(row: Row) -> Incoming:
    route = ROUTE_OF[row.operation]
    path = re.sub(r"\{(\w+)(\.\.\.)?\}", lambda found: PATHS[found[1]], route.template)
    query: dict[str, Any] = dict(QUERIES.get(row.operation, {}))
    body = dict(NEEDED.get(row.operation, {}))
    if row.field.startswith("?"):
        query[row.field[1:]] = row.value
    else:
        body = put(row.path, row.value, body)
    return Incoming(
        method=route.method,
        target=f"/v{VERSION_MAX[0]}.{VERSION_MAX[1]}{path}?{urlencode(query, doseq=True)}",
        headers=(("content-type", "application/json"),) if route.body else (),
        body=json.dumps(body).encode() if route.body else None,
    )


def standing(row: Row, request: Request) -> Any:
    """What stands at the row's place now."""
    if not row.field.startswith("?"):
        return get(request.body or {}, row.path)
    values = request.query.get(row.field[1:], ())
    return list(values) if isinstance(row.value, list) else next(iter(values), None)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.operation}.{row.field}-{row.outcome}")
def test_a_field_is_treated_as_the_list_says(row: Row) -> None:
    """Through reader, rules and rewriting; what is written passes the plugin's second look."""
    if row.rule == "unknown_field":
        with pytest.raises(UnknownField, match=re.escape(row.field.rpartition(".")[2])):
            read(sent(row), engine_max=VERSION_MAX)
        return
    request = read(sent(row), engine_max=VERSION_MAX)
    decision = evaluate(POLICY, ALICE, request, facts(request, **KNOWN))
    if row.outcome == "refused":
        assert_refused(row, decision)
        return
    assert decision.effect is Effect.ALLOW, (decision.reasons, decision.missing)
    written = rewrite(request, decision)
    out = write(bind(written, facts(written, **KNOWN), uid=ALICE.uid))
    told = Incoming(method=out.method, target=out.target, headers=out.headers, body=out.body)
    assert second_look(read(told, engine_max=VERSION_MAX)) == ()
    now = standing(row, written)
    match row.outcome:
        case "allowed":
            assert now == row.value or (not row.value and not now)
        case "dropped":
            assert not now
        case "bounded" | "rewritten":
            assert_became(row, now)
        case _:
            raise AssertionError(row.outcome)


def assert_refused(row: Row, decision: Decision) -> None:
    if decision.effect is Effect.NOT_VISIBLE:
        assert row.rule == "ownership"
        return
    fields = {reason.field for reason in decision.reasons if reason.rule == row.rule}
    root = ".".join(row.path).removeprefix("?")
    if row.rule == "ownership":
        assert fields, decision.reasons
        return
    assert any(field == root or field.startswith(root) or root.startswith(field) for field in fields), (
        decision.reasons
    )


def assert_became(row: Row, now: Any) -> None:
    if isinstance(row.becomes, dict) and row.rule == "labels":
        assert isinstance(now, dict)
        assert row.becomes.items() <= now.items()
    else:
        assert now == row.becomes


def test_rules_of_the_list_exist() -> None:
    """Every rule named is a rule, or the reader's own."""
    assert {row.rule for row in ROWS if row.rule} <= {rule.id for rule in RULES} | {"unknown_field"}
