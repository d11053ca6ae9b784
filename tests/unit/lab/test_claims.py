"""Processes that claim a simulated GPU: seen by NVML and by the lab as long as they live."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lab import simulate
from lab.claims import Claim, build_job, held

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.simulated_gpus import SimulatedMachine

GPU = simulate.gpu_uuid(0)
MIG = simulate.mig_uuid(simulate.gpu_uuid(2), 1, 0)
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_job(tmp_path_factory.mktemp("job"))


@pytest.fixture
def start(sim: SimulatedMachine, program: Path) -> Iterator[Start]:
    """Start the job with arguments and wait until it has claimed so many devices."""
    running: list[subprocess.Popen[str]] = []

    def begin(*arguments: str, devices: int = 1) -> subprocess.Popen[str]:
        job = subprocess.Popen([program, *arguments], env=sim.environment, stdout=subprocess.PIPE, text=True)
        running.append(job)
        assert job.stdout is not None
        for _ in range(devices):
            assert job.stdout.readline().startswith("running on ")
        return job

    yield begin
    for job in running:
        job.kill()
        job.communicate(timeout=10)


def seen(sim: SimulatedMachine) -> str:
    return sim.ask(
        "print([[(r.pid, r.usedGpuMemory) for r in p.nvmlDeviceGetComputeRunningProcesses_v3(h)] for h in (gpu[0], gpu[2])])"
    )


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_a_job_is_a_process_until_it_ends(sim: SimulatedMachine, start: Start, by: signal.Signals) -> None:
    """On a GPU and a MIG device, with its memory; gone however it ends."""
    job = start("-m", "300", GPU, MIG, devices=2)
    assert seen(sim) == f"[[({job.pid}, {300 << 20})], [({job.pid}, {300 << 20})]]"
    both = [Claim(uuid=uuid, pid=job.pid, mib=300) for uuid in (GPU, MIG)]
    assert list(held(sim.dir)) == both
    job.send_signal(by)
    assert job.wait(10) == (0 if by is signal.SIGTERM else -by)
    assert seen(sim) == "[[], []]"
    assert list(held(sim.dir)) == []


def test_memory_may_be_unknown_and_a_device_shared(sim: SimulatedMachine, start: Start) -> None:
    """Two jobs on one device are two processes, one of them without a number."""
    pids = [start("-m", amount, GPU).pid for amount in ("unknown", "5")]
    told = {(one.pid, one.mib) for one in held(sim.dir)}
    assert told == {(pids[0], None), (pids[1], 5)}


def test_a_device_in_use_cannot_be_destroyed(sim: SimulatedMachine, start: Start) -> None:
    """A claim keeps an instance as a listed process does."""
    start(MIG)
    script = "gi = p.nvmlDeviceGetGpuInstanceById(gpu[2], 1); print(code(p.nvmlComputeInstanceDestroy, p.nvmlGpuInstanceGetComputeInstanceById(gi, 0)))"
    assert sim.ask(script) == "19"


def test_without_a_device_there_is_nothing_to_run_on(sim: SimulatedMachine, program: Path) -> None:
    """Outside a container no device is visible: one must be named."""
    done = sim.run(str(program))
    assert (done.returncode, done.stderr) == (1, "ds01-sim-job: no GPU here; name a device\n")


def test_the_job_is_compiled_once(program: Path) -> None:
    """A program newer than its source is kept."""
    before = program.stat().st_mtime_ns
    assert build_job(program.parent).stat().st_mtime_ns == before
