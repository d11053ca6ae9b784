"""Bind sources at start and copy, looked at again under today's policy; a missing directory is made, as its owner.

It tells the user early and in words. What is mounted in the end is looked at and held by the guard (`runtime.service`); on
an engine without it this only narrows the race between look and mount (docs/threat-model.md).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from policy.compile import Policy
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.sources import without_stand_ins
from policy.evaluate import evaluate
from policy.model import CheckBind, ContainerId, Effect, Facts, Json, Usage
from policy.stand_ins import StandIns
from socket_proxy.engine import Engine
from socket_proxy.fulfil import look_at
from socket_proxy.refusals import Refusal, of_decision
from socket_proxy.transaction import Transaction

_REMEMBERED = 16384


class _HostConfig(msgspec.Struct):
    Binds: list[str] | None = None
    Mounts: list[dict[str, Any]] | None = None
    VolumesFrom: list[str] | None = None


class _MountPoint(msgspec.Struct):
    Type: str = ""
    Source: str = ""
    Destination: str = ""
    RW: bool = True


class _Inspected(msgspec.Struct):
    HostConfig: _HostConfig
    Mounts: list[_MountPoint] = []


class Binds:
    """What each container mounts from the host."""

    def __init__(
        self, *, engine: Engine, policy: Callable[[], Policy], stand_ins: StandIns | None = None
    ) -> None:
        """`stand_ins`: what dockerd knows host paths by, if not by themselves."""
        self._engine = engine
        self._stand_ins = stand_ins
        self._policy = policy
        self._approved: OrderedDict[ContainerId, tuple[CheckBind, ...]] = OrderedDict()

    def remember(self, container: ContainerId, binds: tuple[CheckBind, ...]) -> None:
        """Keep what a create let through."""
        self._approved[container] = binds
        if len(self._approved) > _REMEMBERED:
            self._approved.popitem(last=False)

    def targets(self, container: ContainerId) -> tuple[str, ...]:
        """Where the host paths of a container that was looked at are mounted in it."""
        return tuple(bind.target for bind in self._approved.get(container, ()))

    def forget(self, container: ContainerId) -> None:
        self._approved.pop(container, None)

    async def recheck(self, transaction: Transaction, container: ContainerId) -> Refusal | None:
        """Look at every bind source of `container` again, as its owner."""
        binds: tuple[CheckBind, ...] | Refusal | None = self._approved.get(container)
        if binds is None:
            binds = await self._judge_again(transaction, container)
        if isinstance(binds, Refusal):
            return binds
        self.remember(container, binds)
        for bind in binds:
            seen = await look_at(transaction.actor, bind)
            if isinstance(seen, Refusal):
                return seen
            if seen.source != bind.source:
                return _moved(bind, seen)
        return None

    async def _judge_again(
        self, transaction: Transaction, container: ContainerId
    ) -> tuple[CheckBind, ...] | Refusal:
        """A container from before this process, or with mounts of another: they go through today's rules, as in a create."""
        answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container})
        inspected = msgspec.json.decode(answer, type=_Inspected)
        host = inspected.HostConfig
        mounts: list[Json] = [*(host.Mounts or ()), *(_inherited(inspected) if host.VolumesFrom else ())]
        body: dict[str, Json] = {"HostConfig": {"Binds": [*(host.Binds or ())], "Mounts": mounts}}
        create = Request(operation=Operation.CONTAINER_CREATE, version=self._engine.version, body=body)
        if self._stand_ins is not None:
            create = without_stand_ins(create, self._stand_ins)
        # No container is made here, so how many there are has no bearing.
        facts = Facts(engine=transaction.facts.engine, usage=Usage(containers=0))
        decision = evaluate(self._policy(), transaction.actor, create, facts)
        if decision.effect is not Effect.ALLOW:
            return of_decision(decision, transaction.request, transaction.request_id)
        return tuple(item for item in decision.obligations if isinstance(item, CheckBind))


def _inherited(inspected: _Inspected) -> list[Json]:
    """Every host path that dockerd will mount: what came by VolumesFrom stands nowhere else.

    What is missing of these is made, whatever the first container said. SOURCE: moby daemon/volumes.go, registerMountPoints.
    """
    made: dict[str, Json] = {"CreateMountpoint": True}
    return [
        {
            "Type": "bind",
            "Source": point.Source,
            "Target": point.Destination,
            "ReadOnly": not point.RW,
            "BindOptions": made,
        }
        for point in inspected.Mounts
        if point.Type == "bind"
    ]


def _moved(bind: CheckBind, now: CheckBind) -> Refusal:
    return Refusal(
        status=403,
        message=f"ds01: {bind.field}={bind.source} is not permitted: it leads to {now.source} now (rule bind_mounts); "
        "create the container again with the path it should have",
        rules=("bind_mounts",),
    )
