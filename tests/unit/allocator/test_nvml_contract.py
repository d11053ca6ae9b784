"""The NVML process against the simulated driver library: what pynvml really answers, through the real child."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from allocator.model import Device, DeviceKind, DeviceState, InventoryUnavailable
from allocator.worker import NvmlWorker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.skipif(not (ROOT / "lab" / "nvml").is_dir(), reason="no simulated NVML in this tree")


@pytest.fixture(scope="module")
def sim() -> Any:
    return import_module("lab.simulate")


@pytest.fixture(scope="module")
def library(sim: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    built: Path = sim.build(tmp_path_factory.mktemp("nvml"))
    return built


@pytest.fixture
def state(library: Path, sim: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(library.parent))
    monkeypatch.setenv("DS01_SIM_NVML", str(tmp_path))
    sim.write_state(tmp_path, sim.machine("a100-40,a100-40:3g.20gb+1g.5gb,a100-40:empty"))
    return tmp_path


@pytest.fixture
async def worker() -> AsyncIterator[NvmlWorker]:
    one = NvmlWorker(deadline_seconds=5)
    yield one
    await one.close()


async def seen(worker: NvmlWorker) -> dict[str, Device]:
    return {device.index: device for device in (await worker.read()).devices.values()}


async def test_a_machine_is_read_whole(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """GPUs, MIG devices and a GPU in MIG mode without any appear with kind, state, memory and parent."""
    devices = await seen(worker)
    assert set(devices) == {"0", "1", "1:0", "1:1", "2"}
    assert (devices["0"].kind, devices["0"].state, devices["0"].memory_mib) == ("gpu", "ok", 40960)
    assert devices["1"].state is devices["2"].state is DeviceState.UNUSABLE
    part = devices["1:0"]
    assert (part.kind, part.parent, part.profile) == (DeviceKind.MIG, devices["1"].uuid, "3g.20gb")
    assert part.uuid == sim.mig_uuid(devices["1"].uuid, part.gpu_instance_id, part.compute_instance_id)
    assert part.memory_mib is not None
    assert 19000 < part.memory_mib < 20480
    assert devices["1:1"].profile == "1g.5gb"
    assert {device.pids for device in devices.values() if device.state == "ok"} == {()}


async def test_processes_are_seen_on_their_device(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """A process on a GPU and one on a MIG device make exactly those two busy."""
    devices = await seen(worker)
    part = devices["1:1"]
    sim.add_process(state, os.getpid(), devices["0"].uuid)
    sim.add_process(
        state, os.getpid(), devices["1"].uuid, gi=part.gpu_instance_id, ci=part.compute_instance_id
    )
    devices = await seen(worker)
    assert devices["0"].pids == devices["1:1"].pids == (os.getpid(),)
    assert devices["1:0"].pids == ()


async def test_a_gap_in_the_numbering_hides_nothing(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """After the first MIG device was destroyed, the second is still found under its own number."""
    with sim.changed(state) as document:
        del document["gpus"][1]["gis"][0]
    devices = await seen(worker)
    assert [index for index in devices if index.startswith("1:")] == ["1:1"]


async def test_pending_mig_mode_is_not_leased_whole(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """A GPU that will be in MIG mode after its next reset is unusable already."""
    with sim.changed(state) as document:
        document["gpus"][0]["mig"]["pending"] = 1
    assert (await seen(worker))["0"].state is DeviceState.UNUSABLE


async def test_a_lost_gpu_is_never_ok(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """A GPU off the bus and its MIG devices are lost or left out; the others stay."""
    devices = await seen(worker)
    sim.lose_gpu(state, devices["1"].uuid)
    after = await seen(worker)
    assert after["0"] == devices["0"]
    assert all(device.state is not DeviceState.OK for index, device in after.items() if index[0] == "1")


async def test_unsupported_is_unknown(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """Where processes cannot be listed they are None, which is never free."""
    for version in ("", "_v2", "_v3"):
        sim._add_fault(state, {"symbol": f"nvmlDeviceGetComputeRunningProcesses{version}", "ret": 3})
    assert (await seen(worker))["0"].pids is None


async def test_an_outage_is_told_and_ends(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """A driver that is not loaded is InventoryUnavailable, and when it is back the same worker answers."""
    sim._add_fault(state, {"symbol": "nvmlInitWithFlags", "ret": 9})
    with pytest.raises(InventoryUnavailable, match="Driver"):
        await worker.read()
    sim.heal(state)
    assert await seen(worker)


async def test_a_hung_call_is_given_up(sim: Any, state: Path) -> None:
    """A call that does not return costs the deadline, and the next read after healing works."""
    worker = NvmlWorker(deadline_seconds=1)
    await worker.read()
    sim.hang(state, "nvmlDeviceGetMigMode", milliseconds=30_000)
    with pytest.raises(InventoryUnavailable, match="did not answer"):
        await worker.read()
    sim.heal(state)
    assert worker._process is not None
    await worker._process.wait()
    assert await seen(worker)
    await worker.close()
