"""ds01-proxy: waits for its engine, makes the parts and keeps them running."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Sequence

import uvloop

from host import notify
from host.descriptors import raise_limit
from host.files import write_atomic
from host.policy_files import PolicyFiles, PolicyMissing
from host.tree import Tree
from http1.client import Pool
from observability import events
from observability.logging import configure, log
from policy import engine_note
from policy.build import build_policy
from policy.compile import Policy
from policy.engine_note import EngineNote
from policy.model import EngineFacts
from socket_proxy.discovery import shortcomings, wait_for_engine
from socket_proxy.engine import Engine
from socket_proxy.keys import Keys, KeyUnusable, load_or_create
from socket_proxy.parts import Parts
from socket_proxy.settings import Settings, SettingsInvalid, parse
from socket_proxy.stamp import Stamper

_POLL_SECONDS = 0.2


class Proxy(Parts):
    """All parts, at work."""

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`."""
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self.watcher.run()),
                tasks.create_task(self.watcher.report()),
                tasks.create_task(self.settlements.run()),
                tasks.create_task(self.declaring.run()),
                tasks.create_task(self.running.run()),
                tasks.create_task(self.shares.run()),
                tasks.create_task(self._poll(stop)),
                tasks.create_task(self._watch_engine(stop)),
            ]
            if self.canary is not None:
                background.append(tasks.create_task(self.canary.run()))
            if self.stand_in_store is not None and self.approvals is not None:
                background.append(tasks.create_task(self.stand_in_store.run(self.approvals.told)))
            await self._open()
            notify.notify("READY=1")
            await stop.wait()
            notify.notify("STOPPING=1")
            await self.server.stop()
            for task in background:
                task.cancel()
        await self.allocator.close()

    async def _open(self) -> None:
        if self.canary is not None:
            # Who waited for this proxy asks at once. docker's first question is the API version: refused it, docker goes on
            # with its own, which an older engine does not speak.
            await self.canary.asked.wait()
        await self.doors.open_admin()
        for name in self.settings.daemon.users:
            await self.doors.open_user(name)
        await self.doors.open_front()
        if self.settings.daemon.metrics_port:
            await self._open_metrics(self.settings.daemon.metrics_port)
        log(
            events.DAEMON_STARTED,
            version=self.engine_facts.version,
            sockets=len(self.settings.daemon.users) + 2,
        )

    async def _open_metrics(self, port: int) -> None:
        try:
            await self.scrapes.open(port)
        except OSError as error:  # nobody's work waits for numbers
            log(events.METRICS_UNAVAILABLE, port=port, problem=str(error))

    async def _poll(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.policies.reload_if_changed()
            notify.notify("WATCHDOG=1")
            await asyncio.sleep(_POLL_SECONDS)

    async def _watch_engine(self, stop: asyncio.Event) -> None:
        """Another engine behind the same socket (an upgrade) means other facts: start anew."""
        while True:
            await self.watcher.reconnected.wait()
            self.watcher.reconnected.clear()
            now = await wait_for_engine(self.engine, self.keys.engine_id, self.settings.daemon.gpu_path)
            if now != self.engine_facts:
                log(events.DAEMON_STOPPED, reason="the engine changed; starting anew")
                stop.set()


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
    raise_limit()
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
