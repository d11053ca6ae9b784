"""A year of a lab, simulated: ds01's queue beside plain first come, first served. `python -m bench.lab_year [--write] [--days N]`.

30 people, four A100: three whole, one in seven parts. Three of them hand in many jobs at once, as sweeps do. The same seeded arrivals
go through both lines; decisions are the allocator's own (`allocator.queue`), time is not waited for.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import random
import statistics
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from allocator import queue
from allocator.board import Board
from allocator.model import DeviceState, GpuRequest, Lease, Moment, Placement, Snapshot
from allocator.queue import Claims, Entry
from allocator.shares import Usage, shares, with_lease
from bench.leasing import device
from bench.results import write_block
from policy.model import LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Callable

USERS, GREEDY = 30, 3
_START = datetime(2026, 1, 1, tzinfo=UTC)
_KINDS = (  # chance, profile, count, median hours
    (0.45, "1g.5gb", 1, 3.0),
    (0.45, "full", 1, 4.0),
    (0.10, "full", 2, 6.0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One create and how long its container runs."""

    number: int
    arrives: float
    uid: Uid
    profile: str
    count: int
    seconds: float


@dataclass(slots=True, kw_only=True)
class Run:
    """One line over one year."""

    waits: list[tuple[Job, float]] = field(default_factory=list)
    used: float = 0.0


def machine() -> Snapshot:
    whole = [replace(device(gpu), state=DeviceState.OK) for gpu in range(3)]
    every = [*whole, device(3), *(device(3, part) for part in range(7))]
    return Snapshot(devices={one.uuid: one for one in every})


def arrivals(days: int, seed: int) -> list[Job]:
    """Most come in working hours, one job at a time; sweeps of 5 to 20 jobs from a few."""
    rng = random.Random(seed)  # a seeded trace
    jobs: list[Job] = []
    for day in range(days):
        busy = 1.0 if day % 7 < 5 else 0.3
        for uid in range(USERS):
            if uid < GREEDY and rng.random() < 0.06 * busy:
                at = day * 86400 + rng.uniform(8, 20) * 3600
                jobs += [_job(rng, at, uid) for _ in range(rng.randint(5, 20))]
            elif uid >= GREEDY:
                many = sum(rng.random() < 0.13 * busy for _ in range(3))
                jobs += [_job(rng, day * 86400 + rng.uniform(8, 20) * 3600, uid) for _ in range(many)]
    ordered = sorted(jobs, key=lambda job: job.arrives)
    return [replace(job, number=number) for number, job in enumerate(ordered)]


def _job(rng: random.Random, at: float, uid: int) -> Job:
    (_, profile, count, hours) = rng.choices(_KINDS, [kind[0] for kind in _KINDS])[0]
    seconds = min(48.0, rng.lognormvariate(0, 0.8) * hours) * 3600
    return Job(number=0, arrives=at, uid=Uid(1000 + uid), profile=profile, count=count, seconds=seconds)


def moment(seconds: float) -> Moment:
    utc = (_START + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    return Moment(utc=utc, boottime_ms=int(seconds * 1000), boot_id="sim")


class Lab:
    """The machine, who holds what, and a line."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.snapshot = machine()
        self.leases: dict[LeaseId, Lease] = {}
        self.past: dict[Uid, Usage] = {}
        self.line: list[tuple[Entry, Job]] = []
        self.done = Run()
        self.ends: list[tuple[float, LeaseId]] = []
        self.board: Board | None = None

    def play(self, serve: Callable[[Lab, float], None]) -> Run:
        coming = list(reversed(self.jobs))
        while coming or self.ends:
            if coming and (not self.ends or coming[-1].arrives <= self.ends[0][0]):
                job = coming.pop()
                now = job.arrives
                self.line.append((Entry(want=_want(job), asked_ms=int(now * 1000), number=job.number), job))
            else:
                now, ended = heapq.heappop(self.ends)
                lease = self.leases.pop(ended)
                self.past[lease.owner_uid] = with_lease(self.past.get(lease.owner_uid), lease, moment(now))
            serve(self, now)
        return self.done

    def view(self, now: float) -> Board:
        self.board = Board(self.snapshot, self.leases.values(), moment(now), same_devices=self.board)
        return self.board

    def start(self, entry: Entry, job: Job, placement: Placement, now: float) -> None:
        at = moment(now)
        lease = Lease(
            id=LeaseId(str(job.number)),
            owner_uid=job.uid,
            owner_name="x",
            devices=placement.devices,
            equivalents=placement.equivalents,
            session="s",
            request_id="r",
            created=at,
            since=at,
            changed=at,
        )
        self.leases[lease.id] = lease
        self.line.remove((entry, job))
        heapq.heappush(self.ends, (now + job.seconds, lease.id))
        self.done.waits.append((job, now - job.arrives))
        self.done.used += float(placement.equivalents) * job.seconds


def _want(job: Job) -> GpuRequest:
    return GpuRequest(
        owner_uid=job.uid,
        owner_name="x",
        limit=16,
        count=job.count,
        profile=job.profile,
        request_id="r",
        session="s",
    )


def first_come(lab: Lab, now: float) -> None:
    """The oldest, or nobody."""
    while lab.line:
        entry, job = lab.line[0]
        found = queue.answer(lab.view(now), entry.want, ()).outcome
        if not isinstance(found, Placement):
            return
        lab.start(entry, job, found, now)


def fair(lab: Lab, now: float) -> None:
    """As the allocator serves its line."""
    used = shares({job.uid for _, job in lab.line}, lab.past, lab.leases.values(), moment(now))
    claims: list[Claims] = []
    together = queue.NO_CLAIMS
    board = lab.view(now)
    for entry, job in sorted(lab.line, key=lambda item: queue.rank(item[0], used)):
        own = queue.still_waits(board, entry.want, (), together)
        if own is None:
            found = queue.answer(board, entry.want, (), Claims.of(claims))
            if isinstance(found.outcome, Placement):
                lab.start(entry, job, found.outcome, now)
                board = lab.view(now)
                continue
            own = found.claims
        claims.append(own)
        together = Claims(devices=together.devices | own.devices)


def figures(name: str, run: Run, days: int) -> dict[str, float]:
    waits = sorted(wait / 3600 for _, wait in run.waits)
    others = [wait / 3600 for job, wait in run.waits if job.uid >= 1000 + GREEDY]
    by_user = [
        statistics.mean(job.seconds / (job.seconds + wait) for job, wait in group)
        for _, group in itertools.groupby(
            sorted(run.waits, key=lambda item: item[0].uid), key=lambda item: item[0].uid
        )
    ]
    jain = sum(by_user) ** 2 / (len(by_user) * sum(value**2 for value in by_user))
    last = max(job.arrives + wait + job.seconds for job, wait in run.waits)
    return {
        f"{name}_jobs": len(waits),
        f"{name}_utilisation": run.used / (4 * max(last, days * 86400)),
        f"{name}_wait_p50_hours": statistics.median(waits),
        f"{name}_wait_p95_hours": statistics.quantiles(waits, n=20)[18],
        f"{name}_wait_p95_hours_of_those_without_sweeps": statistics.quantiles(others, n=20)[18],
        f"{name}_jain": jain,
    }


def main() -> None:
    """Play both, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.lab_year", description=__doc__)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="put the figures into bench/RESULTS.md")
    options = parser.parse_args()
    jobs = arrivals(options.days, options.seed)
    found: dict[str, float] = {}
    for name, serve in (("fifo", first_come), ("ds01", fair)):
        found |= figures(name, Lab(jobs).play(serve), options.days)
    for name, value in found.items():
        print(f"{name}: {value:.3f}")
    if options.write:
        write_block("figures of a year", found, "python -m bench.lab_year --write")


if __name__ == "__main__":
    main()
