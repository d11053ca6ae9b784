"""What looking at the GPUs costs: the real NVML process against the simulated driver, whose own cost is in it."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from allocator.worker import NvmlWorker
from bench.scenarios import Figures
from lab import simulate

_MACHINE: Final = "8xa100-40:7x1g.5gb"
_PROCESSES: Final = 200


def look(*, looks: int) -> Figures:
    """One look at 8 GPUs with 7 MIG devices and 200 processes: processor time of the child, and time until it is read."""
    with tempfile.TemporaryDirectory() as folder:
        library = simulate.build(Path(folder) / "library")
        state = Path(folder) / "state"
        simulate.write_state(state, _busy())
        os.environ |= {"LD_LIBRARY_PATH": str(library.parent), "DS01_SIM_NVML": str(state)}
        try:
            return asyncio.run(_measured(looks))
        finally:
            del os.environ["LD_LIBRARY_PATH"], os.environ["DS01_SIM_NVML"]


def _busy() -> simulate.State:
    machine = simulate.machine(_MACHINE)
    places = [(gpu["uuid"], gi["id"]) for gpu in machine["gpus"] for gi in gpu["gis"]]
    for number in range(_PROCESSES):
        uuid, instance = places[number % len(places)]
        machine["procs"].append(
            {"pid": 1000 + number, "gpu": uuid, "gi": instance, "ci": 0, "mib": 64, "type": "C"}
        )
    return machine


async def _measured(looks: int) -> Figures:
    worker = NvmlWorker(deadline_seconds=30)
    await worker.read()
    cpu, wall = [], []
    for _ in range(looks):
        began = time.perf_counter()
        read = await worker.read()
        wall.append((time.perf_counter() - began) * 1000)
        cpu.append(read.cpu_ms or 0.0)
    await worker.close()
    return {
        "gpu_look_cpu_median_ms": statistics.median(cpu),
        "gpu_look_cpu_worst_ms": max(cpu),
        "gpu_look_median_ms": statistics.median(wall),
    }
