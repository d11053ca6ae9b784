"""ds01-guard: asked before each container start, says whether it may. Wires files, accounts, allocator and socket."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from host import listener, notify
from host.tree import Tree
from host.trusted import Watched, parse_engine_id, parse_public_key
from host.users import Users
from observability import events
from observability.logging import configure, log
from policy import engine_note
from policy.stand_ins import StandIns
from runtime.approvals import Approvals
from runtime.leases import AllocatorClient
from runtime.server import GuardServer
from runtime.service import Guard

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

_ROOT_ONLY = frozenset({0})
_WATCHDOG_SECONDS = 1.0


def build_guard(tree: Tree) -> Guard:
    """The guard on the files of `tree`."""
    key = Watched(tree.stamp_public, parse_public_key, owners=_ROOT_ONLY)
    engine_id = Watched(tree.engine_id, parse_engine_id, owners=_ROOT_ONLY)
    note = Watched(tree.engine_note, engine_note.read, owners=_ROOT_ONLY)
    return Guard(
        board=tree.pins,
        stand_ins=StandIns(str(tree.sources)),
        approvals=Approvals(tree.approvals, key=key.get, engine_id=engine_id.get),
        note=note.get,
        users=Users(),
        leases=AllocatorClient(tree.allocator_socket),
    )


async def run(server: GuardServer, listening: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    notify.notify("READY=1")
    async with asyncio.TaskGroup() as tasks:
        beat = tasks.create_task(_watchdog())
        await server.serve(listening, stop)
        beat.cancel()
    notify.notify("STOPPING=1")


async def _watchdog() -> None:
    while True:
        notify.notify("WATCHDOG=1")
        await asyncio.sleep(_WATCHDOG_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ds01-guard. Exit 0 after SIGTERM, 1 without its socket."""
    options = _options(arguments)
    tree = Tree.production() if options.root is None else Tree.under(options.root)
    configure("ds01-guard")
    handed = listener.inherited()
    try:
        listening = handed[0] if handed else listener.listen(tree.guard_socket, mode=0o600)
    except (listener.AddressTaken, OSError) as error:
        log(events.DAEMON_FAILED, problem=str(error))
        return 1
    log(events.DAEMON_STARTED, version=1, sockets=["inherited" if handed else str(tree.guard_socket)])
    guard = build_guard(tree)
    try:
        uvloop.run(run(GuardServer(guard.decide, copy=guard.copy, board=tree.pins), listening))
    finally:
        if not handed:
            listener.remove(tree.guard_socket)
    log(events.DAEMON_STOPPED, reason="signal")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ds01-guard", description="says whether a container may start")
    parser.add_argument(
        "--root", type=Path, help="one directory with run/, etc/ and lib/; without it /run/ds01, ..."
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
