"""Raw streams and how two of them are joined."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from http1.duplex import Duplex
from http1.errors import ClientGone
from http1.limits import Limits
from http1.relay import splice

if TYPE_CHECKING:
    from tests.unit.http1.conftest import Waiter


async def _duplex(early: bytes = b"", *, eof: bool = False) -> tuple[Duplex, socket.socket]:
    """A stream and the raw socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(2)
    transport, _ = await asyncio.get_running_loop().create_unix_connection(asyncio.Protocol, sock=ours)
    return Duplex(transport, early, limits=Limits(), eof=eof), theirs


def _receive(end: socket.socket) -> bytes:
    data = b""
    while piece := end.recv(65536):
        data += piece
    return data


async def test_reads_early_bytes_first() -> None:
    """Bytes held before the switch come before those after it."""
    stream, end = await _duplex(b"early ")
    end.sendall(b"late")
    end.shutdown(socket.SHUT_WR)
    data = b""
    while piece := await stream.read():
        data += piece
    assert data == b"early late"
    await stream.write(b"still open")
    stream.close()
    assert await asyncio.to_thread(_receive, end) == b"still open"
    end.close()


async def test_broken_stream_raises(until: Waiter) -> None:
    """After the connection broke, reading and writing say so."""
    stream, end = await _duplex()
    end.close()
    stream.abort()
    await until(lambda: stream.closed)
    with pytest.raises(ClientGone):
        await stream.read()
    with pytest.raises(ClientGone):
        await stream.write(b"x")


async def test_splice_passes_what_came_before_it_and_both_ends() -> None:
    """Early bytes and early half-closes on both sides are carried, in order."""
    a, a_end = await _duplex(b"from a", eof=True)
    b, b_end = await _duplex(b"from b", eof=True)
    await asyncio.wait_for(splice(a, b), 2)
    assert await asyncio.to_thread(_receive, a_end) == b"from b"
    assert await asyncio.to_thread(_receive, b_end) == b"from a"
    a_end.close()
    b_end.close()


async def test_splice_ends_when_one_side_breaks() -> None:
    """A connection that breaks takes the other with it."""
    a, a_end = await _duplex()
    b, b_end = await _duplex()
    asyncio.get_running_loop().call_later(0.05, a.abort)
    await asyncio.wait_for(splice(a, b), 2)
    assert a.closed
    assert b.closed
    a_end.close()
    b_end.close()


async def test_splice_ends_when_idle() -> None:
    """With an idle limit a silent session ends, an active one does not."""
    a, a_end = await _duplex()
    b, b_end = await _duplex()
    joined = asyncio.get_running_loop().create_task(splice(a, b, idle_seconds=0.1))
    for _ in range(6):
        a_end.sendall(b".")
        await asyncio.sleep(0.05)
    assert not joined.done()
    await asyncio.wait_for(joined, 1)
    a_end.close()
    b_end.close()


async def test_cancelled_splice_closes_both() -> None:
    """Server stop ends the session."""
    a, a_end = await _duplex()
    b, b_end = await _duplex()
    joined = asyncio.get_running_loop().create_task(splice(a, b))
    await asyncio.sleep(0.01)
    joined.cancel()
    assert await asyncio.to_thread(_receive, a_end) == b""
    assert await asyncio.to_thread(_receive, b_end) == b""
    a_end.close()
    b_end.close()
