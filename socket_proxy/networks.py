"""The network that a user's containers are on when they name none: one bridge a user, made when it is first needed.

On the engine's own bridge the containers of all users are neighbours; here only one's own are (ADR 0014).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import msgspec

from policy.dockerapi.model import Operation
from policy.model import Actor, JoinOwnNetwork, Json, Kind, RequestId, Uid
from socket_proxy.engine import Engine
from socket_proxy.index import Entry, Index
from socket_proxy.refusals import EngineError, Refusal
from socket_proxy.seal import Sealer


class _Created(msgspec.Struct):
    Id: str


class OwnNetworks:
    """Finds or makes default networks; one for the whole proxy."""

    def __init__(self, *, engine: Engine, index: Index, sealer: Sealer) -> None:
        self._engine = engine
        self._index = index
        self._sealer = sealer
        self._making: defaultdict[Uid, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, actor: Actor, wanted: JoinOwnNetwork, request_id: RequestId) -> str | Refusal:
        """The full id of the actor's default network.

        Raises: UpstreamUnavailable, UpstreamLost.
        """
        async with self._making[actor.uid]:
            known = self._known(actor.uid, wanted.name)
            return known or await self._make(actor, wanted.name, request_id)

    def _known(self, uid: Uid, name: str) -> str | None:
        return next((entry.id for entry in self._index.owned(Kind.NETWORK, uid) if entry.name == name), None)

    async def _make(self, actor: Actor, name: str, request_id: RequestId) -> str | Refusal:
        labels = self._sealer.labels(actor, lease=None, request_id=request_id)
        body: dict[str, Json] = {
            "Name": name,
            "CheckDuplicate": True,
            "Driver": "bridge",
            "Labels": {**labels},
        }
        try:
            answer = await self._engine.ask(Operation.NETWORK_CREATE, body=body, uid=actor.uid)
        except EngineError as error:
            return _not_made(error)
        network = msgspec.json.decode(answer, type=_Created)
        self._index.put(Entry(kind=Kind.NETWORK, id=network.Id, name=name, owner=actor.uid))
        return network.Id


def _not_made(error: EngineError) -> Refusal:
    """Without the engine's own words, which can name others' networks."""
    exhausted = b"address pool" in error.body
    why = (
        "the engine has no address range left" if exhausted else f"the engine refused it, HTTP {error.status}"
    )
    step = "set default-address-pools in its daemon.json" if exhausted else "look at the engine's log"
    return Refusal(
        status=503,
        message=f"ds01: your default network cannot be made: {why} (rule network_mode); tell the admin to {step}, "
        "or use --network none",
        rules=("network_mode",),
    )
