"""One relay hop, measured: direct, this room's relay, HAProxy if installed. GET /_ping on kept-alive Unix sockets.

    python bench/http1_relay.py [requests]

Prints the median and 99th percentile in microseconds for one client, in turns, so that a busy machine hits all alike.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from http1.client import Pool
from http1.relay import relay
from http1.server import Server
from http1.writer import forwardable

if TYPE_CHECKING:
    from http1.exchange import Exchange

REQUEST = b"GET /_ping HTTP/1.1\r\nHost: docker\r\nUser-Agent: Docker-Client/20.10.24 (linux)\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nCache-Control: no-cache, no-store, must-revalidate\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\nDocker-Experimental: false\r\nOstype: linux\r\n"
    b"Pragma: no-cache\r\nServer: Docker/20.10.24 (linux)\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n"
    b"Content-Length: 2\r\n\r\nOK"
)


class _Stub(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, _data: bytes) -> None:
        self.transport.write(ANSWER)  # type: ignore[attr-defined]  # a stream transport


def _bind(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    return listening


async def _serve_stub(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_Stub, path)
    await server.serve_forever()


async def _serve_relay(path: str, upstream: str) -> None:
    pool = Pool(upstream)

    async def handler(exchange: Exchange) -> None:
        head = exchange.head
        response = await pool.request(head.method, head.target, forwardable(head.headers), watch=exchange)
        await relay(response, exchange)

    await Server().listen(_bind(path), handler)
    await asyncio.Event().wait()


def _fork(coroutine_function: object, *args: str) -> int:
    pid = os.fork()
    if not pid:
        uvloop.run(coroutine_function(*args))  # type: ignore[operator]  # one of the two above
        os._exit(0)
    return pid


def _haproxy(directory: Path, path: str, upstream: str) -> int:
    config = directory / "haproxy.cfg"
    config.write_text(
        "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 600s\n"
        f"  timeout server 600s\nfrontend f\n  bind unix@{path}\n  default_backend b\n"
        f"backend b\n  http-reuse always\n  server s unix@{upstream}\n"
    )
    program = shutil.which("haproxy")
    assert program
    return subprocess.Popen([program, "-q", "-db", "-f", str(config)], stderr=subprocess.DEVNULL).pid


def _connect(path: str) -> socket.socket:
    for _ in range(200):
        try:
            client = socket.socket(socket.AF_UNIX)
            client.connect(path)
        except OSError:
            client.close()
            time.sleep(0.02)
        else:
            return client
    raise SystemExit(f"nobody listens on {path}")


def _measure(client: socket.socket, requests: int) -> list[float]:
    times = []
    for _ in range(requests):
        begin = time.perf_counter_ns()
        client.sendall(REQUEST)
        data = client.recv(65536)
        while not data.endswith(b"\r\n\r\nOK"):
            data += client.recv(65536)
        times.append((time.perf_counter_ns() - begin) / 1000)
    return times


def main() -> None:
    requests = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = {"direct": f"{name}/stub", "ds01": f"{name}/relay", "haproxy": f"{name}/haproxy"}
        children = [_fork(_serve_stub, paths["direct"])]
        _connect(paths["direct"]).close()
        children.append(_fork(_serve_relay, paths["ds01"], paths["direct"]))
        if shutil.which("haproxy"):
            children.append(_haproxy(directory, paths["haproxy"], paths["direct"]))
        else:
            del paths["haproxy"]
        try:
            clients = {label: _connect(path) for label, path in paths.items()}
            times: dict[str, list[float]] = {label: [] for label in paths}
            for round_ in range(6):
                for label, client in clients.items():
                    measured = _measure(client, requests // 5)
                    times[label] += measured if round_ else []  # the first round warms up
            for label, values in times.items():
                p99 = statistics.quantiles(values, n=100)[98]
                print(f"{label:8} median {statistics.median(values):6.0f} us   p99 {p99:6.0f} us")
        finally:
            for child in children:
                os.kill(child, 9)


if __name__ == "__main__":
    main()
