"""Exec in a container from before ds01: only as long as it runs as it ran when it was adopted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from policy.dockerapi.model import Operation
from policy.model import Adopted, ContainerId, Facts, Kind, ObjectFact, Reference
from socket_proxy.adopted_execs import AdoptedExecs
from socket_proxy.adoptions import Adoption
from socket_proxy.refusals import EngineError, Refusal
from tests.fakes.proxy_world import ALICE, ENGINE, proxy_world
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

    from socket_proxy.transaction import Transaction
    from tests.fakes.proxy_world import ProxyWorld

OLD = ContainerId("a" * 64)
OPEN = Adopted()
STARTED = "2026-11-27T10:00:00.5Z"


class Case:
    """A handler that notes what reaches it."""

    def __init__(self, world: ProxyWorld) -> None:
        self.reached: list[Operation] = []
        inner = dict.fromkeys((Operation.CONTAINER_EXEC, Operation.EXEC_START), self.handle)
        guarded = AdoptedExecs(engine=world.engine, adoptions=world.adoptions, inner=inner)
        self.by_operation = guarded.by_operation

    async def handle(self, made: Transaction) -> Refusal | None:
        self.reached.append(made.request.operation)
        return None

    async def ask(
        self, operation: Operation, adopted: Adopted | None = OPEN, **how: object
    ) -> Refusal | None:
        made, _ = transaction(operation, actor=ALICE)
        kind = Kind.EXEC if operation is Operation.EXEC_START else Kind.CONTAINER
        fact = ObjectFact(
            kind=kind,
            id="e" * 64 if kind is Kind.EXEC else OLD,
            owner=ALICE.uid,
            container=OLD if kind is Kind.EXEC else None,
            adopted=adopted,
        )
        facts = Facts(engine=ENGINE, objects={Reference(kind=kind, text="x"): fact})
        return await self.by_operation[operation](replace(made, facts=facts, **how))  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize("operation", [Operation.CONTAINER_EXEC, Operation.EXEC_START])
@pytest.mark.parametrize(
    ("started", "passes"),
    [(STARTED, True), ("2026-11-27T10:00:00.6Z", False), ("", False), (None, False)],
)
async def test_a_later_run_is_not_entered(
    tmp_path: Path, operation: Operation, started: str | None, *, passes: bool
) -> None:
    """What it mounts was looked up anew by dockerd, and by nobody else; both making and starting one is asked."""
    async with proxy_world(tmp_path) as world:
        world.adoptions.add(Adoption(container=OLD, owner=ALICE.uid, started=STARTED))
        state = {} if started is None else {"StartedAt": started}
        world.answers[f"GET /containers/{OLD}/json"] = (200, {"State": state})
        case = Case(world)
        refusal = await case.ask(operation)
        assert (case.reached, refusal is None) == ([operation] if passes else [], passes)
        assert refusal is None or (refusal.status, refusal.rules) == (403, ("adopted",))


async def test_without_a_record_nothing_is_entered(tmp_path: Path) -> None:
    """It may just have been taken back; and where the engine cannot say, it is not known."""
    async with proxy_world(tmp_path) as world:
        world.answers[f"GET /containers/{OLD}/json"] = (200, {"State": {"StartedAt": ""}})
        case = Case(world)
        assert await case.ask(Operation.EXEC_START) is not None
        world.answers[f"GET /containers/{OLD}/json"] = (500, {"message": "no"})
        with pytest.raises(EngineError):
            await case.ask(Operation.EXEC_START)
        assert case.reached == []


async def test_others_are_not_asked_about(tmp_path: Path) -> None:
    """Containers that ds01 made cost no question, and neither do admins."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        assert await case.ask(Operation.CONTAINER_EXEC, adopted=None) is None
        assert await case.ask(Operation.CONTAINER_EXEC, everything=True) is None
        assert (len(case.reached), world.asked) == (2, [])
