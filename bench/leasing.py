"""What the benchmarks of leases share: a machine of MIG devices, a service over a ledger, and times."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import TYPE_CHECKING

from allocator.ledger import Ledger
from allocator.model import Device, DeviceKind, DeviceState, GpuRequest, GroupLimit, Moment, Snapshot
from allocator.service import Allocator, Timing
from policy.model import DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Iterator

Figures = dict[str, float]
GPUS, PARTS = 8, 7
USERS, YEARS = 1000, 10
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """Time of this machine, from a day in 2036, after ten years of leases."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self._day = START + timedelta(days=365 * YEARS)

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


def allocator(ledger: Ledger) -> Allocator:
    numbers = itertools.count(random.getrandbits(60))
    made = Allocator(
        ledger=ledger,
        inventory=Machine(),
        now=Clock(),
        new_id=lambda: LeaseId(f"{next(numbers):016x}"),
        timing=Timing(fresh_seconds=3600),
    )
    made.foreign.tell(())
    return made


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
