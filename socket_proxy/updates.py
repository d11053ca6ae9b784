"""ContainerUpdate: asked of dockerd in a form that this container can be given, and answered with what ds01 changed."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from http1.writer import forwardable
from policy.cpus import in_form_of
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.fields import as_int
from socket_proxy.answers import ANSWER_BYTES, Answers
from socket_proxy.engine import Engine
from socket_proxy.refusals import EngineError, Refusal
from socket_proxy.transaction import Handler, Transaction


class _HostConfig(msgspec.Struct):
    NanoCpus: int = 0
    CpuPeriod: int = 0
    CpuQuota: int = 0


class _Inspected(msgspec.Struct):
    HostConfig: _HostConfig


class Updates:
    """Handlers by operation."""

    def __init__(self, *, engine: Engine, answers: Answers) -> None:
        self._engine = engine
        self._answers = answers
        self.by_operation: dict[Operation, Handler] = {Operation.CONTAINER_UPDATE: self.update}

    async def update(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(await self._in_its_form(transaction))
        if response.head.status != 200:
            return await self._answers.error(transaction, response)
        answer = responses.container_update(
            await response.read(ANSWER_BYTES),
            self._answers.sees(transaction),
            warnings=transaction.notes,
            names=self._answers.names(transaction),
        )
        await transaction.exchange.respond(200, forwardable(response.head.headers), answer)
        return None

    async def _in_its_form(self, transaction: Transaction) -> Transaction:
        """CPUs as the container has them; what it is, dockerd says. Another update in between makes a conflict, as ever."""
        request = transaction.request
        asked = request.body or {}
        if not any(as_int(asked.get(name)) for name in ("NanoCpus", "CpuQuota")):
            return transaction
        try:
            answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params=dict(request.params))
        except EngineError:
            return transaction  # removed in between: the update says so
        has = msgspec.json.decode(answer, type=_Inspected).HostConfig
        body = in_form_of(asked, msgspec.structs.asdict(has))
        return replace(transaction, request=replace(request, body=body))
