"""When the audit line of a request is written: before its answer always, before dockerd unless it is a plain read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from http1.heads import RequestHead
from http1.limits import Limits
from observability.metrics import Metrics
from policy.build import build_policy
from policy.dockerapi.model import Outcome
from policy.model import Actor, EngineFacts, Facts, Gid, Uid
from socket_proxy.pipeline import Pipeline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from policy.dockerapi.model import Operation
    from socket_proxy.repeat import Reading
    from socket_proxy.transaction import Transaction

ENGINE = EngineFacts(
    engine_id="e" * 32,
    version="20.10.24",
    api_version=(1, 41),
    min_api_version=(1, 12),
    cgroup_driver="cgroupfs",
    cgroup_version=2,
    gpu_path="hook",
)
ALICE = Actor(uid=Uid(1001), gid=Gid(1001), name="alice")


class Exchange:
    """As much of an exchange as a handler that answers by itself needs."""

    responded = False

    def __init__(self, target: str) -> None:
        self.derived: Reading | None = None
        self.head = RequestHead(
            method="GET",
            target=target,
            headers=(("host", "d"),),
            content_length=None,
            chunked=False,
            upgrade=None,
            expect_continue=False,
            keep_alive=True,
        )


class World:
    """Facts, trail and handlers that note what happens when."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.seen: list[Transaction] = []

    async def gather(self, *_: object, **__: object) -> Facts:
        return Facts(engine=ENGINE)

    def allowed(self, *_: object) -> None:
        self.happened.append("recorded")

    def of(self, _operation: Operation) -> Callable[[Transaction], Awaitable[None]]:
        return self._send

    async def _send(self, transaction: Transaction) -> None:
        """dockerd answers at the first moment it can: in the next turn of the loop."""
        self.seen.append(transaction)
        self.happened.append("sent")
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        loop.call_soon(answer.set_result, None)
        await answer
        self.happened.append("answered")

    def pipeline(self) -> Pipeline:
        policy = build_policy({"policy.yaml": "version: 1\ndefaults: {role: user}\n"})
        this = cast("Any", self)
        return Pipeline(
            policy=lambda: policy,
            engine_facts=ENGINE,
            facts=this,
            fulfiller=this,
            handlers=this,
            trail=this,
            limits=Limits(),
            metrics=Metrics(operation_classes=Outcome, rules=()),
            gate_closed=lambda: None,
        )


@pytest.mark.parametrize(
    ("target", "order"),
    [
        ("/_ping", ["sent", "recorded", "answered"]),
        ("/v1.41/containers/json", ["sent", "recorded", "answered"]),
        ("/v1.41/events", ["recorded", "sent", "answered"]),
    ],
)
async def test_the_line_is_written_before_the_answer(target: str, order: list[str]) -> None:
    """A plain read is recorded while dockerd works on it, all else before dockerd hears of it."""
    world = World()
    await world.pipeline().handle(cast("Any", Exchange(target)), ALICE)
    assert world.happened == order


async def test_a_repeated_read_is_understood_once() -> None:
    """The second time the same canonical request is used, and may be sent in its written form."""
    world, exchange = World(), Exchange("/v1.41/containers/json")
    pipeline = world.pipeline()
    for _ in range(2):
        await pipeline.handle(cast("Any", exchange), ALICE)
    first, second = world.seen
    assert first.reading is None
    assert second.reading is not None
    assert second.request is first.request
