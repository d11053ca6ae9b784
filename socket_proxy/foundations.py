"""What the proxy knows and follows, made once for one engine: the index, the records, whose things are, the allocator.

Each property makes one part of those it names: what depends on what is read here and in `socket_proxy.parts`.
"""

from __future__ import annotations

from functools import cached_property

from host.policy_files import PolicyFiles
from host.users import Users, look_up_name
from policy.compile import Policy
from policy.model import GUARDED_RUNTIME, EngineFacts
from policy.stand_ins import StandIns
from socket_proxy.adoptions import Adoptions
from socket_proxy.approvals import Approvals
from socket_proxy.canary import Canary
from socket_proxy.engine import Engine
from socket_proxy.entries import Entries
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners
from socket_proxy.index import Index
from socket_proxy.keys import Keys
from socket_proxy.leases import AllocatorClient
from socket_proxy.records import Records
from socket_proxy.reserved import Declaring
from socket_proxy.running import RunningContainers
from socket_proxy.seal import SealedContainers, Sealer
from socket_proxy.settings import Settings
from socket_proxy.settle import Settlements
from socket_proxy.shares import Shares
from socket_proxy.stand_ins import StandInStore
from socket_proxy.watcher import Watcher


class Foundations:
    """What every answer rests on, not yet running."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        policies: PolicyFiles[Policy],
        engine: Engine,
        facts: EngineFacts,
    ) -> None:
        self.settings = settings
        self.keys = keys
        self.policies = policies
        self.engine = engine
        self.engine_facts = facts
        self.index = Index()
        self.records = Records(settings.tree.records)
        self.sealer = Sealer(keys)
        self.users = Users()

    def policy(self) -> Policy:
        """The policy of this moment."""
        return self.policies.current

    # What is known.

    @cached_property
    def owners(self) -> ImageOwners:
        return ImageOwners(self.records)

    @cached_property
    def facts(self) -> FactSource:
        return FactSource(
            engine=self.engine,
            engine_facts=self.engine_facts,
            index=self.index,
            images=self.owners,
            shared=self.shares.containers,
        )

    @cached_property
    def adoptions(self) -> Adoptions:
        return Adoptions(self.records)

    @cached_property
    def shares(self) -> Shares:
        return Shares(index=self.index, records=self.records, policy=self.policy, users=self.users)

    @cached_property
    def allocator(self) -> AllocatorClient:
        return AllocatorClient(self.settings.tree.allocator_socket)

    @cached_property
    def stand_ins(self) -> StandIns | None:
        """None where the engine has no guard that would put anything in their places."""
        guarded = self.engine_facts.runtime == GUARDED_RUNTIME
        return StandIns(str(self.settings.tree.sources)) if guarded else None

    @cached_property
    def stand_in_store(self) -> StandInStore | None:
        return StandInStore(self.stand_ins) if self.stand_ins else None

    @cached_property
    def approvals(self) -> Approvals | None:
        """None where the engine has no guard that would read them."""
        if self.stand_ins is None:
            return None
        return Approvals(self.settings.tree.approvals, self.keys, self.stand_ins)

    @cached_property
    def sealed(self) -> SealedContainers:
        return SealedContainers(self.sealer, self.approvals)

    @cached_property
    def entries(self) -> Entries:
        return Entries(sealer=self.sealer, sealed=self.sealed, adoptions=self.adoptions, records=self.records)

    # What goes on in the background.

    @cached_property
    def settlements(self) -> Settlements:
        return Settlements(engine=self.engine, leaser=self.allocator, sealed=self.sealed)

    @cached_property
    def declaring(self) -> Declaring:
        return Declaring(allocator=self.allocator, policy=self.policy, account=look_up_name)

    @cached_property
    def running(self) -> RunningContainers:
        running = RunningContainers(
            engine=self.engine,
            sealed=self.sealed,
            adoptions=self.adoptions,
            allocator=self.allocator,
            monitors=lambda: self.policy().document.monitors,
        )
        self.watcher.container_moved = running.moved
        self.allocator.tell_containers = running.tell_anew
        return running

    @cached_property
    def watcher(self) -> Watcher:
        return Watcher(
            engine=self.engine,
            index=self.index,
            facts=self.facts,
            entries=self.entries,
            records=self.records,
            images=self.owners,
            leaser=self.allocator,
            approvals=self.approvals,
            adoptions=self.adoptions,
        )

    @cached_property
    def canary(self) -> Canary | None:
        """None where no plugin is asked for."""
        if not self.settings.daemon.plugin_required:
            return None
        return Canary(str(self.settings.engine_socket), wake=self.watcher.reloaded)
