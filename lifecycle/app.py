"""ds01-lifecycle: stops containers whose GPU time is over. Wires allocator, admin socket, policy and terminals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from host import heartbeat, notify, terminals
from host.clock import boot_id, boottime_ms
from host.policy_files import PolicyFiles, PolicyMissing
from host.users import Users
from lifecycle.containers import AdminClient
from lifecycle.leases import AllocatorClient
from lifecycle.records import Records
from lifecycle.rules import PolicyRules
from lifecycle.service import Lifecycle
from lifecycle.settings import parse_settings
from lifecycle.stopping import Stopping
from lifecycle.time_limits import TimeLimits
from observability import events
from observability.audit import AuditLog, AuditUnavailable
from observability.logging import configure, log
from policy.build import build_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from host.tree import Tree
    from lifecycle.settings import Settings
    from policy.compile import Policy
    from policy.model import Uid

_POLL_SECONDS = 1.0
_SLACK_SECONDS = 30  # what a look itself may take before the daemon counts as silent


class HostTerminals:
    """The terminals of this host."""

    async def tell(self, uid: Uid, text: str) -> int:
        """Write one line to each of the user's; to how many it went. One that cannot be written to is left out."""
        with suppress(OSError):
            return await asyncio.to_thread(terminals.tell, uid, text)
        return 0


async def serve(settings: Settings, policies: PolicyFiles[Policy], audit: AuditLog) -> None:
    """Work until SIGTERM or SIGINT. What is being stopped then goes on stopping, or is stopped after the next start."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, policies.reload_if_changed)
    tree = settings.tree
    leases, containers = AllocatorClient(tree.allocator_socket), AdminClient(tree.admin_socket)
    limits = TimeLimits(
        leases=leases,
        containers=containers,
        rules=PolicyRules(lambda: policies.current, Users()),
        terminals=HostTerminals(),
        records=Records(tree.told, boot_id=boot_id()),
        warn_seconds=settings.timing.warn_seconds,
        clock_ms=boottime_ms,
    )
    work = Lifecycle(
        leases=leases,
        limits=limits,
        stopping=Stopping(containers=containers, audit=audit.append, clock_ms=boottime_ms),
        look_seconds=settings.timing.look_seconds,
        beat=partial(_beat, tree, settings.timing.look_seconds + _SLACK_SECONDS),
    )
    notify.notify("READY=1")
    async with asyncio.TaskGroup() as tasks:
        background = [tasks.create_task(work.run()), tasks.create_task(_poll(policies))]
        await stop.wait()
        notify.notify("STOPPING=1")
        for task in background:
            task.cancel()
    await leases.close()
    await containers.close()


async def _poll(policies: PolicyFiles[Policy]) -> None:
    """Once a second: look at the policy's files, and tell the watchdog that the loop turns."""
    while True:
        policies.reload_if_changed()
        notify.notify("WATCHDOG=1")
        await asyncio.sleep(_POLL_SECONDS)


def _beat(tree: Tree, next_seconds: float, problem: str | None) -> None:
    with suppress(OSError):  # a full disk is seen as silence, and ends no work
        heartbeat.beat(tree.lifecycle_beat, next_seconds=next_seconds, problem=problem)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ds01-lifecycle. Exit 0 after SIGTERM, 1 without a usable policy or audit."""
    os.umask(0o077)
    settings = parse_settings(arguments)
    tree = settings.tree
    configure("ds01-lifecycle")
    try:
        policies = PolicyFiles(
            tree.etc,
            partial(build_policy, user_socket_template=str(tree.user_socket("{name}"))),
            on_loaded=lambda digest, files: log(events.POLICY_LOADED, digest=digest, files=files),
            on_rejected=lambda problems: log(events.POLICY_REJECTED, problems=problems),
        )
        audit = AuditLog(tree.audit)
    except (PolicyMissing, AuditUnavailable, OSError) as error:
        log(events.DAEMON_FAILED, problem=str(error))
        return 1
    log(events.DAEMON_STARTED, version="0.1.0", sockets=[])
    try:
        asyncio.run(serve(settings, policies, audit))
    finally:
        audit.close()
        with suppress(OSError):
            heartbeat.stop(tree.lifecycle_beat)
    log(events.DAEMON_STOPPED, reason="asked to")
    return 0


if __name__ == "__main__":
    sys.exit(main())
