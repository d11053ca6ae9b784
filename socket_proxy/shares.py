"""All parts of sharing containers, put together: `socket_proxy.parts` holds this and nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from host.tree import Tree
from host.users import Users
from policy.compile import Policy
from policy.stand_ins import StandIns
from socket_proxy.answers import Answers
from socket_proxy.container_shares import ContainerShares
from socket_proxy.containers import Containers
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource
from socket_proxy.grantees import Grantees
from socket_proxy.index import Index
from socket_proxy.lasting_clock import LastingClock
from socket_proxy.records import Records
from socket_proxy.share_requests import ShareRequests
from socket_proxy.shared_containers import SharedContainers
from socket_proxy.shared_execs import SharedExecs
from socket_proxy.tethers import Tethers
from socket_proxy.trail import Trail


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareParts:
    """What handles requests."""

    tethers: Tethers
    execs: SharedExecs
    requests: ShareRequests


class Shares:
    """First who may see what, which facts and answers ask for; then what is made of those."""

    def __init__(self, *, index: Index, records: Records, policy: Callable[[], Policy], users: Users) -> None:
        """Raises: RecordsUnavailable."""
        self._index = index
        self._policy = policy
        self._grantees = Grantees(users=users, policy=policy)
        self._granted = ContainerShares(records, LastingClock(records))
        self.containers = SharedContainers(index=index, granted=self._granted, policy=policy, users=users)
        self._tethers: Tethers | None = None

    def serve(
        self,
        *,
        engine: Engine,
        answers: Answers,
        owned: Containers,
        facts: FactSource,
        trail: Trail,
        tree: Tree,
        stand_ins: StandIns | None,
    ) -> ShareParts:
        """The parts that serve requests. owned: what is done for a container's owner."""
        tethers = self._tethers = Tethers(
            shared=self.containers,
            granted=self._granted,
            index=self._index,
            facts=facts,
            policy=self._policy,
            trail=trail,
        )
        execs = SharedExecs(
            engine=engine,
            index=self._index,
            answers=answers,
            containers=owned,
            socket_paths=(str(tree.run), str(tree.front_door)),
            stand_ins=stand_ins,
        )
        requests = ShareRequests(
            index=self._index,
            facts=facts,
            granted=self._granted,
            shared=self.containers,
            execs=execs,
            grantees=self._grantees,
            trail=trail,
        )
        return ShareParts(tethers=tethers, execs=execs, requests=requests)

    async def run(self) -> None:
        """End what is over, until cancelled."""
        if self._tethers is not None:
            await self._tethers.run()
