"""One end of a mediated connection."""

from __future__ import annotations

import asyncio
import socket

import pytest
from h2.events import Event, SettingsAcknowledged

from buildkit.peer import Broken
from buildkit.side import Over, Side
from http1.errors import ClientGone
from tests.fakes.grpc_ends import SECONDS, duplex


async def _pair() -> tuple[Side, socket.socket]:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return Side(await duplex(ours), client_side=False), theirs


async def test_what_comes_is_taken_and_its_end_is_told() -> None:
    """Whole frames become events."""
    side, other = await _pair()
    taken: list[Event] = []
    behind: list[int] = []
    await asyncio.get_running_loop().sock_sendall(
        other, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000000000040100000000")
    )
    other.shutdown(socket.SHUT_WR)
    with pytest.raises(Over):
        await asyncio.wait_for(side.read(taken.append, lambda: behind.append(len(taken))), SECONDS)
    assert any(isinstance(event, SettingsAcknowledged) for event in taken)
    assert behind
    other.close()
    side.duplex.abort()


async def test_what_is_no_http2_is_an_error() -> None:
    """Told apart from an end."""
    side, other = await _pair()
    await asyncio.get_running_loop().sock_sendall(other, b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(Broken):
        await asyncio.wait_for(side.read(lambda _: None, lambda: None), SECONDS)
    other.close()
    side.duplex.abort()


async def test_whoever_does_not_read_is_not_listened_to() -> None:
    """While something waits to be sent, nothing more is taken."""
    side, other = await _pair()
    side._clear.clear()
    pings = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
    await asyncio.get_running_loop().sock_sendall(other, pings)
    taken: list[Event] = []
    reading = asyncio.get_running_loop().create_task(side.read(taken.append, lambda: None))
    await asyncio.sleep(0.05)
    before = len(taken)
    await asyncio.get_running_loop().sock_sendall(other, bytes.fromhex("000008060000000000") + b"12345678")
    await asyncio.sleep(0.05)
    assert len(taken) == before
    side._clear.set()
    await asyncio.sleep(0.05)
    assert len(taken) > before
    reading.cancel()
    other.close()
    side.duplex.abort()


async def test_what_waits_is_sent_when_it_is_woken() -> None:
    """And each piece that has left is told."""
    side, other = await _pair()
    moved: list[bool] = []
    writing = asyncio.get_running_loop().create_task(side.write(lambda: moved.append(True)))
    data = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(other, 65536), SECONDS)
    assert data  # the settings
    assert moved
    other.close()
    side.flush()
    writing.cancel()
    side.duplex.abort()
    with pytest.raises(ClientGone):
        await side.duplex.write(b"x")
    side.flush()
