"""Container operations that change who owns what: create, start, rename, remove, exec create."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from http1.errors import UpstreamLost, UpstreamUnavailable
from http1.writer import forwardable
from observability import events
from observability.logging import log
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.fields import as_object
from policy.model import ContainerId, Kind, LeaseId, Reference
from socket_proxy.adoptions import Adoptions
from socket_proxy.answers import ANSWER_BYTES, Answers
from socket_proxy.approvals import Approvals
from socket_proxy.binds import Binds
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners
from socket_proxy.index import Entry, Index
from socket_proxy.ports import Leaser, LeaseRefused
from socket_proxy.records import RecordsUnavailable
from socket_proxy.refusals import EngineError, Refusal, Unavailable
from socket_proxy.renames import take_alias
from socket_proxy.settle import Settlements
from socket_proxy.stand_ins import StandInStore
from socket_proxy.transaction import Handler, Transaction


class _Created(msgspec.Struct):
    Id: str
    Warnings: list[str] | None = None


class _Inspected(msgspec.Struct):
    Name: str
    Image: str


class Containers:
    """Handlers by operation."""

    def __init__(
        self,
        *,
        engine: Engine,
        index: Index,
        leaser: Leaser,
        answers: Answers,
        binds: Binds,
        settlements: Settlements,
        facts: FactSource,
        owners: ImageOwners,
        approvals: Approvals | None,
        stand_ins: StandInStore | None,
        adoptions: Adoptions,
    ) -> None:
        """`approvals` and `stand_ins` are None on an engine without the guard, where nobody would read or replace them."""
        self._engine = engine
        self._index = index
        self._leaser = leaser
        self._answers = answers
        self._binds = binds
        self._settlements = settlements
        self._facts = facts
        self._owners = owners
        self._approvals = approvals
        self._stand_ins = stand_ins
        self._adoptions = adoptions
        self.by_operation: dict[Operation, Handler] = {
            Operation.CONTAINER_CREATE: self.create,
            Operation.CONTAINER_START: self.start,
            Operation.CONTAINER_RESTART: self.start,
            Operation.CONTAINER_RENAME: self.rename,
            Operation.CONTAINER_DELETE: self.delete,
            Operation.CONTAINER_EXEC: self.exec_create,
        }

    async def create(self, transaction: Transaction) -> Refusal | None:
        """Send the create; confirm its lease when the container exists, release it when it does not.

        INVARIANT: a lease is released only when no container can carry it. Where that is not certain (the engine went
        away in between) it stays pending and `Settlements` finds out.
        """
        told = await self._told(transaction)
        if isinstance(told, Refusal):
            return told
        lease = transaction.fulfilled.lease
        try:
            response = await self._answers.send(told, outlives_client=True)
            body = await response.read(ANSWER_BYTES)
            created = msgspec.json.decode(body, type=_Created) if response.head.status == 201 else None
        except BaseException:
            if lease:
                self._settlements.later(lease)
            raise
        if created is None:
            if lease:
                await self.release(lease, "the engine refused the create")
            await self._answers.give_error(transaction, response, body)
            return None
        container = ContainerId(created.Id)
        await self._approve(transaction, container)
        self._created(transaction, container)
        if lease:
            await self._confirm(lease, container, transaction)
        moved = await self._look_at(transaction, container)
        if moved is not None:
            return moved
        answer = responses.container_create(
            body,
            self._answers.sees(transaction),
            warnings=transaction.notes,
            names=self._answers.names(transaction),
        )
        await transaction.exchange.respond(201, forwardable(response.head.headers), answer)
        return None

    async def _told(self, transaction: Transaction) -> Transaction | Refusal:
        """The create as dockerd is told it; where that fails, its lease is given back."""
        if self._stand_ins is None:
            return transaction
        told: Transaction | Refusal | None = None
        try:
            told = await self._stand_ins.put(transaction)
        finally:
            if not isinstance(told, Transaction) and transaction.fulfilled.lease:
                await self.release(transaction.fulfilled.lease, "the create was not sent")
        return told

    async def _approve(self, transaction: Transaction, container: ContainerId) -> None:
        """Record what the container may have of the host, or take it away again."""
        if self._approvals is None:
            return
        try:
            await self._approvals.record(transaction, container)
        except BaseException as error:
            if transaction.fulfilled.lease:
                self._settlements.later(transaction.fulfilled.lease)
            if not isinstance(error, OSError | ValueError):
                raise
            log(events.APPROVAL_FAILED, container=container, problem=str(error))
            await self._undo(container)
            raise Unavailable("what this container may have cannot be recorded; tell the admin") from error

    async def _undo(self, container: ContainerId) -> None:
        """Where this fails, what stays has no approval, and cannot start with anything of the host."""
        with suppress(EngineError, UpstreamLost, UpstreamUnavailable):
            await self._engine.ask(
                Operation.CONTAINER_DELETE,
                params={"container": container},
                query={"force": ("1",), "v": ("1",)},
            )

    def _created(self, transaction: Transaction, container: ContainerId) -> None:
        actor = transaction.actor
        name = next(iter(transaction.request.query.get("name", ())), "").removeprefix("/")
        self._index.put(
            Entry(
                kind=Kind.CONTAINER,
                id=container,
                name=name,
                owner=actor.uid,
                lease=transaction.fulfilled.lease,
                created_by=transaction.request_id,
            )
        )
        host = as_object((transaction.request.body or {}).get("HostConfig"))
        # SECURITY: mounts of another container were looked at in its own create, and stand in none of this one's fields.
        if not host.get("VolumesFrom"):
            self._binds.remember(container, transaction.fulfilled.binds)

    async def _look_at(self, transaction: Transaction, container: ContainerId) -> Refusal | None:
        """What dockerd made: the name it chose, and the image it took.

        SECURITY: a tag can be moved between decision and create. A container of an image that the actor may not read is
        removed again, and the answer is that of a name that is not there.
        """
        try:
            answer = await self._engine.ask(Operation.CONTAINER_INSPECT, params={"container": container})
        except EngineError:
            return None  # removed already: there is nothing to look at
        inspected = msgspec.json.decode(answer, type=_Inspected)
        self._index.rename(Kind.CONTAINER, container, inspected.Name.removeprefix("/"))
        text = str((transaction.asked.body or {}).get("Image", ""))
        fact = transaction.facts.objects.get(Reference(kind=Kind.IMAGE, text=text))
        if fact is not None and fact.id == inspected.Image:
            return None
        image = await self._facts.find_image(inspected.Image)
        if image is not None and self._owners.may_read(transaction.reader, image.Id, image.tags):
            return None
        await self._engine.ask(
            Operation.CONTAINER_DELETE, params={"container": container}, query={"force": ("1",), "v": ("1",)}
        )
        await self.forget(container)
        status, message = responses.not_found(Kind.IMAGE, text)
        return Refusal(status=status, message=message, rules=("ownership",))

    async def start(self, transaction: Transaction) -> Refusal | None:
        """Start and restart: dockerd resolves devices and bind sources now, so both are looked at again."""
        container = ContainerId(transaction.request.params["container"])
        try:
            refusal = await self._start_refusal(transaction, container)
        except BaseException:
            self._answers.detach(container)
            raise
        if refusal is not None:
            self._answers.detach(container)
            return refusal
        return await self._answers.relay(transaction)

    async def _start_refusal(self, transaction: Transaction, container: ContainerId) -> Refusal | None:
        entry = self._index.get(Kind.CONTAINER, container)
        if entry is not None and entry.lease is not None:
            refusal = await self._lease_refusal(entry.lease, container)
            if refusal is not None:
                return refusal
        return await self._binds.recheck(transaction, container)

    async def _lease_refusal(self, lease_id: LeaseId, container: ContainerId) -> Refusal | None:
        lease = await self._leaser.fetch(lease_id)
        if not isinstance(lease, LeaseRefused):
            if lease.state == "pending" and lease.container is None:
                # The create could not confirm it; its sealed label says that this container carries it.
                await self._leaser.confirm(lease_id, container)
            lease = await self._leaser.start(lease_id, container)
        if not isinstance(lease, LeaseRefused):
            return None
        if lease.status != 404:
            return Refusal(status=lease.status, message=lease.message, rules=("gpu_lease",))
        return Refusal(
            status=409,
            message=f"ds01: the GPU lease {lease_id} of this container has ended (rule gpu_lease); "
            "create the container again to get a new one",
            rules=("gpu_lease",),
        )

    async def rename(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status < 300:
            await self._renamed(transaction)
        return await self._answers.relay_response(transaction, response)

    async def _renamed(self, transaction: Transaction) -> None:
        """The index and DNS know the new name before the client starts the container by it."""
        container = transaction.request.params["container"]
        name = transaction.request.query["name"][0].removeprefix("/")
        self._index.rename(Kind.CONTAINER, container, name)
        entry = self._index.get(Kind.CONTAINER, container)
        try:
            if entry is not None:
                await take_alias(self._engine, self._index, entry)
        except (EngineError, UpstreamLost, UpstreamUnavailable, msgspec.DecodeError) as error:
            # The rename itself is done, so that is what the client is told.
            log(
                events.REQUEST_FAILED,
                request_id=transaction.request_id,
                uid=transaction.actor.uid,
                operation=transaction.request.operation,
                problem=f"a renamed container does not answer to its new name: {error}",
            )

    async def delete(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status == 204:
            await self.forget(transaction.request.params["container"])
        return await self._answers.relay_response(transaction, response)

    async def forget(self, container: str) -> None:
        """The container is gone: so are its entry and its lease."""
        entry = self._index.drop(Kind.CONTAINER, container)
        self._binds.forget(ContainerId(container))
        if self._approvals is not None:
            self._approvals.drop(ContainerId(container))
        with suppress(RecordsUnavailable):  # the next list of all containers ends it
            self._adoptions.end(ContainerId(container))
        if entry is not None and entry.lease is not None:
            await self.release(entry.lease, "container removed")

    async def exec_create(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status >= 300:
            return await self._answers.error(transaction, response)
        body = await response.read(ANSWER_BYTES)
        exec_id = msgspec.json.decode(body, type=_Created).Id
        self._index.remember_exec(exec_id, transaction.request.params["container"], transaction.actor.uid)
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), body)
        return None

    async def _confirm(self, lease: LeaseId, container: ContainerId, transaction: Transaction) -> None:
        try:
            await self._leaser.confirm(lease, container)
        except Unavailable as error:
            self._settlements.later(lease)
            log(events.LEASE_UNSETTLED, lease=lease, problem=str(error))
        except BaseException:
            self._settlements.later(lease)
            raise
        else:
            log(
                events.LEASE_GRANTED,
                lease=lease,
                uid=transaction.actor.uid,
                devices=list(transaction.fulfilled.devices),
            )

    async def release(self, lease: LeaseId, reason: str) -> None:
        """Give a lease back; if the allocator cannot be told now, later."""
        try:
            await self._leaser.release(lease, reason)
        except Unavailable as error:
            self._settlements.later(lease)
            log(events.LEASE_UNSETTLED, lease=lease, problem=str(error))
        except BaseException:
            self._settlements.later(lease)
            raise
        else:
            log(events.LEASE_RELEASED, lease=lease, uid=None, reason=reason)
