"""How long the allocator takes to decide and to write down: `python -m bench.leases [--quick] [--write] [--directory DIR]`.

Needs no root, no dockerd and no GPU. The ledger lies in a temporary directory below DIR (a disk, for fsync to mean something).
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from allocator import rows
from allocator.board import Board
from allocator.granting import Declined
from allocator.ledger import Ledger
from allocator.model import (
    Device,
    DeviceKind,
    DeviceState,
    GpuRequest,
    GroupLimit,
    Lease,
    LeaseState,
    Moment,
    Snapshot,
)
from allocator.place import place
from allocator.reservations import Reservation
from allocator.service import Allocator, Timing
from bench.results import write_block
from observability.logging import configure
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from policy.when import parse_when

if TYPE_CHECKING:
    from collections.abc import Iterator

Figures = dict[str, float]
GPUS, PARTS, WAITING = 8, 7, 200
USERS, YEARS, LEASES_A_DAY = 1000, 10, 1
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Time of this machine, from a day in 2036, after ten years of leases."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._day = _START + timedelta(days=365 * YEARS)

    def __call__(self) -> Moment:
        seconds = time.monotonic() - self._begin
        return moment(self._day + timedelta(seconds=seconds), seconds)


def moment(at: datetime, seconds: float) -> Moment:
    utc = at.isoformat(timespec="seconds").replace("+00:00", "Z")
    return Moment(utc=utc, boottime_ms=int(seconds * 1000), boot_id="bench")


def device(gpu: int, part: int | None = None) -> Device:
    parent = DeviceUuid(f"GPU-{gpu:08x}-0000-0000-0000-000000000000")
    if part is None:
        return Device(
            uuid=parent,
            kind=DeviceKind.GPU,
            index=str(gpu),
            profile="A100",
            memory_mib=40960,
            processes=(),
            state=DeviceState.UNUSABLE,
        )
    return Device(
        uuid=DeviceUuid(f"MIG-{gpu:08x}-{part:04x}-5000-0000-000000000000"),
        kind=DeviceKind.MIG,
        index=f"{gpu}:{part}",
        parent=parent,
        profile="1g.5gb",
        memory_mib=4864,
        gpu_instance_id=7 + part,
        compute_instance_id=0,
        processes=(),
    )


class Machine:
    """8 GPUs in MIG mode with 7 devices each, all idle."""

    def __init__(self) -> None:
        parts = [device(gpu, part) for gpu in range(GPUS) for part in range(PARTS)]
        every = [*(device(gpu) for gpu in range(GPUS)), *parts]
        self.snapshot = Snapshot(devices={one.uuid: one for one in every})

    async def read(self) -> Snapshot:
        return self.snapshot


def want(uid: int, **changes: object) -> GpuRequest:
    base = GpuRequest(
        owner_uid=Uid(uid),
        owner_name=f"user{uid}",
        groups=(GroupLimit(name=f"group{uid % 10}", devices=40),),
        limit=16,
        equivalents=Fraction(4),
        count=1,
        request_id=f"{uid:012x}",
        session="bench",
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # fields by name


def allocator(path: Path) -> Allocator:
    numbers = itertools.count(random.getrandbits(60))
    return Allocator(
        ledger=Ledger(path),
        inventory=Machine(),
        now=Clock(),
        new_id=lambda: LeaseId(f"{next(numbers):016x}"),
        timing=Timing(fresh_seconds=3600),
    )


class Times:
    """Wall time, and what this process computed in it: other work on the machine is in the first alone."""

    def __init__(self) -> None:
        self.wall_us: list[float] = []
        self.cpu_us: list[float] = []


@contextmanager
def timed(into: Times) -> Iterator[None]:
    begin, computed = time.perf_counter_ns(), time.process_time_ns()
    yield
    into.wall_us.append((time.perf_counter_ns() - begin) / 1000)
    into.cpu_us.append((time.process_time_ns() - computed) / 1000)


def summary(name: str, times: Times) -> Figures:
    return {
        f"{name}_median_us": statistics.median(times.wall_us),
        f"{name}_p99_us": statistics.quantiles(times.wall_us, n=100)[98],
        f"{name}_cpu_median_us": statistics.median(times.cpu_us),
        f"{name}_cpu_p99_us": statistics.quantiles(times.cpu_us, n=100)[98],
    }


async def placement(folder: Path, rounds: int) -> Figures:
    """One decision on a machine of 56 MIG devices with 200 waiting and ten reservations: pure, and as the service makes it."""
    service = allocator(folder / "placement")
    await service.watch.look()
    for number in range(10):
        when = f"daily {number + 8:02}:00-{number + 9:02}:00"
        await service.reserve(
            Reservation(
                id=f"r{number}",
                group="g",
                name="g",
                count=2,
                profile="mig",
                when=parse_when(when),
                when_text=when,
            )
        )
    held = []
    for at in range(GPUS * PARTS - 2):
        outcome = await service.lease(want(1000 + at % 30, limit=56, equivalents=None, groups=()))
        assert isinstance(outcome, Lease)
        held.append(outcome)
    async with asyncio.TaskGroup() as tasks:
        waiters = [
            tasks.create_task(service.lease(want(2000 + at % 50, count=3 + at % 3, wait_seconds=3600)))
            for at in range(WAITING)
        ]
        while len(service._line) < WAITING:  # noqa: ASYNC110  the line tells nobody
            await asyncio.sleep(0.01)
        figures = await _decisions(service, rounds)
        for waiter in waiters:
            waiter.cancel()
    await service.close()
    return figures


async def _decisions(service: Allocator, rounds: int) -> Figures:
    pure: Times = Times()
    whole, serving = Times(), Times()
    board, _ = await service._granting.books()
    for number in range(rounds):
        asked = want(3000 + number, count=3)
        with timed(pure):
            place(Board(board.snapshot, board.leases, board.now), asked)
        with timed(whole):
            outcome = await service._granting.decide(service._line.enter(asked, board.now or Clock()()))
        assert isinstance(outcome, Declined)
    for _ in range(max(20, rounds // 20)):
        with timed(serving):
            await service._granting.serve()
    return (
        summary("placement_pure", pure)
        | summary("decision_with_200_waiting", whole)
        | summary("serve_all_200_waiting", serving)
    )


async def writing(path: Path, rounds: int, name: str) -> Figures:
    """Reserve and confirm, then release, each on disk before it is told."""
    service = allocator(path)
    await service.watch.look()
    both, ending, carrying = Times(), Times(), Times()
    for number in range(rounds):
        if number % 50 == 0:  # as each sweep does
            with timed(carrying):
                service._ledger.checkpoint()
        with timed(both):
            lease = await service.lease(want(1000 + number % USERS))
            assert isinstance(lease, Lease)
            await service.confirm(lease.id, ContainerId(f"{number:064x}"), who="bench")
        with timed(ending):
            await service.release(lease.id, who="bench", why="removed")
    await service.close()
    return (
        summary(f"{name}_reserve_confirm", both)
        | summary(f"{name}_release", ending)
        | summary(f"{name}_checkpoint", carrying)
    )


async def archiving(path: Path) -> Figures:
    """Putting old leases away, as each sweep does: 20 at a time."""
    service = allocator(path)
    times, idle = Times(), Times()
    moved = 0
    for _ in range(40):
        with timed(times):
            moved += service._ledger.archive("2035-12-01T00:00:00Z", most=20)
    for _ in range(200):
        with timed(idle):
            service._ledger.archive("2000-01-01T00:00:00Z", most=20)
    await service.close()
    assert moved
    return summary("archive_20", times) | summary("archive_nothing", idle)


def fill(path: Path, leases: int) -> None:
    """Ten years of leases: those of the last weeks as they are, the others put away."""
    Ledger(path).close()
    base = sqlite3.connect(path, isolation_level=None)
    base.execute("PRAGMA journal_mode = OFF")  # half the writing; opening it for use brings WAL back
    base.execute("PRAGMA synchronous = OFF")
    recent = int(leases / (365 * YEARS) * 45)
    base.execute("BEGIN")
    base.executemany("INSERT INTO old_leases VALUES (?, ?, ?, ?, ?, ?)", _old(leases - recent, leases))
    for item in _recent(leases - recent, leases):
        base.execute(f"INSERT INTO leases ({rows.COLUMNS}) VALUES ({rows.PLACES})", rows.lease_row(item))
        base.execute(
            "INSERT INTO lease_devices (lease, device, live) VALUES (?, ?, 0)", (item.id, item.devices[0])
        )
        for what in ("granted", "bound", "active", "released"):
            base.execute(
                "INSERT INTO events (utc, boottime_ms, boot_id, lease, who, before, what, why)"
                " VALUES (?, 0, 'bench', ?, 'uid 0', NULL, ?, 'because')",
                (item.changed.utc, item.id, what),
            )
    base.executemany(
        "INSERT INTO usage VALUES (?, ?, '2035-12-01T00:00:00Z', 0, 'old')",
        [(1000 + at, 100.0 * at) for at in range(USERS)],
    )
    base.execute("COMMIT")
    base.close()


def _over(number: int, leases: int) -> Lease:
    at = _START + timedelta(days=365 * YEARS * number / leases)
    uid = 1000 + number % USERS
    name = f"{hash((number, 'bench')) & (1 << 64) - 1:016x}"
    one = device(number % GPUS, number % PARTS)
    return Lease(
        id=LeaseId(name),
        owner_uid=Uid(uid),
        owner_name=f"user{uid}",
        devices=(one.uuid,),
        generations=(1,),
        groups=(f"group{uid % 10}",),
        equivalents=Fraction(1, 7),
        session="0123456789abcdef",
        request_id=f"{number:012x}",
        created=moment(at, 0),
        since=moment(at, 0),
        changed=moment(at + timedelta(hours=2), 7200),
        state=LeaseState.RELEASED,
        container=ContainerId(f"{number:064x}"),
    )


def _old(count: int, leases: int) -> Iterator[tuple[object, ...]]:
    events = json.dumps([["2030-01-01T00:00:00Z", 0, "bench", "x", "uid 0", None, "granted", "because"]] * 4)
    template = rows.archived(_over(0, leases))
    for number in range(count):
        at = (_START + timedelta(days=365 * YEARS * number / leases)).isoformat(timespec="seconds")
        yield (
            f"{hash((number, 'old')) & (1 << 64) - 1:016x}",
            1000 + number % USERS,
            at,
            at,
            template,
            events,
        )


def _recent(first: int, leases: int) -> Iterator[Lease]:
    return (_over(number, leases) for number in range(first, leases))


async def measure(folder: Path, *, quick: bool) -> Figures:
    rounds = 300 if quick else 2000
    figures = await placement(folder, rounds)
    figures |= await writing(folder / "empty", rounds, "empty_ledger")
    leases = USERS * 365 * YEARS * LEASES_A_DAY // (20 if quick else 1)
    fill(folder / "full", leases)
    os.sync()  # what filling left to be written is not the service's
    figures["full_ledger_leases"] = leases
    figures["full_ledger_mib"] = (folder / "full").stat().st_size / (1 << 20)
    figures |= await archiving(folder / "full")
    figures |= await writing(folder / "full", rounds, "full_ledger")
    return figures


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.leases", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, half a year of leases")
    parser.add_argument("--write", action="store_true", help="put the figures into bench/RESULTS.md")
    parser.add_argument("--directory", type=Path, help="where the ledgers lie; a disk")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ds01-leases-", dir=options.directory))
    try:
        with Path(os.devnull).open("w") as nowhere:  # lines are made, as in the service, and go nowhere
            configure("bench", stream=nowhere)
            figures = asyncio.run(measure(folder, quick=options.quick))
    finally:
        shutil.rmtree(folder)
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")
    if options.write:
        command = "python -m bench.leases --write" + (" --quick" if options.quick else "")
        write_block("lease figures", figures, command)


if __name__ == "__main__":
    main()
