"""Metrics for Prometheus, on a port of the loopback that daemon.yaml names.

Anybody on the server may read them: they hold numbers of all users together, and no name.
"""

from __future__ import annotations

import socket

from http1.server import Exchange, Server
from http1.writer import JSON, error_body
from observability.metrics import Metrics

_HOST = "127.0.0.1"
_TEXT = (("content-type", "text/plain; version=0.0.4; charset=utf-8"),)
_CONNECTIONS = 16


class Scrapes:
    """Answers `GET /metrics`, and nothing else."""

    def __init__(self, *, server: Server, metrics: Metrics) -> None:
        self._server = server
        self._metrics = metrics

    async def open(self, port: int) -> None:
        """Listen. Raises: OSError: the port is taken."""
        listening = socket.socket(socket.AF_INET)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((_HOST, port))
        except OSError:
            listening.close()
            raise
        await self._server.listen(listening, self._answer, most_per_uid=lambda _uid: _CONNECTIONS)

    async def _answer(self, exchange: Exchange) -> None:
        if (exchange.head.method, exchange.head.target) == ("GET", "/metrics"):
            await exchange.respond(200, _TEXT, self._metrics.exposition())
        else:
            await exchange.respond(404, JSON, error_body("ds01: only GET /metrics is served here"))
