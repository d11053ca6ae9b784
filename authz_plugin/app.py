"""ds01-authz: dockerd's AuthZ plugin as a service. Wires the gate to the files, the policy and the socket."""

from __future__ import annotations

import argparse
import asyncio
import secrets
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop

from authz_plugin.gate import Denied, Gate
from authz_plugin.identity import StampCheck
from authz_plugin.server import AuthzServer
from authz_plugin.trusted import BreakGlass, parse_break_glass
from host import listener, notify
from host.clock import boottime_ms
from host.policy_files import PolicyFiles, PolicyMissing
from host.tree import Tree
from host.trusted import Watched, parse_engine_id, parse_public_key
from host.users import Users
from observability import events
from observability.logging import configure, log
from policy import engine_note, evaluate
from policy.build import build_policy
from policy.dockerapi import read as dockerapi_read
from policy.dockerapi.model import Operation
from policy.dockerapi.read import UnknownField, UnknownRoute
from policy.model import GUARDED_RUNTIME
from policy.stand_ins import StandIns

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from authz_plugin.ports import Checker
    from policy.compile import Policy
    from policy.dockerapi.model import Incoming, Request
    from policy.model import Actor, LeaseId, Reason

ROOT_ONLY = frozenset({0})
# The plugin cannot ask the engine for its version; the proxy always writes one that the engine serves.
ENGINE_MAX = (1, 999)
_POLL_SECONDS = 1.0


class HostActors:
    """Accounts of this host as actors."""

    def __init__(self, users: Users) -> None:
        """Ask `users`."""
        self._users = users

    def known(self, uid: int) -> Actor | None:
        """The actor if it is in memory; never blocks."""
        account = self._users.known(uid)
        return None if account is None else account.actor()

    async def find(self, uid: int) -> Actor | None:
        """The actor, None when the uid has no account."""
        account = await self._users.find(uid)
        return None if account is None else account.actor()


def read(incoming: Incoming) -> Request:
    """The reader the proxy uses too. Raises: MalformedRequest, Denied."""
    try:
        return dockerapi_read.read(incoming, engine_max=ENGINE_MAX)
    except (UnknownRoute, UnknownField) as error:
        raise Denied(f"{error} (rule route_table); see: ds01 explain") from error


def checker(policies: PolicyFiles[Policy], runtime: Callable[[], str], stand_ins: StandIns) -> Checker:
    """Every rule that needs no facts, on the policy in force at that moment.

    `runtime` gives what a create must name on this engine, or raises Untrusted; with the guard, host paths have `stand_ins`.
    The proxy may have read a changed policy a moment earlier, or reads it a moment later. Before a denial the files
    are looked at again, and for a few seconds after a swap what the former policy permits passes.
    """

    def check(actor: Actor, request: Request, *, leases: tuple[LeaseId, ...]) -> tuple[Reason, ...]:
        named = runtime() if request.operation is Operation.CONTAINER_CREATE else ""
        told = stand_ins if named == GUARDED_RUNTIME else None

        def under(policy: Policy) -> tuple[Reason, ...]:
            return evaluate.check(policy, actor, request, leases=leases, runtime=named, stand_ins=told)

        reasons = under(policies.current)
        if reasons and policies.reload_if_changed():
            reasons = under(policies.current)
        former = policies.former if reasons else None
        return () if former is not None and not under(former) else reasons

    return check


def build_gate(tree: Tree, policies: PolicyFiles[Policy]) -> Gate:
    """The gate on the files of `tree`."""
    key = Watched(tree.stamp_public, parse_public_key, owners=ROOT_ONLY)
    engine_id = Watched(tree.engine_id, parse_engine_id, owners=ROOT_ONLY)
    note = Watched(tree.engine_note, engine_note.read, owners=ROOT_ONLY)
    glass = Watched(tree.break_glass, parse_break_glass, owners=ROOT_ONLY)
    return Gate(
        stamps=StampCheck(key=key.get, engine_id=engine_id.get, clock_ms=boottime_ms),
        read=read,
        check=checker(policies, lambda: note.get().runtime, StandIns(str(tree.sources))),
        actors=HostActors(Users()),
        break_glass=partial(present, glass),
        clock_ms=boottime_ms,
        new_id=partial(secrets.token_hex, 6),
    )


def present(glass: Watched[BreakGlass]) -> BreakGlass | None:
    """Break-glass if there is a file; a missing one is the normal case, a bad one raises Untrusted."""
    return glass.get() if glass.path.exists() else None


async def run(gate: Gate, policies: PolicyFiles[Policy], socket_: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT; reload the policy when its files change or on SIGHUP."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    loop.add_signal_handler(signal.SIGHUP, policies.reload_if_changed)
    notify.notify("READY=1")
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_poll(policies, stop))
        tasks.create_task(AuthzServer(gate.answer).serve(socket_, stop))
    notify.notify("STOPPING=1")


async def _poll(policies: PolicyFiles[Policy], stop: asyncio.Event) -> None:
    """Once a second: look at the policy's files, and tell the watchdog that the loop turns."""
    while not stop.is_set():
        policies.reload_if_changed()
        notify.notify("WATCHDOG=1")
        try:
            async with asyncio.timeout(_POLL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ds01-authz. Exit 0 after SIGTERM, 1 without a usable policy or socket."""
    options = _options(arguments)
    tree = Tree.production() if options.root is None else Tree.under(options.root)
    configure("ds01-authz")
    path = tree.authz_socket
    handed = listener.inherited()
    try:
        policies = PolicyFiles(
            options.config or tree.etc,
            partial(build_policy, user_socket_template=str(tree.user_socket("{name}"))),
            on_loaded=lambda digest, files: log(events.POLICY_LOADED, digest=digest, files=files),
            on_rejected=lambda problems: log(events.POLICY_REJECTED, problems=problems),
        )
        gate = build_gate(tree, policies)
        socket_ = handed[0] if handed else listener.listen(path, mode=0o600)
    except (PolicyMissing, listener.AddressTaken, OSError) as error:
        log(events.DAEMON_FAILED, problem=str(error))
        return 1
    log(events.DAEMON_STARTED, version=1, sockets=["inherited" if handed else str(path)])
    try:
        uvloop.run(run(gate, policies, socket_))
    finally:
        if not handed:
            listener.remove(path)
    log(events.DAEMON_STOPPED, reason="signal")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ds01-authz", description="dockerd's AuthZ plugin of ds01")
    parser.add_argument(
        "--root", type=Path, help="one directory with run/, etc/ and lib/; without it /run/ds01, ..."
    )
    parser.add_argument("--config", type=Path, help="the directory of policy.yaml, if another")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
