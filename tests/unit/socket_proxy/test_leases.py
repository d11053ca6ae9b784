"""The allocator's client against a real socket."""

from __future__ import annotations

from pathlib import Path

from aiohttp import web

from policy.model import Uid
from socket_proxy.leases import AllocatorClient


async def test_leases_of_a_user_are_read_as_the_allocator_lists_them(tmp_path: Path) -> None:
    """GET /v1/leases answers with a bare list."""

    async def leases(_request: web.Request) -> web.Response:
        lease = {"id": "l1", "owner_uid": 1001, "state": "active", "devices": ["GPU-1"], "container_id": None}
        return web.json_response([lease])

    application = web.Application()
    application.add_routes([web.get("/v1/leases", leases)])
    runner = web.AppRunner(application)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "a.sock")).start()
    client = AllocatorClient(tmp_path / "a.sock")
    try:
        assert [lease.devices for lease in await client.leases(Uid(1001))] == [("GPU-1",)]
    finally:
        await client.close()
        await runner.cleanup()
