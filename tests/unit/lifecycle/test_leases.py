"""The allocator's client: one contract for it, before a real allocator, and for the fake that other tests use."""

from __future__ import annotations

import json
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from allocator.api import Api
from host import listener
from lifecycle.leases import AllocatorClient
from lifecycle.ports import Lease, Leases, Unavailable
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.ending import FakeLeases
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, service, want

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

BOX = ContainerId("1" * 64)
SHOWN: dict[str, Any] = {
    "id": "lease0",
    "owner_uid": 1000,
    "owner_name": "alice",
    "state": "active",
    "container_id": BOX,
    "seconds": 60,
    "ends_in_seconds": 20,
}
EXPECTED = {
    "lease0": Lease(
        id=LeaseId("lease0"),
        owner_uid=Uid(1000),
        owner_name="alice",
        container=BOX,
        state="active",
        seconds=60,
        left_seconds=20,
    ),
    "lease1": Lease(
        id=LeaseId("lease1"),
        owner_uid=Uid(1000),
        owner_name="alice",
        container=None,
        state="pending",
        seconds=None,
        left_seconds=None,
    ),
}


@asynccontextmanager
async def serving(path: Path, application: web.Application) -> AsyncIterator[AllocatorClient]:
    """A client of `application` on a Unix socket."""
    runner = web.AppRunner(application)
    await runner.setup()
    await web.SockSite(runner, listener.listen(path)).start()
    client = AllocatorClient(path)
    yield client
    await client.close()
    await runner.cleanup()


@asynccontextmanager
async def real(directory: Path) -> AsyncIterator[Leases]:
    """An allocator with one lease of a minute, begun 40 s ago, one without end, and one that is over."""
    clock = Clock()
    allocator = service(directory / "ledger", FakeNvml(gpu(0), gpu(1), gpu(2)), clock)
    await allocator.lease(want(seconds=60))
    await allocator.confirm(LeaseId("lease0"), BOX, who="test")
    await allocator.start(LeaseId("lease0"), BOX, who="test")
    await allocator.lease(want())
    await allocator.lease(want())
    await allocator.release(LeaseId("lease2"), who="test", why="test")
    clock.seconds += 40
    api = Api(allocator, trusted_uids=frozenset({os.getuid()}), now=clock, new_id=lambda: LeaseId("x"))
    async with serving(directory / "s", api.application()) as client:
        yield client
    await allocator.close()


@asynccontextmanager
async def fake(_directory: Path) -> AsyncIterator[Leases]:
    over = Lease(
        id=LeaseId("lease2"),
        owner_uid=Uid(1000),
        owner_name="alice",
        container=None,
        state="released",
        seconds=None,
        left_seconds=None,
    )
    yield FakeLeases(*EXPECTED.values(), over)


@pytest.mark.parametrize("leases", [real, fake])
async def test_the_contract(leases: Any, tmp_path: Path) -> None:
    """All live ones with their ends; one by its id, in whatever state; None where there is none."""
    async with leases(tmp_path) as found:
        assert {one.id: one for one in await found.live()} == EXPECTED
        assert await found.find(LeaseId("lease0")) == EXPECTED["lease0"]
        over = await found.find(LeaseId("lease2"))
        assert over is not None
        assert over.state == "released"
        assert await found.find(LeaseId("none")) is None


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (503, {"message": "x"}),
        (403, {"message": "x"}),
        (200, None),
        (200, {}),
        (200, "text"),
        (200, b'{"id":"lease0","owner_name":"\xff"}'),
        (200, b'[{"id":"lease0","owner_uid":1,"owner_name":"\xff"}]'),
        *[
            (200, SHOWN | changes)
            for changes in (
                {"container_id": "../stop"},
                {"container_id": 7},
                {"id": "a/b"},
                {"seconds": None},
                {"ends_in_seconds": None},
                {"ends_in_seconds": "20"},
                {"seconds": 0},
                {"owner_uid": -1},
                {"owner_uid": True},
                {"state": None},
            )
        ],
        (200, {key: value for key, value in SHOWN.items() if key != "seconds"}),
    ],
)
async def test_an_odd_answer_is_none(tmp_path: Path, status: int, answer: Any) -> None:
    """One lease that cannot be read makes the whole list unknown: no half of it is acted on."""

    async def listed(_request: web.Request) -> web.Response:
        several = [SHOWN, answer] if isinstance(answer, dict) and answer else answer
        return web.Response(status=status, body=_bytes(several))

    async def one(_request: web.Request) -> web.Response:
        return web.Response(status=status, body=_bytes(answer))

    application = web.Application()
    application.add_routes([web.get("/v1/leases", listed), web.get("/v1/leases/{id}", one)])
    async with serving(tmp_path / "s", application) as client:
        with pytest.raises(Unavailable):
            await client.live()
        with pytest.raises(Unavailable):
            await client.find(LeaseId("lease0"))


def _bytes(answer: Any) -> bytes:
    return answer if isinstance(answer, bytes) else json.dumps(answer).encode()


async def test_another_lease_is_not_the_answer(tmp_path: Path) -> None:
    """Asked for one, told of another: that is odd."""

    async def one(_request: web.Request) -> web.Response:
        return web.json_response(SHOWN)

    application = web.Application()
    application.add_routes([web.get("/v1/leases/{id}", one)])
    async with serving(tmp_path / "s", application) as client:
        with pytest.raises(Unavailable):
            await client.find(LeaseId("lease9"))


async def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    """No socket, or one that nobody answers at."""
    client = AllocatorClient(tmp_path / "none")
    with pytest.raises(Unavailable, match="allocator does not answer"):
        await client.live()
    await client.close()


async def test_each_question_has_a_connection_of_its_own(tmp_path: Path) -> None:
    """One kept from before a restart of the allocator would fail the next question."""
    kept: list[bool] = []

    async def listed(request: web.Request) -> web.Response:
        kept.append(request.keep_alive)
        return web.json_response([SHOWN])

    application = web.Application()
    application.add_routes([web.get("/v1/leases", listed)])
    async with serving(tmp_path / "s", application) as client:
        await client.live()
        await client.live()
    assert kept == [False, False]
