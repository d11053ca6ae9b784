"""A client that costs next to nothing, and what its times come to.

Measuring in Python through an SDK would hide the hop: this one writes ready bytes and looks only for the answer's end.
"""

from __future__ import annotations

import socket
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_RECEIVE_BYTES: Final = 1 << 18
WARM_UP_ROUNDS: Final = 1


def request(method: str, target: str, body: bytes = b"") -> bytes:
    """One request as the docker CLI writes it."""
    head = f"{method} {target} HTTP/1.1\r\nHost: docker\r\nUser-Agent: Docker-Client/20.10.24 (linux)\r\n"
    if body or method == "POST":
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}\r\n".encode() + body


class Connection:
    """One kept-alive connection. Raises: ConnectionError when the other side closes it."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(120)
        self._socket.connect(str(path))

    def ask(self, data: bytes) -> tuple[int, bytes]:
        """Send one request. Returns: status and everything that came, head included; chunks stay framed."""
        self._socket.sendall(data)
        answer = self._receive()
        end = answer.find(b"\r\n\r\n")
        while end < 0:
            answer += self._receive()
            end = answer.find(b"\r\n\r\n")
        head = answer[:end].lower()
        status = int(head[9:12])
        if b"transfer-encoding: chunked" in head:
            while not answer.endswith(b"\r\n0\r\n\r\n"):
                answer += self._receive()
        elif status not in (204, 304) and b"content-length: " in head:
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            missing = end + 4 + length - len(answer)
            if missing > 0:
                answer += self._receive_exactly(missing)
        return status, answer

    def count(self, data: bytes) -> int:
        """Send one request whose answer ends with the connection or a last chunk. Returns: bytes received."""
        self._socket.sendall(data)
        size, tail = 0, b""
        while piece := self._socket.recv(_RECEIVE_BYTES):
            size += len(piece)
            tail = (tail + piece[-16:])[-16:]
            if tail.endswith(b"\r\n0\r\n\r\n"):
                break
        return size

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> bytes:
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            raise ConnectionError("the connection was closed in the middle of an answer")
        return data

    def _receive_exactly(self, size: int) -> bytes:
        pieces = []
        while size > 0:
            pieces.append(self._receive())
            size -= len(pieces[-1])
        return b"".join(pieces)


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Latencies of one variant, in microseconds."""

    median_us: float
    p99_us: float
    count: int


def summary(times_us: list[float]) -> Times:
    """Median and 99th percentile."""
    return Times(
        median_us=statistics.median(times_us),
        p99_us=statistics.quantiles(times_us, n=100)[98],
        count=len(times_us),
    )


def interleaved(
    paths: dict[str, Path], data: bytes, *, requests: int, rounds: int, status: int = 200
) -> dict[str, Times]:
    """The same request to each variant in turns of a few, so that drift of the machine hits all alike."""
    connections = {name: Connection(path) for name, path in paths.items()}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for round_ in range(rounds + WARM_UP_ROUNDS):
        for name, connection in connections.items():
            measured = _timed(connection, data, max(1, requests // rounds), status)
            times[name] += measured if round_ >= WARM_UP_ROUNDS else []
    for connection in connections.values():
        connection.close()
    return {name: summary(values) for name, values in times.items()}


def _timed(connection: Connection, data: bytes, requests: int, status: int) -> list[float]:
    times = []
    for _ in range(requests):
        begin = time.perf_counter_ns()
        answered, _answer = connection.ask(data)
        times.append((time.perf_counter_ns() - begin) / 1000)
        if answered != status:
            raise SystemExit(f"bench: HTTP {answered} instead of {status}: {_answer[-300:]!r}")
    return times
