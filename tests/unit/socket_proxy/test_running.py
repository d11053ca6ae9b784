"""The allocator is told what runs, whose it is, and where: by the engine's own pid."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from policy import names
from socket_proxy.refusals import Unavailable
from socket_proxy.running import RunningContainers
from tests.fakes.proxy_world import ALICE, proxy_world

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from policy.model import Json

ONE, OTHER = "1" * 64, "2" * 64


class Heard:
    """What the allocator was told, each time; it may be away."""

    def __init__(self) -> None:
        self.told: list[list[dict[str, Any]]] = []
        self.away = False
        self.heard = asyncio.Event()

    async def tell_running(self, containers: Sequence[Mapping[str, Json]]) -> None:
        if self.away:
            raise Unavailable("away")
        self.told.append([dict(one) for one in containers])
        self.heard.set()


async def test_what_runs_is_told_with_its_owner_and_its_pid(tmp_path: Path) -> None:
    """The owner by the seal alone; what ds01 did not make is nobody's, under the engine's name for it."""
    async with proxy_world(tmp_path) as world:
        forged = {**world.labels(), "ds01.uid": "0"}
        world.answers["GET /containers/json"] = (
            200,
            [
                {"Id": ONE, "Names": [f"/{names.real(ALICE.uid, 'web')}"], "Labels": world.labels()},
                {"Id": OTHER, "Names": ["/old"], "Labels": forged},
            ],
        )
        world.answers[f"GET /containers/{ONE}/json"] = (200, {"State": {"Pid": 11}})
        world.answers[f"GET /containers/{OTHER}/json"] = (200, {"State": {"Pid": 22}})
        heard = Heard()
        await RunningContainers(engine=world.engine, sealer=world.sealer, allocator=heard).tell()
        assert heard.told == [
            [
                {"id": ONE, "pid": 11, "owner_uid": ALICE.uid, "name": "web"},
                {"id": OTHER, "pid": 22, "owner_uid": None, "name": "old"},
            ]
        ]


async def test_a_container_is_looked_at_again_only_when_it_moved(tmp_path: Path) -> None:
    """Its pid is another one after a restart; one that is gone again is not told."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [{"Id": ONE, "Names": ["/a"]}])
        world.answers[f"GET /containers/{ONE}/json"] = (200, {"State": {"Pid": 11}})
        heard = Heard()
        running = RunningContainers(engine=world.engine, sealer=world.sealer, allocator=heard)
        await running.tell()
        world.answers[f"GET /containers/{ONE}/json"] = (200, {"State": {"Pid": 12}})
        await running.tell()
        running.moved(ONE)
        await running.tell()
        world.answers[f"GET /containers/{ONE}/json"] = (404, {"message": "No such container"})
        running.moved(ONE)
        await running.tell()
        assert [[one["pid"] for one in told] for told in heard.told] == [[11], [11], [12], []]


async def test_a_start_is_told_at_once_and_an_absent_allocator_later(tmp_path: Path) -> None:
    """The task goes on whatever fails."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [])
        heard = Heard()
        heard.away = True
        running = RunningContainers(engine=world.engine, sealer=world.sealer, allocator=heard)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(running.run())
            await asyncio.sleep(0.05)
            assert heard.told == []
            heard.away = False
            running.moved(ONE)
            async with asyncio.timeout(5):
                await heard.heard.wait()
            task.cancel()
