"""Values the allocator's tests share: moments, requests, leases, and a service over a real ledger."""

from __future__ import annotations

import asyncio
import itertools
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from allocator.foreign import Foreign
from allocator.held_devices import Held
from allocator.ledger import Ledger
from allocator.model import GpuRequest, Lease, Moment
from allocator.reconcile import Evidence
from allocator.service import Allocator, Timing
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from allocator.reconcile import Carrier
    from tests.fakes.fake_nvml import FakeNvml


_START = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.boot = "boot-1"

    def __call__(self) -> Moment:
        utc = (_START + timedelta(seconds=self.seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Moment(utc=utc, boottime_ms=int(self.seconds * 1000), boot_id=self.boot)


def want(**changes: object) -> GpuRequest:
    """One device for alice."""
    base = GpuRequest(
        owner_uid=Uid(1000), owner_name="alice", limit=8, count=1, request_id="r" * 12, session="one"
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def lease(name: str, *devices: str, owner: int = 1000, **changes: object) -> Lease:
    """A pending lease."""
    base = Lease(
        id=LeaseId(name),
        owner_uid=Uid(owner),
        owner_name=f"user{owner}",
        devices=tuple(sorted(DeviceUuid(item) for item in devices)),
        generations=(0,) * len(devices),
        gpus=tuple(DeviceUuid(item) if item.startswith("GPU-") else None for item in sorted(devices)),
        session="one",
        request_id="r" * 12,
        created=Clock()(),
        since=Clock()(),
        changed=Clock()(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def evidence(now: Moment, *carriers: Carrier, session: str = "one", **changes: object) -> Evidence:
    """What dockerd is said to hold, asked now."""
    base = Evidence(session=session, boot_id=now.boot_id, asked_ms=now.boottime_ms, carriers=carriers)
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def foreign(*names: str, runs: bool = True, name: str = "old", monitor: bool = False) -> Foreign:
    """A container that ds01 did not make, with the devices that it names."""
    held = Held(names=frozenset(names))
    return Foreign(id=ContainerId("f" * 64), name=name, runs=runs, held=held, monitor=monitor)


def service(
    path: Path,
    nvml: FakeNvml,
    clock: Clock,
    start: int = 0,
    sync: Callable[[int], None] = os.fdatasync,
    **more: Any,
) -> Allocator:
    """A service whose clock tests move, to which was told that there is no container but ds01's."""
    numbers = itertools.count(start)
    made = Allocator(
        ledger=Ledger(path, sync=sync),
        inventory=nvml,
        now=clock,
        new_id=lambda: LeaseId(f"lease{next(numbers)}"),
        timing=Timing(),
        **more,
    )
    made.foreign.tell(())
    return made


async def held(allocator: Allocator, **changes: object) -> Lease:
    """What a request is granted."""
    outcome = await allocator.lease(want(**changes))
    assert isinstance(outcome, Lease)
    return outcome


async def queued(allocator: Allocator, number: int) -> None:
    """Until so many requests wait in line."""
    async with asyncio.timeout(3):
        while len(allocator._line) != number:  # noqa: ASYNC110  the line tells nobody
            await asyncio.sleep(0.001)
