"""Answers about shared containers last no longer than the share: logs -f, exec and stats end with it, within seconds.

dockerd knows nothing of shares, and decides once; so whoever waits for an answer about another's container is looked at
again and again, by the same judgement that let the request in. So is who was given a container that ds01 did not make.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from http1.errors import ClientGone
from observability import events
from observability.audit import AuditUnavailable
from observability.logging import log
from policy.compile import Policy
from policy.model import ContainerId, Kind, Share, Uid
from policy.sharing import permits
from socket_proxy.container_shares import ContainerShares, Granted
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import Reader
from socket_proxy.index import Index
from socket_proxy.records import RecordsUnavailable
from socket_proxy.refusals import Refusal
from socket_proxy.shared_containers import SharedContainers
from socket_proxy.trail import Trail
from socket_proxy.transaction import Handler, Transaction

LOOK_SECONDS = 1.0


class Tethers:
    """Every answer that hangs on a share, and the clock that looks at them."""

    def __init__(
        self,
        *,
        shared: SharedContainers,
        granted: ContainerShares,
        index: Index,
        facts: FactSource,
        policy: Callable[[], Policy],
        trail: Trail,
    ) -> None:
        self._shared = shared
        self._granted = granted
        self._index = index
        self._facts = facts
        self._policy = policy
        self._trail = trail
        self._held: dict[asyncio.Timeout, Transaction] = {}

    def holding(self, handler: Handler) -> Handler:
        """The handler, ended when the share it depends on does."""

        async def handle(transaction: Transaction) -> Refusal | None:
            return (
                await self._hold(handler, transaction)
                if _shared_in(transaction) or _adopted_in(transaction)
                else await handler(transaction)
            )

        return handle

    async def _hold(self, handler: Handler, transaction: Transaction) -> Refusal | None:
        scope = asyncio.timeout(None)
        self._held[scope] = transaction
        try:
            async with scope:
                return await handler(transaction)
        except TimeoutError:
            if not scope.expired():
                raise
            if transaction.exchange.responded:
                raise ClientGone("the share has ended") from None
            return _ended()
        finally:
            del self._held[scope]

    async def run(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._shared.refresh(*self._shared.known(), *self._viewers())
                self.look()
                self._sweep()
            except Exception as error:  # noqa: BLE001  SECURITY: what cannot be looked at is not shared
                log(events.SHARE_UNSETTLED, problem=repr(error))
                self._cut(self._held)

    def _viewers(self) -> set[Uid]:
        return {transaction.actor.uid for transaction in self._held.values()}

    def look(self) -> None:
        """End what is no longer permitted."""
        self._cut(scope for scope, transaction in self._held.items() if not self._holds(transaction))

    def _cut(self, scopes: Iterable[asyncio.Timeout]) -> None:
        for scope in tuple(scopes):
            if not scope.expired():  # else it is on its way
                scope.reschedule(asyncio.get_running_loop().time())

    def _holds(self, transaction: Transaction) -> bool:
        reader = Reader.of(
            transaction.actor, groups=self._policy().for_actor(transaction.actor).groups, everything=False
        )
        return all(
            permits(self._shared.share(reader, container), transaction.request.operation)
            for container in _shared_in(transaction)
        ) and all(self._is_still(owner, container) for container, owner in _adopted_in(transaction))

    def _is_still(self, owner: Uid | None, container: ContainerId) -> bool:
        entry = self._index.seen(Kind.CONTAINER, container)
        return entry is not None and entry.owner == owner

    def _sweep(self) -> None:
        """Take what is over off the record. INVARIANT: an index that is not ready does not say that a container has gone."""
        if not self._facts.ready.is_set():
            return
        try:
            over = self._granted.sweep(
                lambda container: self._index.get(Kind.CONTAINER, container) is not None
            )
            for granted in over:
                self._trail.note(_over(granted))
        except (RecordsUnavailable, AuditUnavailable) as error:
            log(events.SHARE_UNSETTLED, problem=str(error))  # over on record or not, it is over


def _shared_in(transaction: Transaction) -> list[ContainerId]:
    """Others' containers that the request is about."""
    return [
        fact.container or ContainerId(fact.id)
        for fact in transaction.facts.objects.values()
        if fact is not None and fact.share is not Share.NONE
    ]


def _adopted_in(transaction: Transaction) -> list[tuple[ContainerId, Uid | None]]:
    """Containers that ds01 did not make, with whose they were when the request was let in; admins need no owner's leave."""
    if transaction.everything:
        return []
    return [
        (fact.container or ContainerId(fact.id), fact.owner)
        for fact in transaction.facts.objects.values()
        if fact is not None and fact.adopted is not None
    ]


def _over(granted: Granted) -> dict[str, object]:
    return {
        "event": "container.share_over",
        "container": granted.container,
        "owner": granted.login,
        "owner_uid": granted.owner,
        "with": [granted.grantee],
    }


def _ended() -> Refusal:
    return Refusal(
        status=403,
        message="ds01: container is not permitted any more: the share has ended (rule share); ask its owner for ds01 share",
        rules=("share",),
    )
