"""A ds01 socket that answers what a test says, served for real."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

Serve = Callable[..., Path]


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    status: int = 200
    body: bytes = b""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def address_string(self) -> str:
        return "peer"

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Call it with status and body; gives the socket's path."""
    servers: list[_Server] = []

    def start(answer: Any, *, status: int = 200) -> Path:
        path = tmp_path / "docker.sock"
        server = _Server(str(path), _Handler)
        server.status = status
        server.body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return path

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
