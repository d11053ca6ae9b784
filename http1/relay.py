"""The fast paths between the two sides: an answer carried on, and two raw streams joined."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from http1.writer import forwardable

if TYPE_CHECKING:
    from http1.client import Response
    from http1.duplex import Duplex
    from http1.exchange import Exchange
    from http1.heads import Headers


async def relay(response: Response, exchange: Exchange, *, headers: Headers | None = None) -> None:
    """Carry a whole answer on: in one write when it has arrived completely, else piece by piece.

    Args:
        headers: what to send instead of the upstream's own forwardable headers.
    Raises: ClientGone, UpstreamLost.
    """
    head = response.head
    fields = forwardable(head.headers) if headers is None else headers
    if response.complete and not response.trailers and exchange.head.method != "HEAD":
        await exchange.respond(head.status, fields, response.take())
        return
    try:
        exchange.start_response(head.status, fields, content_length=head.content_length, reason=head.reason)
    except BaseException:
        response.abort()
        raise
    await relay_body(response, exchange)


async def relay_body(response: Response, exchange: Exchange) -> None:
    """Carry the body after `start_response`: each piece at once, trailers at the end, backpressure both ways.

    Raises: ClientGone, UpstreamLost. The upstream connection is closed if this ends early.
    """
    try:
        while data := await response.read_some():
            await exchange.write(data)
        await exchange.end(response.trailers)
    finally:
        response.abort()


async def relay_hijack(response: Response, exchange: Exchange, *, idle_seconds: float | None = None) -> None:
    """Carry a raw answer (`response.raw`): its head, then bytes both ways until both sides have ended."""
    head = response.head
    upgrade = (
        next((value for name, value in head.headers if name == "upgrade"), None) if head.upgraded else None
    )
    upstream = response.hijack()
    try:
        client = exchange.hijack(head.status, forwardable(head.headers), reason=head.reason, upgrade=upgrade)
    except BaseException:
        upstream.abort()
        raise
    await splice(client, upstream, idle_seconds=idle_seconds)


async def splice(a: Duplex, b: Duplex, *, idle_seconds: float | None = None) -> None:
    """Join two raw streams. No task and no copy per piece: each side's bytes are written by the other's callback.

    A half-close is carried to the other side. Returns when both directions have ended, when either connection
    broke, or when nothing moved for `idle_seconds` (checked about that often).
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def closed() -> None:
        if a.closed and b.closed and not done.done():
            done.set_result(None)

    a.when_closed(closed)
    b.when_closed(closed)
    a.join(b)
    b.join(a)
    a.join_end(b)
    b.join_end(a)
    try:
        if idle_seconds is None:
            await done
        else:
            await _until_idle(a, b, done, idle_seconds)
    finally:
        a.abort()
        b.abort()


async def _until_idle(a: Duplex, b: Duplex, done: asyncio.Future[None], idle_seconds: float) -> None:
    moved = -1
    while moved != (moved := a.moved_bytes + b.moved_bytes):
        await asyncio.wait([done], timeout=idle_seconds)
        if done.done():
            return
