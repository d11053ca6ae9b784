"""What looking at the GPUs costs: the allocator's own parts with the real NVML process, against the simulated driver, whose own cost is in it.

One sweep is all that the allocator does each time: NVML is asked, the answer read, judged and written down, and every process looked
at in /proc and attributed. A scan of all descriptors of the machine comes more rarely, and each sweep bears its share.
"""

from __future__ import annotations

import asyncio
import logging
import os
import statistics
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

from allocator.app import clock, new_id
from allocator.holders import Holdings, holders
from allocator.model import GpuRequest, Lease
from allocator.parts import Parts
from allocator.settings import Settings
from allocator.tracking import HOLDERS_SECONDS
from bench.scenarios import Figures
from host.tree import Tree
from lab import simulate
from policy.model import ContainerId, Uid

if TYPE_CHECKING:
    from collections.abc import Iterator

_MACHINE: Final = "8xa100-40:7x1g.5gb"
_PROCESSES: Final = 200
_USER: Final = Uid(54321)  # of nobody: each look at whose a process is asks the accounts in vain
_SCANS: Final = 10
_DRIVERS: Final = {195: "nvidia", 510: "nvidia-uvm"}  # without an NVIDIA driver there is nothing to scan for


class _Cost(NamedTuple):
    """Processor time of one sweep, in ms: the NVML process; what the service does with it; whose each process is."""

    nvml: float
    service: float
    attribution: float


def sweep(*, sweeps: int) -> Figures:
    """Sweeps of 8 GPUs with 7 leased MIG devices each and 200 real processes on them: processor time of all, and its parts."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with tempfile.TemporaryDirectory() as folder, _simulated(Path(folder)) as state:
        try:
            return asyncio.run(_measured(Path(folder), state, sweeps))
        finally:
            structlog.reset_defaults()


@contextmanager
def _simulated(folder: Path) -> Iterator[Path]:
    """Gives the directory of the machine's state."""
    library, state = simulate.build(folder / "library"), folder / "state"
    simulate.write_state(state, simulate.machine(_MACHINE))
    os.environ |= {"LD_LIBRARY_PATH": str(library.parent), "DS01_SIM_NVML": str(state)}
    try:
        yield state
    finally:
        del os.environ["LD_LIBRARY_PATH"], os.environ["DS01_SIM_NVML"]


async def _measured(folder: Path, state: Path, sweeps: int) -> Figures:
    tree = Tree.under(folder)
    for directory in (tree.run, tree.etc, tree.lib, tree.log, tree.ledger.parent):
        directory.mkdir(parents=True, exist_ok=True)
    parts = Parts(Settings(tree=tree), now=clock(), new_id=new_id)
    parts.told.tell(())
    parts.service.foreign.tell(())
    parts.tracking._scan = Holdings  # it is measured alone
    try:
        await _lease_all(parts)
        with _busy(state):
            await _one(parts)  # the first one tells of every process
            wall, costs = [], []
            for _ in range(sweeps):
                began = time.perf_counter()
                costs.append(await _one(parts))
                wall.append((time.perf_counter() - began) * 1000)
            return _figures(costs, wall, [_scan() for _ in range(_SCANS)], parts)
    finally:
        await parts.worker.close()
        await parts.service.close()
        await parts.access.close()
        parts.processes.close()


def _figures(costs: list[_Cost], wall: list[float], scans: list[float], parts: Parts) -> Figures:
    share = statistics.median(scans) * parts.settings.timing.sweep_seconds / HOLDERS_SECONDS
    return {
        "gpu_sweep_cpu_median_ms": statistics.median(map(sum, costs)) + share,
        "gpu_sweep_cpu_worst_ms": max(map(sum, costs)) + share,
        "gpu_sweep_of_nvml_cpu_median_ms": statistics.median(cost.nvml for cost in costs),
        "gpu_sweep_of_service_cpu_median_ms": statistics.median(cost.service for cost in costs),
        "gpu_sweep_of_attribution_cpu_median_ms": statistics.median(cost.attribution for cost in costs),
        "gpu_sweep_of_scan_share_cpu_median_ms": share,
        "gpu_sweep_median_ms": statistics.median(wall),
    }


async def _one(parts: Parts) -> _Cost:
    before, child = time.process_time(), _child_seconds(parts)
    await parts.service.sweep()
    between, child = time.process_time(), _child_seconds(parts) - child
    looks = parts.service.watch.looks
    await parts.tracking._round_if_new()
    after = time.process_time()
    found = parts.tracking.last
    if found is None or found.at != parts.service.watch.seen or parts.tracking._looks != looks:
        raise SystemExit("bench: a sweep without a round")
    return _Cost(child * 1000, (between - before) * 1000, (after - between) * 1000)


def _child_seconds(parts: Parts) -> float:
    """Processor time of the NVML process, with threads that have ended. SOURCE: clock_getcpuclockid(3), MAKE_PROCESS_CPUCLOCK."""
    process = parts.worker._process
    return 0.0 if process is None else time.clock_gettime((~process.pid << 3) | 2)


def _scan() -> float:
    before = time.process_time()
    holders(_DRIVERS)
    return (time.process_time() - before) * 1000


async def _lease_all(parts: Parts) -> None:
    """Each MIG device to a container of its own."""
    devices = simulate.machine(_MACHINE)["gpus"]
    for number in range(sum(len(gpu["gis"]) for gpu in devices)):
        want = GpuRequest(
            owner_uid=_USER,
            owner_name="user",
            limit=64,
            count=1,
            request_id=f"{number:012x}",
            session="bench",
        )
        lease = await parts.service.lease(want)
        if not isinstance(lease, Lease):
            raise SystemExit(f"bench: {lease.message}")
        await parts.service.confirm(lease.id, ContainerId(f"{number:064x}"), who="bench")


@contextmanager
def _busy(state: Path) -> Iterator[None]:
    """Real processes of a person, spread over the MIG devices."""
    started = [subprocess.Popen(["sleep", "inf"], user=_USER) for _ in range(_PROCESSES)]
    try:
        with simulate.changed(state) as machine:
            places = [(gpu["uuid"], gi["id"]) for gpu in machine["gpus"] for gi in gpu["gis"]]
            for number, process in enumerate(started):
                uuid, instance = places[number % len(places)]
                machine["procs"].append(
                    {"pid": process.pid, "gpu": uuid, "gi": instance, "ci": 0, "mib": 64, "type": "C"}
                )
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
