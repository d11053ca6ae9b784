"""Metrics on a port of the loopback, from a whole proxy that was asked a few things."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from tests.fakes.raw_socket import request
from tests.fakes.whole_proxy import WholeProxy, whole_proxy

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def scrape(port: int, method: str = "GET", target: str = "/metrics") -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = (await asyncio.wait_for(reader.read(), 5)).decode()
    writer.close()
    return answer


async def ask(world: WholeProxy, name: str, data: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(world.tree.user_socket(name)))
    writer.write(data)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
    writer.close()
    return head


async def test_what_was_decided_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An allow, a denial by its rule, a thing that is not there and a request that cannot be read; no name of anybody."""
    async with whole_proxy(tmp_path, monkeypatch) as world:
        port = free_port()
        await world.running().scrapes.open(port)
        create = {"Image": "busybox", "HostConfig": {"Privileged": True}}
        assert b" 200 " in await ask(world, "alice", request("GET", "/_ping"))
        assert b" 403 " in await ask(world, "alice", request("POST", "/v1.41/containers/create", create))
        assert b" 404 " in await ask(world, "alice", request("GET", "/v1.41/containers/none/json"))
        assert b" 400 " in await ask(world, "alice", request("GET", "/v1.41/containers/%61/json"))
        text = await scrape(port)
        assert text.startswith("HTTP/1.1 200 ")
        for line in (
            'ds01_requests_total{decision="allowed",operation_class="system"} 1.0',
            'ds01_requests_total{decision="denied",operation_class="create"} 1.0',
            'ds01_requests_total{decision="not_visible",operation_class="own"} 1.0',
            'ds01_requests_total{decision="malformed",operation_class="unknown"} 1.0',
            'ds01_denials_total{rule="privileged"} 1.0',
            "ds01_decision_seconds_count 4.0",
            "ds01_policy_in_force 1.0",
            "ds01_canary_ok NaN",
            "ds01_lifecycle_ok 0.0",
        ):
            assert f"\n{line}\n" in text
        assert "alice" not in text


async def test_nothing_else_is_served_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No Docker call, and no other method."""
    async with whole_proxy(tmp_path, monkeypatch) as world:
        port = free_port()
        await world.running().scrapes.open(port)
        for method, target in (("GET", "/_ping"), ("POST", "/metrics"), ("GET", "/metrics/../v1.41/info")):
            assert (await scrape(port, method, target)).startswith("HTTP/1.1 404 ")
        assert world.asked == []


async def test_a_taken_port_stops_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy says so and serves its users."""
    async with whole_proxy(tmp_path, monkeypatch) as world:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            await world.running()._open_metrics(other.getsockname()[1])
        assert b" 200 " in await ask(world, "alice", request("GET", "/_ping"))
