"""`docker cp`: dockerd mounts the container's host paths itself, as root, so they are looked at and pinned before.

What is uploaded is written anew on the way (ADR 0015).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import replace

from policy.dockerapi.archive import Destination
from policy.dockerapi.model import Operation
from policy.model import ContainerId
from socket_proxy.answers import Answers
from socket_proxy.approvals import Approvals
from socket_proxy.archives import filtered
from socket_proxy.binds import Binds
from socket_proxy.guard import GuardClient, Pinned
from socket_proxy.refusals import Refusal
from socket_proxy.transaction import Handler, Transaction

Through = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
Pins = AbstractAsyncContextManager[Pinned | None]


class Copies:
    """Handlers by operation."""

    def __init__(
        self, *, answers: Answers, binds: Binds, approvals: Approvals | None, guard: GuardClient
    ) -> None:
        """`approvals` is None on an engine without the guard: the sources are looked at, and dockerd looks again."""
        self._answers = answers
        self._binds = binds
        self._approvals = approvals
        self._guard = guard
        self.by_operation: dict[Operation, Handler] = {
            Operation.CONTAINER_ARCHIVE_INFO: self.download,
            Operation.CONTAINER_ARCHIVE: self.download,
            Operation.PUT_CONTAINER_ARCHIVE: self.upload,
        }

    async def download(self, transaction: Transaction) -> Refusal | None:
        """What leaves a container is read by its owner's own client, and passes as it is."""
        refusal = await self._binds.recheck(transaction, _container(transaction))
        return await self._copy(transaction) if refusal is None else refusal

    async def upload(self, transaction: Transaction) -> Refusal | None:
        """Dockerd extracts as root, so every member is made harmless on the way."""
        request, container = transaction.request, _container(transaction)
        refusal = await self._binds.recheck(transaction, container)
        if refusal is not None:
            return refusal
        destination = Destination(
            path=next(iter(request.query.get("path", ())), "/"),
            binds=self._binds.targets(container),
            uid=transaction.actor.uid,
            gid=transaction.actor.gid,
        )
        if destination.bound and "copyUIDGID" in request.query:
            # dockerd would give everything to the container's account, and here it is the owner's.
            query = {key: values for key, values in request.query.items() if key != "copyUIDGID"}
            transaction = replace(transaction, request=replace(request, query=query))
        return await self._copy(transaction, through=lambda upload: filtered(upload, destination))

    async def _copy(self, transaction: Transaction, *, through: Through | None = None) -> Refusal | None:
        """Send it while the sources are pinned: what dockerd mounts then is what the guard looked at."""
        pins = await self._pin(_container(transaction))
        if isinstance(pins, Refusal):
            return pins
        async with pins as pinned:
            response = await self._answers.send(transaction, through=through)
            if pinned is not None:
                pinned.check()
            return await self._answers.relay_response(transaction, response)

    async def _pin(self, container: ContainerId) -> Pins | Refusal:
        """SECURITY: a container from before stand-ins has none to pin; dockerd resolves its sources again."""
        if self._approvals is None or not self._approvals.host_paths(container).told:
            return nullcontext()
        return await self._guard.pin(container)


def _container(transaction: Transaction) -> ContainerId:
    return ContainerId(transaction.request.params["container"])
