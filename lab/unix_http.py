"""A few blocking calls over a Unix socket: is it there, what has it, take this."""

from __future__ import annotations

import http.client
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Status and whole body."""

    status: int
    body: bytes


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("docker", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def call(
    path: Path,
    method: str,
    target: str,
    body: bytes | None = None,
    *,
    media_type: str = "application/json",
    timeout_seconds: float = 30,
) -> Reply:
    """One request on a connection of its own. Raises: OSError, http.client.HTTPException."""
    connection = _Connection(path, timeout_seconds)
    try:
        headers = {} if body is None else {"Content-Type": media_type}
        connection.request(method, target, body, headers)
        response = connection.getresponse()
        return Reply(status=response.status, body=response.read())
    finally:
        connection.close()


def answers(path: Path, target: str) -> int | None:
    """The status of a GET, None while nobody answers."""
    try:
        return call(path, "GET", target, timeout_seconds=5).status
    except (OSError, http.client.HTTPException):
        return None
