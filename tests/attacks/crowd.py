"""What a third user notices while two hostile ones send a thousand requests at once: `docker ps`, against its quiet latency.

The hostile clients run at the lowest priority, in processes of their own: what is measured is how ds01 shares itself out, and
not how the machine shares its processors among programs.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pwd
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from tests.attacks.world import API
from tests.fakes.raw_socket import request
from tests.integration.conftest import Lab

REQUESTS_AT_ONCE = 1000
_ROUNDS = 5
_RUNS = 12  # of `docker ps`, quiet and loud, in each round
_WARM_UP_SECONDS = 1.0
_BODY = {
    "Image": "busybox",
    "Cmd": ["true"],
    "Env": ["X=" + "x" * 60_000],
    "HostConfig": {"Privileged": True},
}
_KINDS = {
    "lists": (request("GET", f"{API}/containers/json?all=1"), request("GET", f"{API}/images/json?all=1")),
    "creates": (
        request("POST", f"{API}/containers/create", _BODY),
        request("GET", f"{API}/containers/none/json"),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds of each `docker ps`, and how many hostile requests were answered and turned away in that time."""

    quiet: list[float]
    loud: list[float]
    answered: int
    turned_away: int

    @property
    def ratio(self) -> float:
        return statistics.median(self.loud) / statistics.median(self.quiet)


def measure(lab: Lab, third: str) -> Measured:
    """Alternate quiet and loud rounds."""
    quiet: list[float] = []
    loud: list[float] = []
    counts = multiprocessing.get_context("fork").Array("q", 2)
    for _ in range(_ROUNDS):
        quiet += [_ps_seconds(lab, third) for _ in range(_RUNS)]
        with _hostile(lab, counts):
            time.sleep(_WARM_UP_SECONDS)
            loud += [_ps_seconds(lab, third) for _ in range(_RUNS)]
        time.sleep(_WARM_UP_SECONDS)
    return Measured(quiet=quiet, loud=loud, answered=counts[0], turned_away=counts[1])


def _ps_seconds(lab: Lab, user: str) -> float:
    started = time.perf_counter()
    done = lab.docker(user, "ps")
    assert done.status == 0, done.err
    return time.perf_counter() - started


@contextmanager
def _hostile(lab: Lab, counts: Any) -> Iterator[None]:
    """Two users' processes, each with half of the requests, for as long as the body runs."""
    context = multiprocessing.get_context("fork")
    ended = context.Event()
    processes = [
        context.Process(
            target=_attack,
            args=(lab.root / "run/users" / user / "docker.sock", user, kind, ended, counts),
            daemon=True,
        )
        for user, kind in ((lab.alice, "lists"), (lab.bob, "creates"))
    ]
    for process in processes:
        process.start()
    try:
        yield
    finally:
        ended.set()
        for process in processes:
            process.join(10)
            process.kill()


def _attack(path: Path, user: str, kind: str, ended: Event, counts: Any) -> None:
    account = pwd.getpwnam(user)
    os.setgid(account.pw_gid)
    os.setuid(account.pw_uid)
    os.nice(19)
    asyncio.run(_flood(path, kind, ended, counts))


async def _flood(path: Path, kind: str, ended: Event, counts: Any) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(REQUESTS_AT_ONCE // 2):
            data = _KINDS[kind][number % 2]
            group.create_task(_again_and_again(path, data, ended, counts))


async def _again_and_again(path: Path, data: bytes, ended: Event, counts: Any) -> None:
    """One of the requests: as soon as it is answered, or turned away, it is there again."""
    while not ended.is_set():
        with suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                writer.write(data)
                head = await reader.readuntil(b"\r\n\r\n")
                counts[1 if head.startswith(b"HTTP/1.1 503") else 0] += 1
            finally:
                writer.close()


def run(lab: Lab, third: str) -> int:
    """Measure and print. Returns: the exit status, 1 above twice the quiet latency."""
    found = measure(lab, third)
    print(f"crowd_quiet_ms: {statistics.median(found.quiet) * 1000:.1f}")
    print(f"crowd_loud_ms: {statistics.median(found.loud) * 1000:.1f}")
    print(f"crowd_answered: {found.answered}")
    print(f"crowd_turned_away: {found.turned_away}")
    print(f"crowd_latency_ratio: {found.ratio:.2f}")
    return 0 if found.ratio < 2 else 1
