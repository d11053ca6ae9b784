"""Four leased GPUs, five hundred creates at once, daemons that die at random: no device ever has two holders."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException

import pytest

from lab import simulate
from lab.unix_http import Reply
from tests.integration.conftest import PREFIX, Lab, engine_opened, eventually, running_lab
from tests.integration.holders import Holders, devices_of
from tests.integration.test_chaos import (
    _assert_one_holder_each,
    _call,
    _containers,
    _id,
    _leases,
    _message,
    _policy,
    _remove,
)

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(400)]
AT_ONCE, ROUNDS, KILLS = 500, 2, 8
GPUS = 4
GRANTED, STARTED, MOST_SECONDS = (
    4 * GPUS,
    2 * GPUS,
    120,
)  # it lasts until so many were, if that takes more creates


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """Both users may hold all four, so they compete."""
    with running_lab(f"{PREFIX}-sto", f"{PREFIX}-stp", "--gpus", f"{GPUS}xa100-40") as running:
        _policy(running, f"limits: {{gpus: {GPUS}, containers: 1000, connections: 400}}")
        yield running


class Repeated:
    """Does `once` again and again while the body runs; daemons that are being killed may spoil it."""

    def __init__(self, once: Callable[[], None], *, seconds: float) -> None:
        self._once = once
        self._seconds = seconds
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            with suppress(OSError, HTTPException, ValueError, TypeError):
                self._once()


def _remove_one(lab: Lab, seed: random.Random) -> None:
    """Remove any container of either user, so that its GPU can be had again."""
    user = seed.choice((lab.alice, lab.bob))
    listed = _call(lab, user, "GET", "/containers/json?all=1")
    found = json.loads(listed.body) if listed is not None and listed.status == 200 else []
    if found:
        _remove(lab, user, seed.choice(found)["Id"])


def _asked(lab: Lab, number: int) -> Reply | None:
    """One create that wants a GPU; every third one waits for it."""
    labels = {"ds01.wait": "2s"} if number % 3 == 0 else {}
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "Labels": labels,
        "HostConfig": {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]]}]},
    }
    return _call(lab, (lab.alice, lab.bob)[number % 2], "POST", "/containers/create", body)


def test_five_hundred_creates_never_share_a_gpu(own: Lab) -> None:
    """Whoever gets one holds it alone until its container is removed, started or not; the others are told why not."""
    seed = random.Random(4)
    asked = AT_ONCE * ROUNDS
    moments = {
        number: ("proxy", "allocator")[place % 2]
        for place, number in enumerate(seed.sample(range(20, asked - 20), KILLS))
    }
    together = threading.Barrier(AT_ONCE)
    answers: list[Reply] = []
    started: list[str] = []

    def work(number: int) -> None:
        if number < AT_ONCE:
            together.wait(60)
        if number in moments:
            own.kill(moments[number])
        made = _asked(own, number)
        if made is not None:
            answers.append(made)
        if made is not None and made.status == 201 and int(_id(made), 16) % 3:
            user = (own.alice, own.bob)[number % 2]
            begun = _call(own, user, "POST", f"/containers/{_id(made)}/start")
            started.extend([_id(made)] if begun is not None and begun.status == 204 else [])
        time.sleep(0.5)  # as somebody who tries again

    def enough() -> bool:
        granted = sum(reply.status == 201 for reply in answers)
        return granted >= GRANTED and len(started) >= STARTED and holders.looked_at >= GRANTED

    with (
        engine_opened(own, "who holds which GPU") as engine,
        Holders(engine, own.root / "run" / "allocator.sock") as holders,
    ):
        first = [_asked(own, number) for number in range(GPUS)]
        assert [reply and reply.status for reply in first] == [201] * GPUS, first
        with (
            Repeated(lambda: _remove_one(own, seed), seconds=0.1),
            ThreadPoolExecutor(max_workers=AT_ONCE) as pool,
        ):
            until = time.monotonic() + MOST_SECONDS
            list(pool.map(work, range(asked)))
            while not enough() and time.monotonic() < until:
                list(pool.map(work, range(asked, asked + 100)))
    counted = Counter(reply.status for reply in answers)
    assert holders.doubles() == []
    assert enough(), (counted, len(started), holders.looked_at)
    assert holders.most_at_once() == GPUS, "it did not begin with all four held"
    assert len(answers) >= AT_ONCE, counted
    assert set(counted) <= {201, 409, 503}, counted
    for reply in answers:
        if reply.status == 409:
            assert "(rule gpu_l" in _message(reply)
    assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=30)
    _assert_one_holder_each(own)
    held = [device for container in _containers(own) for device in devices_of(container)]
    assert len(held) == len(set(held)) <= GPUS
    own.clean()
    assert eventually(lambda: _leases(own) == [], seconds=60, pause_seconds=1), _leases(own)


def test_two_holders_would_be_seen(clean: Lab) -> None:
    """Two containers that root gives one GPU past ds01, for a moment: what the test above looks with tells of it."""
    with engine_opened(clean, "two holders") as engine:
        flags = ("--runtime", "runc", "--network", "none", "--gpus", f"device={simulate.gpu_uuid(0)}")
        with Holders(engine, clean.root / "run" / "allocator.sock") as holders:
            for name in ("first", "second"):
                clean.run(
                    "root", "docker", "create", "--name", name, *flags, "busybox", host=f"unix://{engine}"
                )
            clean.run("root", "docker", "rm", "first", "second", host=f"unix://{engine}")
        assert len(holders.doubles()) == 1
        with Holders(engine, clean.root / "run" / "allocator.sock") as holders:
            for name in ("first", "second"):
                clean.run(
                    "root", "docker", "create", "--name", name, *flags, "busybox", host=f"unix://{engine}"
                )
                clean.run("root", "docker", "rm", name, host=f"unix://{engine}")
        assert (holders.doubles(), holders.most_at_once()) == ([], 1)
