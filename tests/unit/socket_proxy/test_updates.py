"""An update through the handler: what dockerd is asked, and what the client reads."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from policy.dockerapi.model import Operation
from policy.model import Kind
from socket_proxy.index import Entry
from socket_proxy.updates import Updates
from tests.fakes.proxy_world import ALICE, proxy_world
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.proxy_world import ProxyWorld

BOX, OTHER = "a" * 64, "b" * 64
UPDATE, INSPECT = f"POST /containers/{BOX}/update", f"GET /containers/{BOX}/json"
LIMITED = {"NanoCpus": 0, "CpuPeriod": 100_000, "CpuQuota": 400_000}


def known(world: ProxyWorld, *, status: int = 200, answer: Any = None) -> Updates:
    """A container of alice's that has a quota."""
    world.index.put(Entry(kind=Kind.CONTAINER, id=BOX, name="u1000.box", owner=ALICE.uid))
    world.answers |= {UPDATE: (status, answer), INSPECT: (200, {"HostConfig": LIMITED})}
    return Updates(engine=world.engine, answers=world.answering)


async def test_cpus_are_asked_for_as_the_container_has_them(tmp_path: Path) -> None:
    """Where it has a quota, `--cpus` becomes one."""
    async with proxy_world(tmp_path) as world:
        made, client = transaction(Operation.CONTAINER_UPDATE, {"NanoCpus": 2 * 10**9}, container=BOX)
        await known(world, answer={"Warnings": None}).update(made)
        assert world.asked == [INSPECT, UPDATE]
        assert json.loads(world.bodies[-1]) == {"NanoCpus": 0, "CpuPeriod": 100_000, "CpuQuota": 200_000}
        assert client.status == 200


async def test_an_update_of_something_else_asks_once(tmp_path: Path) -> None:
    """What the container has need not be known."""
    async with proxy_world(tmp_path) as world:
        made, _ = transaction(Operation.CONTAINER_UPDATE, {"Memory": 5, "NanoCpus": 0}, container=BOX)
        await known(world, answer={"Warnings": None}).update(made)
        assert world.asked == [UPDATE]


@pytest.mark.parametrize("warnings", [None, ["Your kernel has no swap"]])
async def test_what_ds01_changed_is_told_behind_the_engines_warnings(
    tmp_path: Path, warnings: list[str] | None
) -> None:
    """As with a create: docker update prints them."""
    async with proxy_world(tmp_path) as world:
        made, client = transaction(Operation.CONTAINER_UPDATE, {"Memory": 5}, container=BOX)
        noted = replace(made, notes=("ds01: Memory lowered",))
        await known(world, answer={"Warnings": warnings}).update(noted)
        assert client.document == {"Warnings": [*(warnings or ()), "ds01: Memory lowered"]}


@pytest.mark.parametrize("status", [404, 409, 500])
async def test_an_error_is_the_engines(tmp_path: Path, status: int) -> None:
    """Its status and its words, as far as they are the user's."""
    async with proxy_world(tmp_path) as world:
        made, client = transaction(Operation.CONTAINER_UPDATE, {"NanoCpus": 2 * 10**9}, container=BOX)
        updates = known(world, status=status, answer={"message": f"Cannot update {BOX}, see {OTHER}"})
        world.answers[INSPECT] = (404, {"message": "gone"})
        await updates.update(made)
        assert client.status == status
        assert f"Cannot update {BOX}" in client.document["message"]
        assert OTHER not in client.document["message"]
