"""The NVML process against the simulated driver library: what pynvml really answers, through the real child."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from allocator.ledger import Ledger
from allocator.model import (
    Device,
    DeviceKind,
    DeviceState,
    InventoryUnavailable,
    Lease,
    LeaseState,
    Link,
    Problem,
    Refusal,
    Snapshot,
)
from allocator.readings import (
    EccErrors,
    GpuProcess,
    MigMode,
    ProcessType,
    RecoveryAction,
    RemappedRows,
    Span,
    Throttle,
)
from allocator.service import Allocator, Timing
from allocator.worker import NvmlWorker
from policy.model import LeaseId
from tests.fakes.fake_nvml import FakeNvml, gpu, mig, split
from tests.fakes.leasing import Clock, want

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

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
    one = NvmlWorker(deadline_seconds=20)
    yield one
    await one.close()


async def seen(worker: NvmlWorker) -> dict[str, Device]:
    return {device.index: device for device in (await worker.read()).devices.values()}


def leasing(worker: NvmlWorker, folder: Path) -> Allocator:
    """A service over the real child."""
    made = Allocator(
        ledger=Ledger(folder / "l"),
        inventory=worker,
        now=Clock(),
        new_id=map(LeaseId, map(str, itertools.count())).__next__,
        timing=Timing(),
    )
    made.foreign.tell(())
    return made


async def until(worker: NvmlWorker, holds: Callable[[Snapshot], bool]) -> Snapshot:
    """The first look of which it holds; what other threads of the child do shows a moment later."""
    async with asyncio.timeout(20):
        while not holds(read := await worker.read()):  # noqa: ASYNC110  another process tells nobody
            await asyncio.sleep(0.05)
    return read


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


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        pytest.param(9, Problem.NO_DRIVER, id="driver not loaded"),
        pytest.param(12, Problem.NO_LIBRARY, id="no library"),
        pytest.param(18, Problem.MISMATCH, id="driver upgraded beneath us"),
        pytest.param(4, Problem.NO_PERMISSION, id="not as root"),
        pytest.param(999, Problem.FAILED, id="unknown error"),
    ],
)
async def test_an_outage_is_named_and_ends(
    sim: Any, state: Path, worker: NvmlWorker, code: int, kind: Problem
) -> None:
    """What NVML answers to its start is told as a kind of problem, and when it is mended the worker answers."""
    sim._add_fault(state, {"symbol": "nvmlInitWithFlags", "ret": code})
    for _ in range(2):
        with pytest.raises(InventoryUnavailable) as caught:
            await worker.read()
        assert caught.value.problem is kind
    sim.heal(state)
    assert await seen(worker)


async def test_a_library_that_does_not_match_is_loaded_anew(
    sim: Any, state: Path, worker: NvmlWorker
) -> None:
    """A driver that was upgraded while NVML ran costs the process: only another can load the new library."""
    await worker.read()
    first = worker._process
    sim._add_fault(state, {"symbol": "nvmlDeviceGetCount_v2", "ret": 18})
    with pytest.raises(InventoryUnavailable, match="upgraded"):
        await worker.read()
    sim.heal(state)
    assert await seen(worker)
    assert worker._process is not first


async def test_no_library_at_all_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the NVIDIA driver says so, again and again, from one process."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    worker = NvmlWorker(deadline_seconds=5)
    for _ in range(2):
        with pytest.raises(InventoryUnavailable, match=r"no libnvidia-ml\.so\.1") as caught:
            await worker.read()
        assert caught.value.problem is Problem.NO_LIBRARY
    await worker.close()


async def test_a_machine_without_gpus_is_no_outage(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """A driver that finds no GPU gives an empty and complete snapshot."""
    sim.write_state(state, sim.machine("none"))
    read = await worker.read()
    assert (dict(read.devices), read.complete, read.driver) == ({}, True, "550.54.15")


async def test_a_hung_gpu_hides_no_other(sim: Any, state: Path) -> None:
    """A call that does not return costs its GPU: unresponsive, nothing known of it, the others fresh in time."""
    worker = NvmlWorker(deadline_seconds=20, gpu_seconds=2)
    before = await seen(worker)
    sim._add_fault(
        state,
        {
            "gpu": before["1"].uuid,
            "symbol": "nvmlDeviceGetComputeRunningProcesses_v3",
            "hang_ms": 60_000,
            "times": 1,
        },
    )
    sim.add_process(state, os.getpid(), before["0"].uuid)
    for limit in (10, 2):  # the second look does not wait again
        began = time.monotonic()
        after = await seen(worker)
        assert time.monotonic() - began < limit
        for index in ("1", "1:0", "1:1"):
            assert (after[index].state, after[index].pids) == (DeviceState.UNRESPONSIVE, None)
            assert after[index].uuid == before[index].uuid
        assert after["0"].pids == (os.getpid(),)
    silent = after["1"].silent_seconds
    assert silent is not None
    assert silent > 2
    await worker.close()


async def test_a_gpu_that_answers_again_is_seen_again(sim: Any, state: Path) -> None:
    """When the call returns after all, the next look has the GPU's devices as before."""
    worker = NvmlWorker(deadline_seconds=20, gpu_seconds=1.5)
    before = await seen(worker)
    sim._add_fault(
        state, {"gpu": before["1"].uuid, "symbol": "nvmlDeviceGetMigMode", "hang_ms": 3_000, "times": 1}
    )
    assert (await seen(worker))["1:0"].state is DeviceState.UNRESPONSIVE
    part = before["1:0"].uuid
    again = await until(worker, lambda one: one.devices[part].state is DeviceState.OK)
    assert again.devices[part].pids == ()
    await worker.close()


async def test_a_gpu_that_hangs_from_the_start_is_not_taken_for_gone(sim: Any, state: Path) -> None:
    """It is counted as unidentified, and the snapshot says that it is not complete."""
    sim._add_fault(
        state, {"gpu": sim.gpu_uuid(1), "symbol": "nvmlDeviceGetUUID", "hang_ms": 60_000, "times": 1}
    )
    worker = NvmlWorker(deadline_seconds=20, gpu_seconds=2)
    read = await worker.read()
    assert {device.index for device in read.devices.values()} == {"0", "2"}
    assert (list(read.unidentified), read.complete) == (["1"], False)
    await worker.close()


async def test_a_gpu_lost_from_the_start_is_gone(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """A GPU that the driver says is lost is told, and whoever held it has lost it."""
    sim.lose_gpu(state, sim.gpu_uuid(2))
    read = await worker.read()
    assert {device.index for device in read.devices.values()} == {"0", "1", "1:0", "1:1"}
    assert (dict(read.unidentified), read.complete) == ({"2": "NVML error 15 (lost)"}, True)


@pytest.mark.parametrize("symbol", ["nvmlInitWithFlags", "nvmlDeviceGetCount_v2"])
async def test_a_hung_session_is_given_up(sim: Any, state: Path, symbol: str) -> None:
    """A start that does not return costs the deadline; the child is asked to end, and another one follows it."""
    sim.hang(state, symbol, milliseconds=30_000)
    worker = NvmlWorker(deadline_seconds=4)
    with pytest.raises(InventoryUnavailable, match="did not answer") as caught:
        await worker.read()
    assert caught.value.problem is Problem.UNRESPONSIVE
    sim.heal(state)
    assert worker._process is not None
    await asyncio.wait_for(worker._process.wait(), 20)
    assert await seen(worker)
    await worker.close()


async def test_an_error_of_one_gpu_is_told_with_it(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """A GPU whose processes cannot be read is in the state its error calls for, and not free."""
    before = await seen(worker)
    for code, expected in (
        (15, DeviceState.LOST),
        (16, DeviceState.DRAINING),
        (999, DeviceState.QUARANTINED),
    ):
        sim.heal(state)
        fault = {"gpu": before["0"].uuid, "symbol": "nvmlDeviceGetComputeRunningProcesses_v3", "ret": code}
        sim._add_fault(state, fault)
        after = await seen(worker)
        assert (after["0"].state, after["0"].error, after["0"].pids) == (expected, code, None)
        assert after["1:0"].state is DeviceState.OK


@pytest.mark.parametrize("code", [1, 18])
async def test_an_error_of_the_session_is_no_gpus(
    sim: Any, state: Path, worker: NvmlWorker, code: int
) -> None:
    """Told by one GPU's call it ends the process, and leaves no GPU to blame."""
    first = await worker.read()
    sim._add_fault(state, {"gpu": sim.gpu_uuid(1), "symbol": "nvmlDeviceGetPowerUsage", "ret": code})
    sim._add_fault(state, {"gpu": sim.gpu_uuid(0), "symbol": "nvmlDeviceGetMigMode", "ret": code})
    with pytest.raises(InventoryUnavailable):
        await worker.read()
    sim.heal(state)
    assert (await worker.read()).devices.keys() == first.devices.keys()


async def test_a_gpu_that_is_taken_out_of_the_machine(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """The others are seen as before, and nothing is told of it any more."""
    await worker.read()
    with sim.changed(state) as document:
        del document["gpus"][1]
    read = await worker.read()
    assert {device.uuid for device in read.devices.values()} == {sim.gpu_uuid(0), sim.gpu_uuid(2)}
    assert read.complete


async def test_identity_and_place_are_read(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """What never changes, MIG mode, and where a GPU instance lies; unknown to NVML is None."""
    devices = await seen(worker)
    whole = devices["0"]
    assert (whole.serial, whole.minor, whole.compute_capability) == ("1653000000000", 0, "8.0")
    assert whole.pci_bus_id == "00000000:07:00.0"
    assert whole.mig_mode == MigMode(current=False, pending=False)
    assert devices["2"].mig_mode == MigMode(current=True, pending=True)
    assert (devices["1:0"].profile_id, devices["1:0"].placement) == (9, Span(start=0, size=4))
    assert (devices["1:1"].profile_id, devices["1:1"].placement) == (19, Span(start=4, size=1))
    assert (whole.profile_id, whole.placement, devices["1:0"].mig_mode) == (None, None, None)


async def test_measures_are_read(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """Memory, utilisation, power, energy and health of a whole GPU; of a MIG device its memory alone."""
    with sim.changed(state) as document:
        for one in document["gpus"]:
            one["util"] = {"gpu": 37, "mem": 11}
            one["reasons"] = 0x41
            one["ecc"] = {"dbe_vol": 2, "sbe_vol": 5}
            one["remap"] = [1, 2, 1, 0]
            one["recovery"] = 4
            one["ghost_mib"] = 300
    devices = await seen(worker)
    measured = devices["0"].measures
    assert (measured.utilisation_percent, measured.utilisation_max_percent) == (37, 37)
    assert (measured.memory_used_mib, measured.power_mw, measured.temperature_celsius) == (300, 60000, 35)
    assert measured.energy_mj is not None
    assert measured.throttles == (Throttle.IDLE, Throttle.HARDWARE_THERMAL)
    assert measured.ecc == EccErrors(corrected=5, uncorrected=2)
    assert measured.remapped == RemappedRows(correctable=1, uncorrectable=2, pending=True, failed=False)
    assert measured.recovery is RecoveryAction.DRAIN_AND_RESET
    # Utilisation does not exist while MIG is on, nor do remapped rows while there are instances.
    split_gpu, part = devices["1"].measures, devices["1:0"].measures
    assert (split_gpu.utilisation_percent, split_gpu.remapped) == (None, None)
    known = {field.name for field in fields(part) if getattr(part, field.name) is not None}
    assert known == {"memory_used_mib"}


async def test_utilisation_on_mig_is_unknown_whatever_a_driver_says(
    sim: Any, state: Path, worker: NvmlWorker
) -> None:
    """And where a GPU does not tell it, it is None too: unknown is not idle."""
    with sim.changed(state) as document:
        del document["gpus"][0]["util"]
    devices = await seen(worker)
    assert devices["0"].measures.utilisation_percent is devices["1"].measures.utilisation_percent is None


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("nvmlDeviceGetPowerUsage", "power_mw"),
        ("nvmlDeviceGetTotalEnergyConsumption", "energy_mj"),
        ("nvmlDeviceGetTotalEccErrors", "ecc"),
        ("nvmlDeviceGetCurrentClocksEventReasons", "throttles"),
        ("nvmlDeviceGetSamples", "utilisation_percent"),
        ("nvmlDeviceGetFieldValues", "recovery"),
        ("nvmlDeviceGetMemoryInfo*", "memory_used_mib"),
    ],
)
@pytest.mark.parametrize("code", [3, 13, 999])
async def test_a_value_that_cannot_be_told_is_unknown(
    sim: Any, state: Path, worker: NvmlWorker, symbol: str, name: str, code: int
) -> None:
    """Not supported, not in this library, or an error of its own: None, and the GPU is as usable as before."""
    for one in (symbol.rstrip("*"), symbol.replace("*", "_v2")):
        sim._add_fault(state, {"symbol": one, "ret": code})
    if name == "throttles":
        sim._add_fault(state, {"symbol": "nvmlDeviceGetCurrentClocksThrottleReasons", "ret": code})
    device = (await seen(worker))["0"]
    assert getattr(device.measures, name) is None
    assert device.state is DeviceState.OK


async def test_a_gpu_is_itself_under_another_index(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """After the order has changed every GPU has its own UUID, facts and measures."""
    with sim.changed(state) as document:
        document["gpus"][2]["temp"] = 77
    before = await seen(worker)
    with sim.changed(state) as document:
        document["gpus"].reverse()
    after = await seen(worker)
    assert (after["0"].uuid, after["0"].serial) == (before["2"].uuid, before["2"].serial)
    assert after["0"].measures.temperature_celsius == 77
    assert after["2"].uuid == before["0"].uuid


async def test_an_old_driver_lists_processes_by_the_older_call(
    sim: Any, state: Path, worker: NvmlWorker
) -> None:
    """Without the third version of a list the second is asked."""
    for kind in ("Compute", "Graphics", "MPSCompute"):
        sim._add_fault(state, {"symbol": f"nvmlDeviceGet{kind}RunningProcesses_v3", "ret": 13})
    devices = await seen(worker)
    sim.add_process(state, os.getpid(), devices["0"].uuid)
    assert (await seen(worker))["0"].pids == (os.getpid(),)


async def test_a_process_is_told_with_memory_instance_and_type(
    sim: Any, state: Path, worker: NvmlWorker
) -> None:
    """Memory that the driver does not say is None; the instance is that of the process, on the parent too."""
    devices = await seen(worker)
    part = devices["1:1"]
    sim.add_process(state, 11, devices["0"].uuid, memory_mib=None)
    sim.add_process(state, 12, part.parent, memory_mib=64, gi=part.gpu_instance_id, ci=0)
    with sim.changed(state) as document:
        document["procs"][0]["type"] = "G"
    devices = await seen(worker)
    inside = GpuProcess(pid=12, memory_mib=64, gpu_instance_id=part.gpu_instance_id, compute_instance_id=0)
    assert devices["0"].processes == (GpuProcess(pid=11, type=ProcessType.GRAPHICS),)
    assert devices["1:1"].processes == (inside,)
    assert inside in (devices["1"].processes or ())


async def test_an_xid_is_told_once_with_its_instance(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """Errors come with the next look, in order, each once; with them the health of that GPU is read anew."""
    devices = await seen(worker)
    part = devices["1:0"]
    with sim.changed(state) as document:
        document["gpus"][1]["recovery"] = 1
    sim.raise_xid(state, devices["1"].uuid, 31, gi=part.gpu_instance_id, ci=0)
    sim.raise_xid(state, devices["1"].uuid, 79)
    heard: list[Any] = []

    def both(read: Snapshot) -> bool:
        heard.extend(read.events)
        return len(heard) == 2

    read = await until(worker, both)
    assert [(item.gpu, item.xid, item.gpu_instance_id) for item in heard] == [
        (devices["1"].uuid, 31, part.gpu_instance_id),
        (devices["1"].uuid, 79, None),
    ]
    assert read.devices[devices["1"].uuid].measures.recovery is RecoveryAction.RESET
    assert (await worker.read()).events == ()


async def test_how_near_gpus_are_is_read(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """What each two GPUs share is known soon after the first look."""
    read = await until(worker, lambda one: one.links is not None)
    assert read.links is not None
    assert len(read.links) == 3
    one, other = sorted((sim.gpu_uuid(0), sim.gpu_uuid(1)))
    assert read.links[one, other] is Link.NODE


@pytest.mark.parametrize("real", [True, False], ids=["simulated NVML", "fake"])
async def test_fake_and_real_say_the_same(
    real: bool,
    sim: Any,
    state: Path,
    worker: NvmlWorker,
) -> None:
    """The fake that other tests use gives devices of the same form as the process does."""
    parts = (mig(1, 0, "3g.20gb"), mig(1, 1))
    fake = FakeNvml(gpu(0), *split(1, "3g.20gb", "1g.5gb"), gpu(2, state=DeviceState.UNUSABLE))
    read: Snapshot = await (worker if real else fake).read()
    by_index = {device.index: device for device in read.devices.values()}
    assert set(by_index) == {"0", "1", "1:0", "1:1", "2"}
    for part in parts:
        one = by_index[part.index]
        assert (one.kind, one.profile, one.memory_mib) == (part.kind, part.profile, part.memory_mib)
        assert one.parent == by_index["1"].uuid
    assert [by_index[index].state for index in "012"] == ["ok", "unusable", "unusable"]
    assert {device.processes for device in read.devices.values()} == {()}
    assert (read.complete, read.events, all(device.error is None for device in read.devices.values())) == (
        True,
        (),
        True,
    )


async def test_a_look_at_a_full_machine_is_cheap(sim: Any, state: Path, worker: NvmlWorker) -> None:
    """8 GPUs with 7 MIG devices and 200 processes cost the child under 100 ms of CPU, the simulated driver's included."""
    document = sim.machine("8xa100-40:7x1g.5gb")
    places = [(one["uuid"], gi["id"]) for one in document["gpus"] for gi in one["gis"]]
    for number in range(200):
        uuid, instance = places[number % len(places)]
        document["procs"].append(
            {"pid": 1000 + number, "gpu": uuid, "gi": instance, "ci": 0, "mib": 100, "type": "C", "sm": 5}
        )
    sim.write_state(state, document)
    costs = []
    for _ in range(5):
        read = await worker.read()
        assert read.cpu_ms is not None
        costs.append(read.cpu_ms)
    assert len(read.devices) == 8 + 56
    assert sum(len(device.processes or ()) for device in read.devices.values() if device.parent) == 200
    print(f"one look: {sorted(costs)[2]:.1f} ms of CPU; the first {costs[0]:.1f} ms")
    assert sorted(costs)[2] < 100


async def test_an_xid_becomes_a_quarantine_from_end_to_end(
    sim: Any, state: Path, worker: NvmlWorker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Raised in the driver, through the child and the service into the ledger: one tenant loses its device, once."""
    allocator = leasing(worker, tmp_path_factory.mktemp("ledger"))
    part, other = sim.device_uuids(sim.read_state(state)["gpus"][1])
    await allocator.sweep()
    assert isinstance(await allocator.lease(want(count=None, device_ids=(part,))), Lease)
    instance = allocator.watch.current().devices[part].gpu_instance_id
    sim.raise_xid(state, sim.gpu_uuid(1), 95, gi=instance, ci=0)
    async with asyncio.timeout(20):
        while allocator.watch.current().devices[part].state is DeviceState.OK:
            await allocator.sweep()
            await asyncio.sleep(0.05)
    seen_by_all = allocator.watch.current().devices
    assert (seen_by_all[part].state, seen_by_all[other].state) == (DeviceState.QUARANTINED, DeviceState.OK)
    assert "XID 95" in (seen_by_all[part].remark or "")
    (held,) = await allocator.leases(None)
    assert held.state is LeaseState.LOST
    assert "XID 95" in (allocator.upkeep.note(held.id) or "")
    await allocator.close()


async def test_a_gpu_that_falls_off_the_bus_is_not_leased_again(
    sim: Any, state: Path, worker: NvmlWorker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Its lease is lost and its holder told; back again it stays out, and another GPU is leased as ever."""
    sim.write_state(state, sim.machine("2xa100-40"))
    allocator = leasing(worker, tmp_path_factory.mktemp("ledger"))
    await allocator.sweep()
    found = await allocator.lease(want())
    assert isinstance(found, Lease)
    (gone,) = found.devices
    sim.lose_gpu(state, gone)
    await allocator.sweep()
    (held,) = await allocator.leases(None)
    assert held.state is LeaseState.LOST
    assert "fallen off the bus" in (allocator.upkeep.note(held.id) or "")
    await allocator.release(held.id, who="x", why="removed")
    sim.heal(state)
    await allocator.sweep()
    assert allocator.watch.current().devices[gone].state is DeviceState.QUARANTINED
    other = await allocator.lease(want())
    assert isinstance(other, Lease)
    assert gone not in other.devices
    await allocator.close()


async def test_a_hung_gpu_does_not_stop_leasing_of_others(
    sim: Any, state: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With one GPU stuck in the driver, the service looks, leases and releases the others as ever."""
    worker = NvmlWorker(deadline_seconds=20, gpu_seconds=2)
    allocator = leasing(worker, tmp_path_factory.mktemp("ledger"))
    await allocator.sweep()
    stuck = sim.gpu_uuid(1)
    sim._add_fault(state, {"gpu": stuck, "symbol": "*", "hang_ms": 60_000, "times": 1})
    await allocator.sweep()
    found = await allocator.lease(want())
    assert isinstance(found, Lease)
    assert found.devices == (sim.gpu_uuid(0),)
    await allocator.release(found.id, who="x", why="removed")
    for uuid in sim.device_uuids(sim.read_state(state)["gpus"][1]):
        outcome = await allocator.lease(want(count=None, device_ids=(uuid,)))
        assert isinstance(outcome, Refusal)
        assert "unresponsive" in outcome.message
    await allocator.close()
    await worker.close()


SYMBOLS = (
    "nvmlInitWithFlags",
    "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetGpuInstanceId",
    "nvmlDeviceGetComputeInstanceId",
    "nvmlDeviceGetGpuInstanceById",
    "nvmlGpuInstanceGetInfo",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetSamples",
    "nvmlDeviceGetPciInfo_v3",
    "nvmlDeviceGetFieldValues",
    "*",
)


@pytest.mark.parametrize("code", [1, 3, 4, 6, 7, 13, 15, 16, 25, 999])
async def test_no_error_makes_a_busy_device_free(
    sim: Any, state: Path, worker: NvmlWorker, code: int
) -> None:
    """With a process on every device: whichever call answers whichever error, none is told as usable and idle."""
    devices = await seen(worker)
    for index in ("0", "2"):
        sim.add_process(state, 11, devices[index].uuid)
    for index in ("1:0", "1:1"):
        part = devices[index]
        sim.add_process(state, 12, part.parent, gi=part.gpu_instance_id, ci=part.compute_instance_id)
    for symbol in SYMBOLS[:: 4 if code == 1 else 1]:  # that code costs a process each time
        for which in (None, sim.gpu_uuid(1)):
            sim.heal(state)
            sim._add_fault(state, {"symbol": symbol, "ret": code} | ({"gpu": which} if which else {}))
            try:
                read = await worker.read()
            except InventoryUnavailable:
                continue
            free = [
                one.index for one in read.devices.values() if one.state is DeviceState.OK and one.pids == ()
            ]
            assert free == [], f"{symbol} {which}"
