"""A request as it comes in: its JSON, and what its head and JSON mean."""

from __future__ import annotations

import asyncio

from http1.server import Exchange
from policy import facts
from policy.dockerapi.model import Incoming
from policy.dockerapi.read import read
from socket_proxy.repeat import Reading

_LARGE_BYTES = 32 * 1024  # a body above this takes milliseconds to read


class Receiving:
    """Reads requests, one large body for each turn of the loop."""

    def __init__(self, *, engine_max: tuple[int, int], json_bytes: int) -> None:
        """Args: engine_max: the highest API version that the engine speaks. json_bytes: a longer body is refused."""
        self._engine_max = engine_max
        self._json_bytes = json_bytes
        self._one_large = asyncio.Lock()

    async def receive(self, exchange: Exchange) -> bytes | None:
        """The JSON body, None if there is none. It may come slowly. Raises: BadRequest, ClientGone."""
        if isinstance(exchange.derived, Reading) or not _has_json(exchange.head.headers):
            return None
        return await exchange.read_body(self._json_bytes)

    async def read(self, exchange: Exchange, body: bytes | None) -> Reading:
        """What was asked; as before, where a connection repeats a head. Raises: MalformedRequest, UnknownRoute, UnknownField."""
        known = exchange.derived
        if isinstance(known, Reading):
            known.again = True
            return known
        head = exchange.head
        incoming = Incoming(method=head.method, target=head.target, headers=head.headers, body=body)
        if body is not None and len(body) > _LARGE_BYTES:
            # SECURITY: so that many large ones at once hold nobody else up.
            async with self._one_large:
                await asyncio.sleep(0)
                request = read(incoming, engine_max=self._engine_max)
        else:
            request = read(incoming, engine_max=self._engine_max)
        reading = Reading(request, facts.needed(request))
        if body is None:  # else there is more to it than the head
            exchange.derived = reading
        return reading


def _has_json(headers: tuple[tuple[str, str], ...]) -> bool:
    return any(name == "content-type" and "json" in value.lower() for name, value in headers)
