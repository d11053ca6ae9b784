"""A client that sends exactly the bytes it is given: for requests that no Docker client would send."""

from __future__ import annotations

import json
import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer, read to its end or to the end of the connection. `status` 0: closed without a word."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What Docker's error form says; "" if this is none."""
        try:
            document = json.loads(self.body)
        except ValueError:
            return ""
        return str(document.get("message", "")) if isinstance(document, dict) else ""


@contextmanager
def connected(path: Path, user: str, *, seconds: float = SECONDS) -> Iterator[socket.socket]:
    """A connection that carries the credentials of `user`, as connect(2) takes them."""
    account = pwd.getpwnam(user)
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        os.setegid(account.pw_gid)
        os.seteuid(account.pw_uid)
        try:
            client.connect(str(path))
        finally:
            os.seteuid(0)
            os.setegid(0)
        yield client


def exchange(
    path: Path, user: str, data: bytes, *, seconds: float = SECONDS, then_close: bool = False
) -> Answer:
    """Connect as `user`, send `data`, read one answer. `then_close` ends the sending side first."""
    with connected(path, user, seconds=seconds) as client:
        try:
            client.sendall(data)
            if then_close:
                client.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all was sent; the answer is there to be read
        return read_answer(client, body=not data.startswith(b"HEAD "))


def read_answer(client: socket.socket, *, body: bool = True) -> Answer:
    """Read one answer: by its length, its chunks, or up to the end. An answer to HEAD has no body."""
    data = b""
    while b"\r\n\r\n" not in data and (piece := _receive(client)):
        data += piece
    head, _, content = data.partition(b"\r\n\r\n")
    if not head:
        return Answer(status=0)
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    status = int(lines[0].split()[1])
    if not body:
        return Answer(status=status, headers=headers)
    if "content-length" in headers:
        while len(content) < int(headers["content-length"]) and (piece := _receive(client)):
            content += piece
    elif "chunked" in headers.get("transfer-encoding", ""):
        while not content.endswith(b"0\r\n\r\n") and (piece := _receive(client)):
            content += piece
        content = _joined(content)
    return Answer(status=status, headers=headers, body=content)


def _receive(client: socket.socket) -> bytes:
    try:
        return client.recv(65536)
    except (ConnectionResetError, TimeoutError):
        return b""


def _joined(chunked: bytes) -> bytes:
    body = b""
    while chunked:
        size, _, rest = chunked.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        body, chunked = body + rest[:length], rest[length + 2 :]
    return body


def request(
    method: str, target: str, body: object = None, *, headers: Mapping[str, str] | None = None
) -> bytes:
    """A well-formed request. A body that is not bytes is sent as JSON."""
    sent = {"Host": "docker", **(headers or {})}
    data = b""
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"Content-Type": "application/json", **sent, "Content-Length": str(len(data))}
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + data


def ask(path: Path, user: str, method: str, target: str, body: object = None, **headers: str) -> Answer:
    """Send a well-formed request as `user` and read its answer."""
    return exchange(path, user, request(method, target, body, headers=headers))
