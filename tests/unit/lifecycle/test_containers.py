"""Containers through the admin socket: one contract for the client, before an engine's words, and for the fake."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from host import listener
from lifecycle.containers import AdminClient
from lifecycle.ports import Containers, NotStopped, Unavailable
from tests.fakes.ending import BOX, FakeContainers, container

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

GONE = type(BOX)("b" * 64)


class Engine:
    """What a proxy before an engine answers of one container. SOURCE: Engine API 1.41."""

    def __init__(self) -> None:
        self.inspected: Any = {
            "Id": BOX,
            "Name": "/u1001.train",
            "State": {"Running": True, "Paused": True, "Status": "paused"},
            "Config": {"Labels": {"ds01.lease": "lease1", "x": "y"}, "StopSignal": "SIGTERM"},
        }
        self.status: int = 204
        self.refusal: dict[str, Any] = {"message": "no"}
        self.asked: list[str] = []

    async def inspect(self, request: web.Request) -> web.Response:
        if request.match_info["id"] != BOX:
            return web.json_response({"message": "No such container"}, status=404)
        if isinstance(self.inspected, bytes):
            return web.Response(body=self.inspected)
        return web.json_response(self.inspected)

    async def stop(self, request: web.Request) -> web.Response:
        self.asked.append(request.path_qs)
        if self.status in (204, 304):
            self.inspected["State"]["Running"] = False
            return web.Response(status=self.status)
        return web.json_response(self.refusal, status=self.status)


@asynccontextmanager
async def serving(directory: Path, engine: Engine) -> AsyncIterator[AdminClient]:
    application = web.Application()
    application.add_routes(
        [web.get("/containers/{id}/json", engine.inspect), web.post("/containers/{id}/stop", engine.stop)]
    )
    runner = web.AppRunner(application)
    await runner.setup()
    await web.SockSite(runner, listener.listen(directory / "s")).start()
    client = AdminClient(directory / "s")
    yield client
    await client.close()
    await runner.cleanup()


@asynccontextmanager
async def real(directory: Path) -> AsyncIterator[Containers]:
    async with serving(directory, Engine()) as client:
        yield client


@asynccontextmanager
async def fake(_directory: Path) -> AsyncIterator[Containers]:
    yield FakeContainers(container())


@pytest.mark.parametrize("containers", [real, fake])
async def test_the_contract(containers: Any, tmp_path: Path) -> None:
    """A container as it is, None where there is none, and stopped once it was asked to; a paused one runs."""
    async with containers(tmp_path) as found:
        assert await found.look(BOX) == container()
        assert await found.look(GONE) is None
        await found.stop(container())
        assert await found.look(BOX) == container(running=False)


@pytest.mark.parametrize(
    ("own", "asked"), [(None, 10), (0, 0), (25, 25), (300, 300), (301, 300), (10**9, 300), (-1, 300)]
)
async def test_it_has_its_own_time_to_stop(tmp_path: Path, own: int | None, asked: int) -> None:
    """The engine's default where it states none; no container of old stays for ever by its own word."""
    engine = Engine()
    engine.inspected["Config"]["StopTimeout"] = own
    async with serving(tmp_path, engine) as client:
        found = await client.look(BOX)
        assert found is not None
        await client.stop(found)
    assert engine.asked == [f"/containers/{BOX}/stop?t={asked}"]


@pytest.mark.parametrize("status", [204, 304, 404])
async def test_stopped_already_is_stopped(tmp_path: Path, status: int) -> None:
    """As is one that is gone."""
    engine = Engine()
    engine.status = status
    async with serving(tmp_path, engine) as client:
        await client.stop(container())


async def test_a_refusal_without_words_is_one_too(tmp_path: Path) -> None:
    """What is no error of Docker's form."""
    engine = Engine()
    engine.status, engine.refusal = 500, {"message": 7}
    async with serving(tmp_path, engine) as client:
        with pytest.raises(NotStopped, match="500: no reason given"):
            await client.stop(container())


@pytest.mark.parametrize(("status", "said"), [(403, "403: no"), (500, "500: no"), (503, "503: no")])
async def test_a_refusal_is_told_in_its_own_words(tmp_path: Path, status: int, said: str) -> None:
    """The engine's, or ds01's own."""
    engine = Engine()
    engine.status = status
    async with serving(tmp_path, engine) as client:
        with pytest.raises(NotStopped, match=said):
            await client.stop(container())


@pytest.mark.parametrize(
    "inspected",
    [None, {}, [], b'{"Id": "\xff"}', {"Id": GONE, "Name": "/x", "State": {"Running": True}, "Config": {}},
     {"Id": BOX, "Name": "/x", "State": {}, "Config": {}}, {"Id": BOX, "Name": "/x", "State": {"Running": 1}, "Config": {}}],
)  # fmt: skip
async def test_an_odd_answer_is_none(tmp_path: Path, inspected: Any) -> None:
    """Another container under this name, or one of which it is not said whether it runs."""
    engine = Engine()
    engine.inspected = inspected
    async with serving(tmp_path, engine) as client:
        with pytest.raises(Unavailable):
            await client.look(BOX)


async def test_a_container_without_labels_carries_no_lease(tmp_path: Path) -> None:
    """None, and not an empty name."""
    engine = Engine()
    engine.inspected["Config"]["Labels"] = None
    async with serving(tmp_path, engine) as client:
        assert await client.look(BOX) == replace(container(), lease=None)


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    """No socket."""
    client = AdminClient(tmp_path / "none")
    with pytest.raises(Unavailable, match="proxy does not answer"):
        await client.look(BOX)
    with pytest.raises(Unavailable):
        await client.stop(container())
    await client.close()
