"""ds01-proxy: wires the rooms together and keeps them running."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TypedDict

import uvloop

from host import listener, notify
from host.files import write_atomic
from host.policy_files import PolicyFiles, PolicyMissing
from host.tree import Tree
from host.users import Users
from http1.client import Pool
from http1.errors import UpstreamUnavailable
from http1.limits import Limits
from http1.server import Exchange, Server
from observability import events
from observability.audit import AuditLog
from observability.logging import configure, log
from policy import engine_note
from policy.build import build_policy
from policy.compile import Policy
from policy.engine_note import EngineNote
from policy.model import GUARDED_RUNTIME, EngineFacts, RequestId
from socket_proxy.answers import Answers
from socket_proxy.approvals import Approvals
from socket_proxy.binds import Binds
from socket_proxy.build import ClassicBuilds
from socket_proxy.builds import Builds
from socket_proxy.canary import Canary
from socket_proxy.containers import Containers
from socket_proxy.discovery import shortcomings, wait_for_engine
from socket_proxy.doors import Doors
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource
from socket_proxy.fulfil import Fulfiller
from socket_proxy.handlers import Handlers
from socket_proxy.identity import Identities
from socket_proxy.image_owners import ImageOwners
from socket_proxy.image_removal import ImageRemoval
from socket_proxy.image_tags import Tags
from socket_proxy.image_transfer import ImageTransfer
from socket_proxy.images import Images, Makers
from socket_proxy.index import Index
from socket_proxy.keys import Keys, KeyUnusable, load_or_create
from socket_proxy.leases import AllocatorClient
from socket_proxy.local import Local
from socket_proxy.pipeline import Pipeline
from socket_proxy.prune import Prunes
from socket_proxy.records import Records
from socket_proxy.refusals import Refusal, of_error
from socket_proxy.seal import Sealer
from socket_proxy.settings import Settings, SettingsInvalid, parse
from socket_proxy.settle import Settlements
from socket_proxy.sharing import ImageShares
from socket_proxy.spool import Spools
from socket_proxy.stamp import Stamper
from socket_proxy.stores import Stores
from socket_proxy.trail import Trail
from socket_proxy.watcher import Watcher

_POLL_SECONDS = 0.2


class _Making(TypedDict):
    """What all that make images share."""

    engine: Engine
    answers: Answers
    spools: Spools
    policy: Callable[[], Policy]
    makers: Makers


class Proxy:
    """All parts, made once for one engine."""

    def __init__(
        self,
        settings: Settings,
        keys: Keys,
        policies: PolicyFiles[Policy],
        engine: Engine,
        facts: EngineFacts,
    ) -> None:
        tree = settings.tree
        self._settings = settings
        self._engine = engine
        self._facts = facts
        self._keys = keys
        self._policies = policies
        index, records, sealer = Index(), Records(tree.records), Sealer(keys)
        self.allocator = AllocatorClient(tree.allocator_socket)
        self.trail = Trail(AuditLog(tree.audit), policy_digest=lambda: policies.current.digest)
        approvals = Approvals(tree.approvals, keys) if facts.runtime == GUARDED_RUNTIME else None
        owners = ImageOwners(records)
        source = FactSource(engine=engine, engine_facts=facts, index=index, images=owners)
        self.settlements = Settlements(engine=engine, leaser=self.allocator, sealer=sealer)
        self.watcher = Watcher(
            engine=engine,
            index=index,
            facts=source,
            sealer=sealer,
            records=records,
            leaser=self.allocator,
            approvals=approvals,
        )
        self.canary = (
            Canary(str(settings.engine_socket), wake=self.watcher.reloaded)
            if settings.daemon.plugin_required
            else None
        )
        answers = Answers(
            engine=engine,
            index=index,
            images=owners,
            learn=self.watcher.learn,
            has_gpus=self.allocator.has_devices,
        )
        containers = Containers(
            engine=engine,
            index=index,
            leaser=self.allocator,
            answers=answers,
            binds=Binds(engine=engine, policy=lambda: policies.current),
            settlements=self.settlements,
            facts=source,
            owners=owners,
            approvals=approvals,
        )
        self.watcher.container_gone = containers.forget
        removal = ImageRemoval(engine=engine, facts=source, owners=owners, answers=answers)
        tags = Tags(owners=owners, facts=source)
        making: _Making = {
            "engine": engine,
            "answers": answers,
            "spools": Spools(tree.spool),
            "policy": lambda: policies.current,
            "makers": Makers(
                engine=engine,
                owners=owners,
                facts=source,
                tags=tags,
                policy=lambda: policies.current,
            ),
        }
        handlers = Handlers(
            answers=answers,
            containers=containers,
            others=(
                Images(**making).by_operation,
                ClassicBuilds(facts=source, owners=owners, **making).by_operation,
                Builds(
                    engine=engine,
                    answers=answers,
                    policy=lambda: policies.current,
                    engine_facts=facts,
                    facts=source,
                    owners=owners,
                    tags=tags,
                    trail=self.trail,
                ).by_operation,
                removal.by_operation,
                ImageTransfer(engine=engine, facts=source, owners=owners, answers=answers).by_operation,
                Stores(index=index, records=records, answers=answers, sealer=sealer).by_operation,
                Prunes(
                    engine=engine,
                    facts=source,
                    index=index,
                    records=records,
                    containers=containers,
                    removal=removal,
                    answers=answers,
                ).by_operation,
            ),
        )
        limits = Limits(
            connections=settings.daemon.connections, connections_per_uid=settings.daemon.connections_per_user
        )
        users = Users()
        self.server = Server(limits=limits, on_error=_on_error)
        self.doors = Doors(
            server=self.server,
            tree=tree,
            policy=lambda: policies.current,
            handed=listener.inherited_by_name(),
            identities=Identities(index=index, users=users),
            pipeline=Pipeline(
                policy=lambda: policies.current,
                engine_facts=facts,
                facts=source,
                fulfiller=Fulfiller(engine=engine, index=index, sealer=sealer, leaser=self.allocator),
                handlers=handlers,
                trail=self.trail,
                limits=limits,
                gate_closed=self._gate_closed,
            ),
            local=Local(
                policy=lambda: policies.current,
                index=index,
                facts=source,
                engine_facts=facts,
                allocator=self.allocator,
                canary=self.canary,
                trail=self.trail,
                shares=ImageShares(
                    owners=owners,
                    facts=source,
                    users=users,
                    trail=self.trail,
                    policy=lambda: policies.current,
                ),
            ),
        )

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

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self.watcher.run()),
                tasks.create_task(self.watcher.report()),
                tasks.create_task(self.settlements.run()),
                tasks.create_task(self._poll(stop)),
                tasks.create_task(self._watch_engine(stop)),
            ]
            if self.canary is not None:
                background.append(tasks.create_task(self.canary.run()))
            await self._open()
            notify.notify("READY=1")
            await stop.wait()
            notify.notify("STOPPING=1")
            await self.server.stop()
            for task in background:
                task.cancel()
        await self.allocator.close()

    async def _open(self) -> None:
        await self.doors.open_admin()
        for name in self._settings.daemon.users:
            await self.doors.open_user(name)
        await self.doors.open_front()
        log(events.DAEMON_STARTED, version=self._facts.version, sockets=len(self._settings.daemon.users) + 2)

    async def _poll(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self._policies.reload_if_changed()
            notify.notify("WATCHDOG=1")
            await asyncio.sleep(_POLL_SECONDS)

    async def _watch_engine(self, stop: asyncio.Event) -> None:
        """Another engine behind the same socket (an upgrade) means other facts: start anew."""
        while True:
            await self.watcher.reconnected.wait()
            self.watcher.reconnected.clear()
            now = await wait_for_engine(self._engine, self._keys.engine_id, self._settings.daemon.gpu_path)
            if now != self._facts:
                log(events.DAEMON_STOPPED, reason="the engine changed; starting anew")
                stop.set()


def _on_error(_exchange: Exchange, error: Exception) -> tuple[int, str]:
    log(events.REQUEST_FAILED, request_id=None, uid=None, operation=None, problem=repr(error), exc_info=error)
    return 500, "ds01: an error of ds01 itself; tell the admin what you did and when"


def note_engine(tree: Tree, facts: EngineFacts) -> None:
    """Leave what plugin and guard must know while the proxy is not there to ask. Raises: OSError: it cannot be written."""
    content = engine_note.write(EngineNote(runtime=facts.runtime, data_root=facts.data_root))
    if not tree.engine_note.exists() or tree.engine_note.read_bytes() != content:
        write_atomic(tree.engine_note, content, mode=0o644)


async def serve(settings: Settings, keys: Keys, policies: PolicyFiles[Policy]) -> None:
    """Wait for the engine, then serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, policies.reload_if_changed)
    engine = Engine(Pool(str(settings.engine_socket)), Stamper(keys), version=(1, 41))
    facts = await wait_for_engine(engine, keys.engine_id, settings.daemon.gpu_path)
    for problem in shortcomings(facts):
        log(events.ENGINE_NOTED, version=facts.version, problem=problem)
    note_engine(settings.tree, facts)
    proxy = Proxy(settings, keys, policies, engine, facts)
    gc.collect()
    gc.freeze()  # what was made for good is never looked at again: a full collection of it takes milliseconds
    await proxy.run(stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ds01-proxy. Exit 0 after SIGTERM, 1 when it cannot start."""
    configure("ds01-proxy")
    try:
        settings = parse(arguments)
        keys = load_or_create(settings.tree)
        policies = PolicyFiles(
            settings.tree.etc,
            lambda texts: build_policy(texts, user_socket_template=str(settings.tree.user_socket("{name}"))),
            on_loaded=lambda digest, files: log(events.POLICY_LOADED, digest=digest, files=files),
            on_rejected=lambda problems: log(events.POLICY_REJECTED, problems=problems),
        )
    except (SettingsInvalid, KeyUnusable, PolicyMissing, OSError) as error:
        log(events.DAEMON_FAILED, problem=str(error))
        return 1
    uvloop.run(serve(settings, keys, policies))
    log(events.DAEMON_STOPPED, reason="asked to")
    return 0


if __name__ == "__main__":
    sys.exit(main())
