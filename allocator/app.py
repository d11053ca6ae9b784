"""ds01-allocator: the GPU allocator as a service. Wires ledger, NVML process, service and socket."""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import signal
import sys
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from aiohttp import web

from allocator.api import Api
from allocator.connections import Doorkeeper
from allocator.ledger import Ledger
from allocator.model import LedgerUnavailable, Moment
from allocator.service import Allocator, Timing
from allocator.worker import NvmlWorker
from host import listener, notify
from host.clock import boot_id, boottime_ms
from host.tree import Tree
from observability import events
from observability.logging import configure, log
from policy.model import LeaseId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_KEYS = frozenset({"trusted_uids", "nvml_deadline_seconds", "half_life_hours", "archive_days", "time_zone"})
_BACKLOG = 128
_LOCAL_TIME = Path("/etc/localtime")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where files are, who may lease, and how long the driver may take."""

    tree: Tree
    trusted_uids: frozenset[int] = frozenset({0})
    nvml_deadline_seconds: float = 30
    timing: Timing = field(default_factory=Timing)
    zone: tzinfo = UTC


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Flags, over `allocator:` in etc/daemon.yaml, over defaults. Exits with a message on a mistake."""
    parser = argparse.ArgumentParser(prog="ds01-allocator", description="Lease GPUs to containers.")
    parser.add_argument("--root", type=Path, help="one directory with run, etc, lib and log")
    for name in ("run", "etc", "lib", "log"):
        parser.add_argument(f"--{name}", type=Path, help=f"the {name} directory")
    parser.add_argument("--trusted-uid", type=int, action="append", help="may lease, beside root; repeatable")
    parser.add_argument("--nvml-deadline-seconds", type=float, help="then the driver counts as hung")
    flags = parser.parse_args(arguments)
    base = Tree.production() if flags.root is None else Tree.under(flags.root)
    tree = replace(
        base, **{name: getattr(flags, name) for name in ("run", "etc", "lib", "log") if getattr(flags, name)}
    )
    try:
        return _merged(tree, flags, _load(tree.etc / "daemon.yaml"))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        parser.error(f"{tree.etc / 'daemon.yaml'}: {error}")


def _load(path: Path) -> dict[str, Any]:
    """The `allocator` section; empty without a file. Raises: OSError, ValueError, YAMLError."""
    if not path.exists():
        return {}
    document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    section = document.get("allocator") or {} if isinstance(document, dict) else None
    if not isinstance(section, dict) or section.keys() - _KEYS:
        raise ValueError(f"allocator: a mapping of {', '.join(sorted(_KEYS))} is needed")
    return section


def _merged(tree: Tree, flags: argparse.Namespace, section: dict[str, Any]) -> Settings:
    trusted = section.get("trusted_uids", []) if flags.trusted_uid is None else flags.trusted_uid
    deadline = flags.nvml_deadline_seconds or section.get("nvml_deadline_seconds", 30)
    if not all(type(uid) is int and uid >= 0 for uid in trusted) or not 0 < deadline <= 600:
        raise ValueError("trusted_uids: numbers; nvml_deadline_seconds: above 0, at most 600")
    half_life, archive_days = section.get("half_life_hours", 168), section.get("archive_days", 35)
    if not 1 <= half_life <= 8760 or not 1 <= archive_days <= 3660:
        raise ValueError("half_life_hours: from 1 to 8760; archive_days: from 1 to 3660")
    return Settings(
        tree=tree,
        trusted_uids=frozenset({0, *trusted}),
        nvml_deadline_seconds=deadline,
        timing=Timing(half_life_seconds=half_life * 3600.0, archive_days=archive_days),
        zone=_zone(section.get("time_zone")),
    )


def _zone(name: object) -> tzinfo:
    """A zone by name, else this machine's, else UTC. Raises: ValueError: there is no such zone."""
    if name is not None:
        try:
            return ZoneInfo(str(name))
        except ZoneInfoNotFoundError as error:
            raise ValueError(f"time_zone: {name!r} is none; write one like Europe/Berlin") from error
    if not _LOCAL_TIME.exists():
        return UTC
    with _LOCAL_TIME.open("rb") as file:
        return ZoneInfo.from_file(file)


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


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises: LedgerUnavailable, OSError, AddressTaken."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    settings.tree.ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    now = clock()
    worker = NvmlWorker(deadline_seconds=settings.nvml_deadline_seconds)
    service = Allocator(
        ledger=Ledger(settings.tree.ledger, half_life_seconds=settings.timing.half_life_seconds),
        inventory=worker,
        now=now,
        new_id=new_id,
        timing=settings.timing,
        zone=settings.zone,
    )
    runner = web.AppRunner(
        Api(service, trusted_uids=settings.trusted_uids, now=now, new_id=new_id).application(),
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=2,
    )
    await runner.setup()
    path = settings.tree.allocator_socket
    handed = listener.inherited()
    server = await asyncio.get_running_loop().create_unix_server(
        Doorkeeper(_protocols(runner), trusted_uids=settings.trusted_uids),
        sock=handed[0] if handed else listener.listen(path, mode=0o666),
        backlog=_BACKLOG,
    )
    log(events.DAEMON_STARTED, version="0.1.0", sockets=["inherited" if handed else str(path)])
    notify.notify("READY=1")
    async with asyncio.TaskGroup() as tasks:
        sweeping = tasks.create_task(service.run())
        await stop.wait()
        notify.notify("STOPPING=1")
        sweeping.cancel()
    server.close()
    await runner.cleanup()
    await worker.close()  # first: a hung look ends with it
    await service.close()
    await worker.close()  # again: a look that was only starting its process may have done so since
    listener.remove(path)
    log(events.DAEMON_STOPPED, reason="asked to")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the daemon; the exit code."""
    os.umask(0o077)
    settings = parse_settings(sys.argv[1:] if arguments is None else arguments)
    configure("ds01-allocator")
    try:
        asyncio.run(serve(settings))
    except (LedgerUnavailable, listener.AddressTaken, OSError) as error:
        log(events.DAEMON_FAILED, problem=str(error))
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
