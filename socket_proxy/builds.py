"""BuildKit: the connections to /grpc and /session, mediated call by call, or passed as they are where policy says so."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from buildkit.framing import BadMessage
from buildkit.mediation import Mediation
from buildkit.ports import Failed
from buildkit.relay import Relay
from buildkit.seen import SeenContent
from buildkit.session import Session
from buildkit.status import Code, Status
from buildkit.uploads import Uploads
from host.cgroups import Bounds, bound
from http1.duplex import Duplex
from http1.errors import ClientGone
from http1.writer import JSON, forwardable
from observability import events
from observability.logging import log
from policy.buildkit.model import Builder
from policy.compile import Policy
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.grants import Builds as BuildsGrant
from policy.model import EngineFacts, RequestId
from policy.ownership import build_cgroup
from policy.rules.buildkit import SERVICES, can_be_confined
from socket_proxy.answers import Answers
from socket_proxy.build_images import BuildImages
from socket_proxy.build_prune import prune_own
from socket_proxy.build_tags import BuildTags
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners
from socket_proxy.image_tags import Tags
from socket_proxy.query_builds import QueryBuilds
from socket_proxy.refusals import Refusal, Unavailable, of_error
from socket_proxy.trail import Trail
from socket_proxy.transaction import Handler, Transaction


class Builds:
    """Handlers by operation."""

    def __init__(
        self,
        *,
        engine: Engine,
        answers: Answers,
        policy: Callable[[], Policy],
        engine_facts: EngineFacts,
        facts: FactSource,
        owners: ImageOwners,
        tags: Tags,
        trail: Trail,
    ) -> None:
        self._engine = engine
        self._answers = answers
        self._policy = policy
        self._engine_facts = engine_facts
        self._facts = facts
        self._owners = owners
        self._tags = tags
        self._trail = trail
        self._seen = SeenContent()
        self._uploads = Uploads()
        self._by_query = QueryBuilds(
            engine=engine, answers=answers, uploads=self._uploads, mediation=self._mediation
        )
        self.by_operation: dict[Operation, Handler] = {
            Operation.GRPC: self.grpc,
            Operation.SESSION: self.session,
            Operation.BUILD_CANCEL: self._unless_opaque(self._by_query.cancel),
            Operation.BUILD_PRUNE: self.prune,
        }
        self.by_query = self._unless_opaque(self._by_query.build)

    async def grpc(self, transaction: Transaction) -> Refusal | None:
        """Join the two connections with the mediation between them, until either ends."""
        judge = self._mediation(transaction)
        return await self._between(
            transaction,
            lambda client, engine: Relay(client=client, engine=engine, judge=judge, failed=_failed),
        )

    async def session(self, transaction: Transaction) -> Refusal | None:
        """Join the two connections, with each call of dockerd's looked at."""
        uid = transaction.actor.uid
        return await self._between(
            transaction,
            lambda client, engine: Session(
                client=client,
                engine=engine,
                services=SERVICES,
                upload=lambda path: self._uploads.at(uid, path),
            ),
        )

    async def prune(self, transaction: Transaction) -> Refusal | None:
        """The build cache is one for all: admins prune it, users what of it is known to be theirs."""
        if transaction.everything:
            return await self._answers.relay(transaction)
        removed: list[str] = []
        reclaimed_bytes = 0
        if can_be_confined(self._engine_facts.version):  # else BuildKit has built nothing for users
            removed, reclaimed_bytes = await prune_own(self._engine, transaction)
        body = responses.build_prune(removed, reclaimed_bytes=reclaimed_bytes)
        await transaction.exchange.respond(200, JSON, body)
        return None

    async def _between(
        self, transaction: Transaction, join: Callable[[Duplex, Duplex], Relay | Session]
    ) -> Refusal | None:
        """Upgrade both connections; where policy says so, only bytes pass between them."""
        if self._is_opaque(transaction):
            return await self._answers.hijack(transaction)
        response = await self._answers.send(transaction)
        if not response.raw:
            return await self._answers.relay_response(transaction, response)
        engine = response.hijack()
        try:
            client = transaction.exchange.hijack(
                response.head.status, forwardable(response.head.headers), upgrade=transaction.request.upgrade
            )
        except ClientGone:
            engine.abort()
            raise
        await join(client, engine).run()
        return None

    def _is_opaque(self, transaction: Transaction) -> bool:
        return self._policy().for_actor(transaction.actor).builds is BuildsGrant.OPAQUE

    def _unless_opaque(self, handler: Handler) -> Handler:
        async def handle(transaction: Transaction) -> Refusal | None:
            if self._is_opaque(transaction):
                return await self._answers.relay(transaction)
            return await handler(transaction)

        return handle

    def _mediation(self, transaction: Transaction) -> Mediation:
        tags = BuildTags(
            actor=transaction.actor,
            everything=transaction.everything,
            policy=self._policy,
            facts=self._facts,
            owners=self._owners,
            tags=self._tags,
        )
        return Mediation(
            builder=lambda: self._builder(transaction),
            confine=_confine,
            images=BuildImages(
                engine=self._engine,
                sees=lambda: self._answers.sees(transaction),
                names=lambda: self._answers.names(transaction),
            ),
            tags=tags,
            trail=CallTrail(self._trail, transaction),
            seen=self._seen,
        )

    def _builder(self, transaction: Transaction) -> Builder:
        actor = transaction.actor
        return Builder(
            actor=actor,
            grants=self._policy().for_actor(actor),
            cgroup_parent=build_cgroup(actor.uid, self._engine_facts.cgroup_driver),
        )


class CallTrail:
    """A `buildkit.ports.Trail`: each decided call is on record like a request, under the number of its connection."""

    def __init__(self, trail: Trail, transaction: Transaction) -> None:
        self._trail = trail
        self._transaction = transaction

    def allowed(self, path: str, detail: dict[str, object]) -> None:
        """Record before it is sent. Raises: AuditUnavailable."""
        actor = self._transaction.actor
        self._trail.note(
            {
                "event": "build_call",
                "request_id": self._transaction.request_id,
                "actor": actor.name,
                "uid": actor.uid,
                "door": actor.door,
                "call": path,
                "decision": "allow",
                **detail,
            }
        )

    def refused(self, path: str, status: int, message: str, rules: tuple[str, ...]) -> RequestId:
        number = RequestId(secrets.token_hex(6))
        self._trail.refused(
            self._transaction.actor,
            number,
            Refusal(status=status, message=message, rules=rules),
            method="POST",
            target=path,
            request=None,
        )
        return number


async def _confine(builder: Builder) -> None:
    """Give all RUNs of the user together the limits of one container: BuildKit sets none itself. Raises: Unavailable."""
    limits = builder.grants.limits
    bounds = Bounds(memory_bytes=limits.memory_bytes, cpu_millis=limits.cpu_millis, pids=limits.pids)
    try:
        await asyncio.to_thread(bound, builder.cgroup_parent, bounds)
    except OSError as error:
        raise Unavailable(
            f"the limits of builds cannot be set ({error.strerror}), so nothing is built; tell the admin, or use DOCKER_BUILDKIT=0"
        ) from error


def _failed(path: str, error: Exception) -> Status:
    """How a call ends that could not be decided, told apart by who can do something about it."""
    if isinstance(error, BadMessage):
        return Status(code=Code.INVALID_ARGUMENT, message=f"ds01: {error} (rule buildkit)")
    if isinstance(error, Failed):
        return Status(code=Code.UNAVAILABLE, message=f"ds01: the engine did not answer: {error}")
    number = RequestId(secrets.token_hex(6))
    refusal = of_error(error, number)
    if refusal.status in (500, 502):
        log(
            events.REQUEST_FAILED,
            request_id=number,
            uid=None,
            operation=path,
            problem=repr(error),
            exc_info=error,
        )
    code = Code.INTERNAL if refusal.status in (500, 502) else Code.UNAVAILABLE
    return Status(code=code, message=refusal.message)
