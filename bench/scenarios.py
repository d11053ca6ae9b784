"""What is measured: each scenario gives figures by name, all variants in turns."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from bench.measure import Connection, Times, interleaved, request, summary
from bench.stack import IMAGE, USER, Stack, cpu_ms, resident_kib
from host.tree import Tree
from host.users import look_up_name
from policy.dockerapi.model import Outgoing
from policy.model import Uid
from socket_proxy.keys import load_or_create
from socket_proxy.stamp import Stamper

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Figures = dict[str, float]
MIB = 1 << 20
_HOST_CONFIG = {"NetworkMode": "none"}
_LOG_LINES, _LOG_LINE_BYTES = 8000, 8000


def hop(stack: Stack, target: str, name: str, *, requests: int) -> Figures:
    """A small call through each variant: medians, 99th percentiles, and what ds01 adds against HAProxy."""
    times = interleaved(stack.sockets, request("GET", target), requests=requests, rounds=25)
    figures = _named(name, times)
    figures[f"{name}_median_ratio_ds01_to_haproxy"] = times["ds01"].median_us / times["haproxy"].median_us
    figures[f"{name}_p99_ratio_ds01_to_haproxy"] = times["ds01"].p99_us / times["haproxy"].p99_us
    return figures


def _named(name: str, times: dict[str, Times]) -> Figures:
    figures: Figures = {}
    for variant, measured in times.items():
        figures[f"{name}_{variant}_median_us"] = measured.median_us
        figures[f"{name}_{variant}_p99_us"] = measured.p99_us
    return figures


def plugin(stack: Stack, *, calls: int) -> Figures:
    """What dockerd waits for, twice a call: the plugin's answer to a stamped request, and to its response."""
    tree = Tree.under(stack.root / "guarded")
    stamper = Stamper(load_or_create(tree))
    account = look_up_name(USER)
    if account is None:
        raise SystemExit(f"bench: no account {USER}")
    outgoing = Outgoing(method="GET", target="/v1.41/containers/json", headers=(), body=None)
    connection = Connection(tree.authz_socket)
    asked, told = [], []
    for _ in range(calls):
        stamp = stamper.header(outgoing, uid=Uid(account.uid), upgrade=None, streams=False)
        question: dict[str, object] = {
            "RequestMethod": outgoing.method,
            "RequestUri": outgoing.target,
            "RequestHeaders": {"User-Agent": "Go-http-client/1.1", stamp[0].title(): stamp[1]},
        }
        asked.append(_plugin_call(connection, "/AuthZPlugin.AuthZReq", question))
        answer = question | {"ResponseBody": base64.b64encode(b"[]").decode(), "ResponseStatusCode": 200}
        told.append(_plugin_call(connection, "/AuthZPlugin.AuthZRes", answer))
    connection.close()
    request_us, response_us = statistics.median(asked), statistics.median(told)
    return {
        "plugin_request_us": request_us,
        "plugin_response_us": response_us,
        "plugin_us_per_call": (request_us + response_us) / 2,
    }


def _plugin_call(connection: Connection, path: str, question: dict[str, object]) -> float:
    data = request("POST", path, json.dumps(question).encode())
    begin = time.perf_counter_ns()
    _, answer = connection.ask(data)
    took_us = (time.perf_counter_ns() - begin) / 1000
    if not answer.endswith(b'{"Allow":true}'):
        raise SystemExit(f"bench: the plugin refused: {answer[-300:]!r}")
    return took_us


def docker_run(stack: Stack, *, runs: int) -> Figures:
    """Create, start, wait and remove, as `docker run --rm` does."""
    times: dict[str, list[float]] = {name: [] for name in stack.sockets}
    for round_ in range(runs + 1):
        for name, path in stack.sockets.items():
            begin = time.perf_counter_ns()
            _run_one(path)
            if round_:  # the first round warms up
                times[name].append((time.perf_counter_ns() - begin) / 1e6)
    medians = {name: statistics.median(values) for name, values in times.items()}
    figures = {f"docker_run_{name}_median_ms": median for name, median in medians.items()}
    figures["docker_run_ratio_to_direct"] = medians["ds01"] / medians["direct"]
    figures["docker_run_ratio_with_plugin_to_direct"] = medians["plugin"] / medians["direct"]
    return figures


def _run_one(path: Path) -> None:
    connection = Connection(path)
    container = create(connection, ["true"])
    for method, rest, status in (("POST", "/start", 204), ("POST", "/wait", 200), ("DELETE", "", 204)):
        answered, answer = connection.ask(request(method, f"/v1.41/containers/{container}{rest}"))
        if answered != status:
            raise SystemExit(f"bench: {method} {rest}: {answer[-300:]!r}")
    connection.close()


def guard(stack: Stack, *, starts: int) -> Figures:
    """What the guard adds to a start with one bind: the same container under ds01's runtime and under runc, in turns.

    Both are started at dockerd itself, so that the proxy's part is in neither.
    """
    binds = [f"{stack.data}:/data"]
    made: dict[str, str] = {}
    for runtime, variant in (("ds01", "ds01"), ("runc", "direct")):
        connection = Connection(stack.sockets[variant])
        made[runtime] = create(connection, ["true"], Binds=binds)
        connection.close()
    times: dict[str, list[float]] = {runtime: [] for runtime in made}
    connection = Connection(stack.sockets["direct"])
    before_ms = cpu_ms(stack.pids["guard-plain"])
    for round_ in range(starts + 1):
        for runtime, container in made.items():
            begin = time.perf_counter_ns()
            status, answer = connection.ask(request("POST", f"/v1.41/containers/{container}/start"))
            took_ms = (time.perf_counter_ns() - begin) / 1e6
            if status != 204:
                raise SystemExit(f"bench: start under {runtime}: {answer[-300:]!r}")
            connection.ask(request("POST", f"/v1.41/containers/{container}/wait"))
            if round_:
                times[runtime].append(took_ms)
    connection.close()
    medians = {runtime: statistics.median(values) for runtime, values in times.items()}
    figures = {f"start_{runtime}_median_ms": median for runtime, median in medians.items()}
    figures["guard_ms_per_start"] = medians["ds01"] - medians["runc"]
    figures["guard_cpu_ms_per_start"] = (cpu_ms(stack.pids["guard-plain"]) - before_ms) / (starts + 1)
    figures["guard_start_ratio_to_runc"] = medians["ds01"] / medians["runc"]
    return figures


def create(connection: Connection, command: list[str], **host_config: object) -> str:
    """A container without network. Returns: its id."""
    host_config |= _HOST_CONFIG
    body = json.dumps({"Image": IMAGE, "Cmd": command, "HostConfig": host_config}).encode()
    status, answer = connection.ask(request("POST", "/v1.41/containers/create", body))
    if status != 201:
        raise SystemExit(f"bench: create: {answer[-300:]!r}")
    identifier: str = json.loads(answer.partition(b"\r\n\r\n")[2])["Id"]
    return identifier


def fill(stack: Stack, count: int) -> None:
    """Create containers on both engines, through ds01, so that all variants list as many."""

    def some(path: Path, number: int) -> None:
        connection = Connection(path)
        for _ in range(number):
            create(connection, ["true"])
        connection.close()

    with ThreadPoolExecutor(4) as workers:
        parts = [count // 2, count - count // 2]
        jobs = [
            workers.submit(some, stack.sockets[name], part) for name in ("ds01", "plugin") for part in parts
        ]
    for job in jobs:
        job.result()


def logs(stack: Stack, *, rounds: int) -> Figures:
    """Logs of a finished container that printed 61 MiB in long lines."""
    script = f'l=$(printf "%0{_LOG_LINE_BYTES}d" 0); i=0; while [ $i -lt {_LOG_LINES} ]; do echo $l; i=$((i+1)); done'
    made = _prepared(stack, ["/bin/busybox", "sh", "-c", script])
    return _throughput(
        "logs", stack, made, lambda one: f"/v1.41/containers/{one}/logs?stdout=1", rounds=rounds
    )


def archive(stack: Stack, *, mebibytes: int, rounds: int) -> Figures:
    """A file out of a container, as `docker cp` takes it."""
    made = _prepared(stack, ["/bin/busybox", "dd", "if=/dev/zero", "of=/big", "bs=1M", f"count={mebibytes}"])
    target: Callable[[str], str] = lambda one: f"/v1.41/containers/{one}/archive?path=/big"  # noqa: E731  one of two
    return _throughput("archive", stack, made, target, rounds=rounds)


def _prepared(stack: Stack, command: list[str]) -> dict[str, str]:
    """A container that has run, on each engine. Returns: its id by variant."""
    made: dict[str, str] = {}
    for name in ("ds01", "plugin"):
        connection = Connection(stack.sockets[name])
        made[name] = create(connection, command)
        for call in ("start", "wait"):
            connection.ask(request("POST", f"/v1.41/containers/{made[name]}/{call}"))
        connection.close()
    return made | {"direct": made["ds01"], "haproxy": made["ds01"]}


def _throughput(
    name: str, stack: Stack, made: dict[str, str], target: Callable[[str], str], *, rounds: int
) -> Figures:
    rates: dict[str, list[float]] = {variant: [] for variant in stack.sockets}
    for round_ in range(rounds + 1):
        for variant, path in stack.sockets.items():
            connection = Connection(path)
            begin = time.perf_counter()
            size = connection.count(request("GET", target(made[variant])))
            took = time.perf_counter() - begin
            connection.close()
            if size < MIB:
                raise SystemExit(f"bench: {name} through {variant} gave {size} bytes")
            if round_:
                rates[variant].append(size / MIB / took)
    medians = {variant: statistics.median(values) for variant, values in rates.items()}
    figures = {f"{name}_{variant}_mib_per_second": rate for variant, rate in medians.items()}
    figures[f"{name}_ratio_ds01_to_direct"] = medians["ds01"] / medians["direct"]
    return figures


def concurrent(stack: Stack, *, clients: int, requests_each: int) -> Figures:
    """Many clients at once, each with one request under way."""
    figures: Figures = {}
    data = request("GET", "/_ping")
    for name, path in stack.sockets.items():
        begin = time.perf_counter()
        times = asyncio.run(_crowd(path, data, clients, requests_each))
        took = time.perf_counter() - begin
        figures[f"crowd_{name}_requests_per_second"] = clients * requests_each / took
        measured = summary(times)
        figures[f"crowd_{name}_median_us"] = measured.median_us
        figures[f"crowd_{name}_p99_us"] = measured.p99_us
    return figures


async def _crowd(path: Path, data: bytes, clients: int, requests_each: int) -> list[float]:
    times: list[float] = []

    async def one() -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        for _ in range(requests_each):
            begin = time.perf_counter_ns()
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"bench: the crowd was refused: {head!r} {await reader.read(300)!r}")
            await reader.readexactly(2)
            times.append((time.perf_counter_ns() - begin) / 1000)
        writer.close()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(clients):
            tasks.create_task(one())
    return times


def idle_memory(stack: Stack, *, connections: int) -> Figures:
    """Resident growth of the proxies for connections that have asked once and stay."""
    figures: Figures = {}
    for name in ("haproxy", "ds01"):
        before = resident_kib(stack.pids[name])
        with contextlib.ExitStack() as held:
            for _ in range(connections):
                connection = Connection(stack.sockets[name])
                held.callback(connection.close)
                connection.ask(request("GET", "/_ping"))
            grown = resident_kib(stack.pids[name]) - before
        figures[f"idle_{name}_kib_per_connection"] = grown / connections
    return figures
