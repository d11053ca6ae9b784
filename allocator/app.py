"""ds01-allocator: the GPU allocator as a service. Wires ledger, NVML process, service and socket."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aiohttp import web

from allocator.connections import Doorkeeper
from allocator.mig_driver import MigRefused
from allocator.model import InventoryUnavailable, LedgerUnavailable, Moment
from allocator.parts import Parts
from allocator.settings import parse_settings
from host import listener, notify
from host.clock import boot_id, boottime_ms
from host.descriptors import raise_limit
from host.subuids import Lenders
from observability import events
from observability.logging import configure, log
from policy.model import LeaseId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from allocator.host_access import HostAccess
    from allocator.mig_apply import Repartition
    from allocator.settings import Settings

_BACKLOG = 128
_ACCESS_SECONDS = 5
_AGAIN_SECONDS = 30
_MOST_READY_SECONDS = 45  # half of what systemd gives a service to start
_LENDERS_SECONDS = 60


def clock() -> Callable[[], Moment]:
    """Moments of this boot."""
    boot = boot_id()

    def now() -> Moment:
        utc = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Moment(utc=utc, boottime_ms=boottime_ms(), boot_id=boot)

    return now


def new_id() -> LeaseId:
    """A lease id: 16 hex digits."""
    return LeaseId(secrets.token_hex(8))


def _protocols(runner: web.AppRunner) -> web.Server:
    if runner.server is None:
        raise RuntimeError("the runner was not set up")
    return runner.server


def _door(parts: Parts, lenders: Lenders) -> tuple[web.AppRunner, Doorkeeper]:
    """What serves the application, and what lets connections in to it."""
    application = parts.application()
    runner = web.AppRunner(application, handler_cancellation=True, access_log=None, shutdown_timeout=2)

    def protocol() -> asyncio.Protocol:
        # Asked for late: a runner has none before it is set up, and after that takes no middleware.
        return _protocols(runner)()

    doorkeeper = Doorkeeper(protocol, trusted_uids=parts.settings.trusted_uids, owner_of=lenders.owner_of)
    application.middlewares.insert(0, doorkeeper.hearing)
    return runner, doorkeeper


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises: LedgerUnavailable, OSError, AddressTaken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings.tree.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    parts = Parts(settings, now=clock(), new_id=new_id)
    service, worker = parts.service, parts.worker
    lenders = Lenders()
    runner, doorkeeper = _door(parts, lenders)
    await runner.setup()
    path = settings.tree.allocator_socket
    handed = listener.inherited()
    server = await asyncio.get_running_loop().create_unix_server(
        doorkeeper,
        sock=handed[0] if handed else listener.listen(path, mode=0o666),
        backlog=_BACKLOG,
    )
    log(events.DAEMON_STARTED, version="0.1.0", sockets=["inherited" if handed else str(path)])
    parts.log_ear.listen()
    caught_up = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        background = [
            tasks.create_task(service.run()),
            tasks.create_task(parts.tracking.run()),
            tasks.create_task(_watch_access(parts.access)),
            tasks.create_task(_finish_mig(parts.repartition, caught_up)),
            tasks.create_task(_tell_ready(caught_up)),
            tasks.create_task(_learn_lenders(lenders)),
        ]
        await stop.wait()
        notify.notify("STOPPING=1")
        for task in background:
            task.cancel()
    parts.log_ear.close()
    server.close()
    await runner.cleanup()
    await parts.repartition.close()
    await worker.close()  # first: a hung look ends with it
    await service.close()
    await parts.access.close()
    await worker.close()  # again: a look that was only starting its process may have done so since
    parts.processes.close()
    listener.remove(path)
    log(events.DAEMON_STOPPED, reason="asked to")


async def _watch_access(access: HostAccess) -> None:
    """Carry out what was granted, and take away what is over."""
    begun = False
    while True:
        try:
            await (access.sweep() if begun else access.start())
            begun = True
        except LedgerUnavailable as error:
            log(events.HOST_ACCESS_FAILED, uid=None, problem=str(error))
        await asyncio.sleep(_ACCESS_SECONDS)


async def _learn_lenders(lenders: Lenders) -> None:
    """Follow what the host lends; where it cannot be read, what is known stays, and each uid not known counts for itself."""
    while True:
        try:
            await lenders.refresh()
        except OSError as error:
            log(events.ATTRIBUTION_FAILED, problem=str(error))
        await asyncio.sleep(_LENDERS_SECONDS)


async def _tell_ready(caught_up: asyncio.Event) -> None:
    """Let who waits for this daemon start, dockerd: its containers are refused before their MIG devices are there again.

    Not for long: a driver that hangs does not hold up Docker.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(_MOST_READY_SECONDS):
            await caught_up.wait()
    notify.notify("READY=1")


async def _finish_mig(repartition: Repartition, caught_up: asyncio.Event) -> None:
    """Go on with what was cut short of a change of MIG, and with what a reboot took; until then its devices are nobody's.

    Args: caught_up: set when that was tried once.
    """
    told: str | None = None
    while True:
        try:
            for step in await repartition.resume():
                log(
                    events.MIG_STEP_FINISHED,
                    device=step.gpu,
                    step=step.kind.value,
                    state=step.state.value,
                    reason=step.why,
                )
            told = None
        except (MigRefused, InventoryUnavailable, LedgerUnavailable) as error:
            if told != str(error):
                log(events.MIG_UNFINISHED, problem=str(error))
            told = str(error)
        caught_up.set()
        await asyncio.sleep(_AGAIN_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; the exit code."""
    os.umask(0o077)
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    configure("ds01-allocator")
    raise_limit()
    try:
        asyncio.run(serve(settings))
    except (LedgerUnavailable, listener.AddressTaken, OSError) as error:
        log(events.DAEMON_FAILED, problem=str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
