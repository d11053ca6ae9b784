"""Exec in a container that ds01 did not make: only in the very run of it that was looked at when it was adopted.

At every start dockerd resolves bind sources anew, as root, and for such a container no guard is asked: what was the owner's
own directory may be a link to anywhere by now. Whoever runs a program in it can end its first process, and so have a restart
policy start it.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from policy.dockerapi.model import Operation
from policy.model import ContainerId
from socket_proxy.adoptions import Adoptions
from socket_proxy.engine import Engine
from socket_proxy.refusals import Refusal
from socket_proxy.transaction import Handler, Transaction


class _State(msgspec.Struct):
    StartedAt: str = ""


class _Inspected(msgspec.Struct):
    State: _State


class AdoptedExecs:
    """Handlers by operation, around those of every exec.

    INVARIANT: both making and starting one is looked at. A restart in between ends the exec that was made before it.
    """

    def __init__(self, *, engine: Engine, adoptions: Adoptions, inner: Mapping[Operation, Handler]) -> None:
        self._engine = engine
        self._adoptions = adoptions
        self.by_operation: dict[Operation, Handler] = {
            operation: self._looked_at(handler) for operation, handler in inner.items()
        }

    def _looked_at(self, handler: Handler) -> Handler:
        async def handle(transaction: Transaction) -> Refusal | None:
            refusal = await self._refusal(transaction)
            return await handler(transaction) if refusal is None else refusal

        return handle

    async def _refusal(self, transaction: Transaction) -> Refusal | None:
        """Raises: EngineError, UpstreamUnavailable, UpstreamLost, msgspec.DecodeError: it cannot be told."""
        for fact in transaction.facts.objects.values():
            if fact is None or fact.adopted is None or transaction.everything:
                continue
            if not await self._runs_as_adopted(fact.container or ContainerId(fact.id)):
                return Refusal(status=403, message=_REASON, rules=("adopted",))
        return None

    async def _runs_as_adopted(self, container: ContainerId) -> bool:
        adoption = self._adoptions.of(container)
        answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container})
        started = msgspec.json.decode(answer, type=_Inspected).State.StartedAt
        return adoption is not None and bool(started) and started == adoption.started


_REASON = (
    "ds01: exec in this container is not permitted: it was made before ds01, and has been started again since an admin gave it "
    "to you (rule adopted); ask the admin to adopt it again, or docker commit it and create a container of that image"
)
