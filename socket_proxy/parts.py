"""Every part of the proxy that answers, made once for one engine on its `socket_proxy.foundations`.

Each property makes one part of those it names: what depends on what is read in these two, and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import TypedDict

from host import heartbeat, listener
from host.heartbeat import Heard, Pulse
from host.policy_files import PolicyFiles
from http1.errors import UpstreamUnavailable
from http1.limits import Limits
from http1.server import Exchange, Server
from observability import events
from observability.audit import AuditLog
from observability.logging import log
from observability.metrics import Metrics
from policy.compile import Policy
from policy.dockerapi.model import Outcome
from policy.model import EngineFacts, RequestId
from policy.rules import PAGES
from socket_proxy.adopted_execs import AdoptedExecs
from socket_proxy.adoption_requests import AdoptionRequests
from socket_proxy.answers import Answers
from socket_proxy.binds import Binds
from socket_proxy.build import ClassicBuilds
from socket_proxy.builds import Builds
from socket_proxy.containers import Containers
from socket_proxy.copies import Copies
from socket_proxy.doors import Doors
from socket_proxy.engine import Engine
from socket_proxy.foundations import Foundations
from socket_proxy.fulfil import Fulfiller
from socket_proxy.guard import GuardClient
from socket_proxy.handlers import Handlers
from socket_proxy.identity import Identities
from socket_proxy.image_removal import ImageRemoval
from socket_proxy.image_tags import Tags
from socket_proxy.image_transfer import ImageTransfer
from socket_proxy.images import Images, Makers
from socket_proxy.keys import Keys
from socket_proxy.local import Local
from socket_proxy.pipeline import Pipeline
from socket_proxy.prune import Prunes
from socket_proxy.refusals import Refusal, of_error
from socket_proxy.scrapes import Scrapes
from socket_proxy.settings import Settings
from socket_proxy.shares import ShareParts
from socket_proxy.sharing import ImageShares
from socket_proxy.spool import Spools
from socket_proxy.stores import Stores
from socket_proxy.trail import Trail
from socket_proxy.updates import Updates


class _Making(TypedDict):
    """What all that make images share."""

    engine: Engine
    answers: Answers
    spools: Spools
    policy: Callable[[], Policy]
    makers: Makers


class Parts(Foundations):
    """The whole proxy, not yet running."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        policies: PolicyFiles[Policy],
        engine: Engine,
        facts: EngineFacts,
    ) -> None:
        super().__init__(settings, keys, policies, engine, facts)
        _ = self.doors  # and so every other part, now: what cannot be made stops the start

    # What is told of it.

    @cached_property
    def trail(self) -> Trail:
        return Trail(
            AuditLog(self.settings.tree.audit),
            policy_digest=lambda: self.policy().digest,
            on_failure=self.metrics.audit_failures.inc,
        )

    @cached_property
    def metrics(self) -> Metrics:
        metrics = Metrics(operation_classes=Outcome, rules=sorted(PAGES))
        metrics.connections.set_function(lambda: self.server.connection_count)
        metrics.canary_ok.set_function(self._canary_ok)
        metrics.lifecycle_ok.set_function(lambda: self._lifecycle().pulse is Pulse.OK)
        metrics.policy_in_force.set_function(lambda: float(self.policies.in_force))
        return metrics

    # What answers.

    @cached_property
    def answers(self) -> Answers:
        return Answers(
            engine=self.engine,
            index=self.index,
            images=self.owners,
            learn=self.watcher.learn,
            has_gpus=self.allocator.has_devices,
            stand_ins=self.stand_ins,
            words=self.approvals.words if self.approvals else lambda _: {},
            shared=self.shares.containers,
        )

    @cached_property
    def binds(self) -> Binds:
        return Binds(engine=self.engine, policy=self.policy, stand_ins=self.stand_ins)

    @cached_property
    def copies(self) -> Copies:
        guard = GuardClient(self.settings.tree.guard_socket, self.settings.engine_socket)
        return Copies(answers=self.answers, binds=self.binds, approvals=self.approvals, guard=guard)

    @cached_property
    def containers(self) -> Containers:
        containers = Containers(
            engine=self.engine,
            index=self.index,
            leaser=self.allocator,
            answers=self.answers,
            binds=self.binds,
            settlements=self.settlements,
            facts=self.facts,
            owners=self.owners,
            approvals=self.approvals,
            stand_ins=self.stand_in_store,
            adoptions=self.adoptions,
        )
        self.watcher.container_gone = containers.forget
        return containers

    @cached_property
    def share_parts(self) -> ShareParts:
        return self.shares.serve(
            engine=self.engine,
            answers=self.answers,
            owned=self.containers,
            facts=self.facts,
            trail=self.trail,
            tree=self.settings.tree,
            stand_ins=self.stand_ins,
        )

    @cached_property
    def removal(self) -> ImageRemoval:
        return ImageRemoval(engine=self.engine, facts=self.facts, owners=self.owners, answers=self.answers)

    @cached_property
    def tags(self) -> Tags:
        return Tags(owners=self.owners, facts=self.facts)

    @cached_property
    def making(self) -> _Making:
        return {
            "engine": self.engine,
            "answers": self.answers,
            "spools": Spools(self.settings.tree.spool),
            "policy": self.policy,
            "makers": Makers(
                engine=self.engine, owners=self.owners, facts=self.facts, tags=self.tags, policy=self.policy
            ),
        }

    @cached_property
    def builds(self) -> Builds:
        return Builds(
            engine=self.engine,
            answers=self.answers,
            policy=self.policy,
            engine_facts=self.engine_facts,
            facts=self.facts,
            owners=self.owners,
            tags=self.tags,
            trail=self.trail,
        )

    @cached_property
    def prunes(self) -> Prunes:
        return Prunes(
            engine=self.engine,
            facts=self.facts,
            index=self.index,
            records=self.records,
            containers=self.containers,
            removal=self.removal,
            answers=self.answers,
        )

    @cached_property
    def handlers(self) -> Handlers:
        transfer = ImageTransfer(
            engine=self.engine, facts=self.facts, owners=self.owners, answers=self.answers
        )
        stores = Stores(index=self.index, records=self.records, answers=self.answers, sealer=self.sealer)
        classic = ClassicBuilds(
            facts=self.facts, owners=self.owners, buildkit=self.builds.by_query, **self.making
        )
        execs = AdoptedExecs(
            engine=self.engine, adoptions=self.adoptions, inner=self.share_parts.execs.by_operation
        )
        return Handlers(
            answers=self.answers,
            containers=self.containers,
            tethers=self.share_parts.tethers,
            others=(
                self.copies.by_operation,
                execs.by_operation,
                Images(**self.making).by_operation,
                classic.by_operation,
                self.builds.by_operation,
                self.removal.by_operation,
                transfer.by_operation,
                stores.by_operation,
                self.prunes.by_operation,
                Updates(engine=self.engine, answers=self.answers).by_operation,
            ),
        )

    # What clients reach.

    @cached_property
    def limits(self) -> Limits:
        daemon = self.settings.daemon
        return Limits(connections=daemon.connections, connections_per_uid=daemon.connections_per_user)

    @cached_property
    def server(self) -> Server:
        return Server(limits=self.limits, on_error=_on_error)

    @cached_property
    def pipeline(self) -> Pipeline:
        return Pipeline(
            policy=self.policy,
            engine_facts=self.engine_facts,
            facts=self.facts,
            fulfiller=Fulfiller(
                engine=self.engine,
                index=self.index,
                sealer=self.sealer,
                leaser=self.allocator,
                metrics=self.metrics,
            ),
            handlers=self.handlers,
            trail=self.trail,
            limits=self.limits,
            metrics=self.metrics,
            gate_closed=self._gate_closed,
        )

    @cached_property
    def local(self) -> Local:
        return Local(
            policy=self.policy,
            index=self.index,
            facts=self.facts,
            engine_facts=self.engine_facts,
            allocator=self.allocator,
            lifecycle=self._lifecycle,
            canary=self.canary,
            trail=self.trail,
            shares=ImageShares(
                owners=self.owners, facts=self.facts, users=self.users, trail=self.trail, policy=self.policy
            ),
            container_shares=self.share_parts.requests,
            adoptions=AdoptionRequests(
                engine=self.engine,
                engine_facts=self.engine_facts,
                index=self.index,
                facts=self.facts,
                adoptions=self.adoptions,
                allocator=self.allocator,
                policy=self.policy,
                trail=self.trail,
                entries=self.entries,
                moved=self.running.moved,
            ),
        )

    @cached_property
    def doors(self) -> Doors:
        return Doors(
            server=self.server,
            tree=self.settings.tree,
            policy=self.policy,
            handed=listener.inherited_by_name(),
            identities=Identities(index=self.index, users=self.users),
            pipeline=self.pipeline,
            local=self.local,
        )

    @cached_property
    def scrapes(self) -> Scrapes:
        return Scrapes(server=self.server, metrics=self.metrics)

    def _lifecycle(self) -> Heard:
        return heartbeat.listen(self.settings.tree.lifecycle_beat)

    def _canary_ok(self) -> float:
        singing = None if self.canary is None else self.canary.singing
        return math.nan if singing is None else float(singing)

    def _gate_closed(self) -> Refusal | None:
        if self.canary is None or self.canary.singing:
            return None
        if self.canary.singing is None:
            return of_error(UpstreamUnavailable(), RequestId(""))
        return Refusal(
            status=503,
            message="ds01: the AuthZ plugin is not guarding the Docker engine, so ds01 serves nobody (rule canary); "
            "tell the admin to look at ds01 status and restart ds01-authz and docker",
            rules=("canary",),
        )


def _on_error(_exchange: Exchange, error: Exception) -> tuple[int, str]:
    log(events.REQUEST_FAILED, request_id=None, uid=None, operation=None, problem=repr(error), exc_info=error)
    return 500, "ds01: an error of ds01 itself; tell the admin what you did and when"
