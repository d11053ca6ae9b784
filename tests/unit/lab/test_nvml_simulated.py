"""The simulated library under the real pynvml: one process for each machine."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from lab import simulate
from tests.fakes.simulated_gpus import LAB, START, Played, SimulatedMachine

if TYPE_CHECKING:
    from pathlib import Path


def test_inventory_is_the_machine(sim: SimulatedMachine) -> None:
    """UUIDs, modes and MIG devices are those of the state, and UUIDs agree with Python's rule."""
    out = sim.ask(
        "print([p.nvmlDeviceGetUUID(h) for h in gpu], [p.nvmlDeviceGetMigMode(h)[0] for h in gpu], migs(gpu[2]))"
    )
    halves = {index: simulate.mig_uuid(simulate.gpu_uuid(2), gi, 0) for index, gi in enumerate((1, 2))}
    assert out == f"{[simulate.gpu_uuid(i) for i in range(4)]} [0, 0, 1, 1] {halves}"


def test_lifecycle_recreates_the_same_uuid_and_leaves_gaps(sim: SimulatedMachine) -> None:
    """Destroying a MIG device leaves a gap in the index; making it again in the same place gives the same UUID."""
    script = """
before = migs(gpu[3])
gi = p.nvmlDeviceGetGpuInstanceById(gpu[3], 8)
print(code(p.nvmlGpuInstanceDestroy, gi))
p.nvmlComputeInstanceDestroy(p.nvmlGpuInstanceGetComputeInstanceById(gi, 0))
p.nvmlGpuInstanceDestroy(gi)
print(sorted(migs(gpu[3])), code(p.nvmlGpuInstanceGetInfo, gi))
place = p.c_nvmlGpuInstancePlacement_t(1, 1)
gi = p.nvmlDeviceCreateGpuInstanceWithPlacement(gpu[3], 19, ctypes.byref(place))
profile = p.nvmlGpuInstanceGetComputeInstanceProfileInfo(gi, 0, 0)
p.nvmlGpuInstanceCreateComputeInstance(gi, profile.id)
print(p.nvmlGpuInstanceGetInfo(gi).id, migs(gpu[3]) == before)
"""
    assert sim.ask(script).split("\n") == ["19", "[0, 2, 3, 4, 5, 6] 6", "8 True"]


def test_placement_clashes_are_insufficient_resources(sim: SimulatedMachine) -> None:
    """An overlapping placement and an eighth compute slice are refused; an impossible place is an invalid argument."""
    script = """
P = p.c_nvmlGpuInstancePlacement_t
make = lambda i, profile, *at: code(p.nvmlDeviceCreateGpuInstanceWithPlacement, gpu[i], profile, ctypes.byref(P(*at)))
print(make(2, 9, 4, 4), make(3, 19, 6, 1), make(2, 9, 2, 4), make(0, 9, 0, 4))
print(p.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu[3], 19))
"""
    assert sim.ask(script).split("\n") == ["23 23 2 3", "0"]


def test_profiles_have_real_ids_and_placements(sim: SimulatedMachine) -> None:
    """Profiles carry the driver's ids, and 1g.10gb starts at every second memory slice."""
    script = """
ids = [p.nvmlDeviceGetGpuInstanceProfileInfo(gpu[2], e).id for e in (0, 7, 9, 1, 2, 3, 4)]
count, out = ctypes.c_uint(8), (p.c_nvmlGpuInstancePlacement_t * 8)()
p.nvmlDeviceGetGpuInstancePossiblePlacements(gpu[2], 15, out, ctypes.byref(count))
print(ids, [(out[i].start, out[i].size) for i in range(count.value)])
"""
    assert sim.ask(script) == "[19, 20, 15, 14, 9, 5, 0] [(0, 2), (2, 2), (4, 2), (6, 2)]"


def test_changes_of_several_processes_do_not_undo_each_other(driver: Path, tmp_path: Path) -> None:
    """Of nine that each make an instance of one slice at the same time seven succeed, and all seven are there."""
    sim = SimulatedMachine(tmp_path, library=driver, spec="a100-40:empty")
    script = """
def make(): p.nvmlInit(); return code(p.nvmlDeviceCreateGpuInstance, p.nvmlDeviceGetHandleByIndex(0), 19)
children = []
for _ in range(9):
    child = os.fork()
    if not child: os._exit(make())
    children.append(child)
print(sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""
    assert sim.ask(script, start="") == "[0, 0, 0, 0, 0, 0, 0, 23, 23]"
    places = [(gi["id"], gi["start"]) for gi in simulate.read_state(sim.dir)["gpus"][0]["gis"]]
    assert sorted(places) == [(7 + start, start) for start in range(7)]


def test_mode_stays_pending_while_instances_exist(sim: SimulatedMachine) -> None:
    """Switching MIG off with instances answers IN_USE as status and leaves the mode pending."""
    script = "print(p.nvmlDeviceSetMigMode(gpu[2], 0), p.nvmlDeviceGetMigMode(gpu[2]), p.nvmlDeviceSetMigMode(gpu[0], 1))"
    assert sim.ask(script) == "19 [1, 0] 0"


def test_a_claim_is_a_process_as_long_as_it_is_held(sim: SimulatedMachine) -> None:
    """A held lock shows as a process with its pid, memory and instance, blocks destroying, and ends with its holder."""
    device = simulate.mig_uuid(simulate.gpu_uuid(2), 1, 0)
    claim = sim.dir / "claims" / device / "0"
    claim.parent.mkdir()
    claim.write_text("2048 C")
    query = f"""
def rows(h): return [(r.pid, r.usedGpuMemory >> 20, r.gpuInstanceId) for r in p.nvmlDeviceGetComputeRunningProcesses_v3(h)]
gi = p.nvmlDeviceGetGpuInstanceById(gpu[2], 1)
destroy = code(p.nvmlComputeInstanceDestroy, p.nvmlGpuInstanceGetComputeInstanceById(gi, 0))
print(rows(gpu[2]), rows(p.nvmlDeviceGetHandleByUUID({device!r}.encode())) if destroy else "gone", destroy)
"""
    with claim.open("r+") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        row = f"[({os.getpid()}, 2048, 1)]"
        assert sim.ask(query) == f"{row} {row} 19"
    assert sim.ask(query) == "[] gone 0"


def test_a_lost_gpu_answers_so_on_itself_and_its_mig_devices(sim: SimulatedMachine) -> None:
    """After loss, calls on the GPU and its MIG devices answer GPU_IS_LOST; other GPUs go on."""
    script = """
mig = p.nvmlDeviceGetMigDeviceHandleByIndex(gpu[2], 0)
simulate.lose_gpu(state, simulate.gpu_uuid(2))
print([code(p.nvmlDeviceGetMemoryInfo, h) for h in (gpu[2], mig, gpu[1])])
simulate.heal(state)
print(code(p.nvmlDeviceGetMemoryInfo, mig))
"""
    assert sim.ask(LAB + START + script, start="").split("\n") == ["[15, 15, 0]", "0"]


def test_a_hang_holds_one_thread_and_trips_after_its_calls(sim: SimulatedMachine) -> None:
    """The second call hangs for its time, once, and another thread's calls go on meanwhile."""
    simulate.hang(sim.dir, "nvmlDeviceGetPowerUsage", milliseconds=700, after_calls=1, times=1)
    script = """
import threading, time
def timed(function):
    begin = time.monotonic(); function(gpu[0]); return time.monotonic() - begin
first, hung = timed(p.nvmlDeviceGetPowerUsage), []
thread = threading.Thread(target=lambda: hung.append(timed(p.nvmlDeviceGetPowerUsage)))
thread.start(); time.sleep(0.1)
beside = timed(p.nvmlDeviceGetMemoryInfo); thread.join()
print(first < 0.5, hung[0] >= 0.7, beside < 0.5, timed(p.nvmlDeviceGetPowerUsage) < 0.5)
"""
    assert sim.ask(script) == "True True True True"


def test_an_xid_reaches_each_event_set_once(sim: SimulatedMachine) -> None:
    """A waiting set gets the XID with its code and instance, then times out."""
    script = """
events = p.nvmlEventSetCreate()
p.nvmlDeviceRegisterEvents(gpu[2], 8, events)
simulate.raise_xid(state, simulate.gpu_uuid(2), 79, gi=1, ci=0)
event = p.nvmlEventSetWait_v2(events, 1000)
print(event.eventType, event.eventData, event.gpuInstanceId, p.nvmlDeviceGetUUID(event.device) == simulate.gpu_uuid(2))
print(code(p.nvmlEventSetWait_v2, events, 50))
"""
    assert sim.ask(LAB + START + script, start="").split("\n") == ["8 79 1 True", "10"]


def test_faults_at_start_and_missing_state_are_error_codes(sim: SimulatedMachine) -> None:
    """An ordered init failure and a machine without state both answer 9; calls before init answer 1."""
    with simulate.changed(sim.dir) as state:
        state["faults"] = [{"symbol": "nvmlInitWithFlags", "ret": 18}]
    assert sim.ask("print(code(p.nvmlInit))", start="") == "18"
    assert sim.ask("print(code(p.nvmlInit))", start="", env={"DS01_SIM_NVML": "/nonexistent"}) == "9"


def test_a_view_shows_only_its_devices(sim: SimulatedMachine) -> None:
    """With one MIG device visible there is one GPU with one MIG device, and others cannot be looked up."""
    mine = simulate.mig_uuid(simulate.gpu_uuid(3), 9, 0)
    script = f"print(len(gpu), migs(gpu[0]), code(p.nvmlDeviceGetHandleByUUID, b'{simulate.gpu_uuid(0)}'))"
    assert sim.ask(script, env={"DS01_SIM_VISIBLE": mine}) == f"1 {{2: '{mine}'}} 6"


def test_an_unreadable_state_keeps_the_last_good_one(sim: SimulatedMachine) -> None:
    """A half-written file changes nothing for a running process."""
    script = """
open(os.environ["DS01_SIM_NVML"] + "/state.json", "w").write('{"gpus": [{"uuid":')
print(p.nvmlDeviceGetCount())
"""
    assert sim.ask(script) == "4"


def test_pids_are_those_of_the_callers_namespace(sim: SimulatedMachine, inner: int) -> None:
    """The host sees the host's pid, the namespace its own, and a third one nothing; the memory is used for all."""
    simulate.add_process(sim.dir, inner, simulate.gpu_uuid(0), memory_mib=256)
    script = "print([r.pid for r in p.nvmlDeviceGetComputeRunningProcesses(gpu[0])], p.nvmlDeviceGetMemoryInfo(gpu[0]).used >> 20)"
    assert sim.ask(script) == f"[{inner}] 256"
    for prefix, seen in (
        (("nsenter", f"--target={inner}", "--pid", "--mount"), "[1] 256"),
        (("unshare", "--pid", "--fork", "--mount-proc"), "[] 256"),
    ):
        assert sim.ask(script, within=prefix) == seen


def test_a_view_decides_by_uuid_in_either_spelling(sim: SimulatedMachine) -> None:
    """A MIG device is found by its UUID and by the name that older drivers gave it; a GPU by both lengths of its bus id."""
    parent = simulate.gpu_uuid(2)
    script = f"""
by_name = p.nvmlDeviceGetHandleByUUID(b"MIG-{parent}/1/0")
print(p.nvmlDeviceGetUUID(by_name), p.nvmlDeviceGetUUID(p.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(by_name)))
print(*(p.nvmlDeviceGetIndex(p.nvmlDeviceGetHandleByPciBusId(bus)) for bus in (b"00000000:0F:00.0", b"0000:0f:00.0")))
"""
    assert sim.ask(script).split("\n") == [f"{simulate.mig_uuid(parent, 1, 0)} {parent}", "1 1"]


def test_performance_monitoring_does_not_exist(sim: SimulatedMachine) -> None:
    """The question is answered with no, and the calls with NOT_SUPPORTED."""
    script = "print(p.nvmlGpmQueryDeviceSupport(gpu[0]).isSupportedDevice, code(p.nvmlGpmSampleAlloc))"
    assert sim.ask(script) == "0 3"


# What the allocator may ask for, beyond what nvitop and gpustat look for (test_nvml_programs.py).
NEEDED = """
InitWithFlags Init_v2 Shutdown ErrorString SystemGetDriverVersion SystemGetNVMLVersion SystemGetCudaDriverVersion_v2
DeviceGetCount_v2 DeviceGetHandleByIndex_v2 DeviceGetHandleByUUID DeviceGetHandleByPciBusId_v2 DeviceGetMinorNumber DeviceGetSerial
DeviceGetDeviceHandleFromMigDeviceHandle DeviceGetAttributes_v2 DeviceGetMigMode DeviceSetMigMode DeviceGetMaxMigDeviceCount
DeviceGetMigDeviceHandleByIndex DeviceIsMigDeviceHandle DeviceGetGpuInstanceId DeviceGetComputeInstanceId
DeviceGetGpuInstanceProfileInfo DeviceGetGpuInstanceProfileInfoV DeviceGetGpuInstancePossiblePlacements_v2
DeviceGetGpuInstanceRemainingCapacity DeviceCreateGpuInstance DeviceCreateGpuInstanceWithPlacement DeviceGetGpuInstances
DeviceGetGpuInstanceById GpuInstanceGetInfo GpuInstanceDestroy GpuInstanceGetComputeInstanceProfileInfo
GpuInstanceGetComputeInstanceProfileInfoV GpuInstanceGetComputeInstanceRemainingCapacity GpuInstanceCreateComputeInstance
GpuInstanceGetComputeInstances GpuInstanceGetComputeInstanceById ComputeInstanceGetInfo_v2 ComputeInstanceDestroy
DeviceGetComputeRunningProcesses_v3 DeviceGetGraphicsRunningProcesses_v3 DeviceGetMPSComputeRunningProcesses_v3
DeviceGetMemoryInfo DeviceGetMemoryInfo_v2 DeviceGetBAR1MemoryInfo DeviceGetUtilizationRates DeviceGetSamples DeviceGetProcessUtilization
DeviceGetAccountingMode DeviceSetAccountingMode DeviceGetAccountingPids DeviceGetAccountingStats DeviceGetAccountingBufferSize
DeviceClearAccountingPids DeviceGetPowerUsage DeviceGetTotalEnergyConsumption DeviceGetEnforcedPowerLimit DeviceGetTotalEccErrors
DeviceGetMemoryErrorCounter DeviceGetRemappedRows DeviceGetRowRemapperHistogram DeviceGetRetiredPagesPendingStatus
DeviceGetCurrentClocksEventReasons DeviceGetCurrentClocksThrottleReasons DeviceGetFieldValues EventSetCreate EventSetFree EventSetWait_v2
DeviceGetSupportedEventTypes DeviceRegisterEvents DeviceGetTopologyCommonAncestor DeviceGetNvLinkState
DeviceGetNvLinkRemotePciInfo_v2 DeviceGetCpuAffinity DeviceGetMemoryAffinity GpmQueryDeviceSupport GpmSampleAlloc GpmSampleFree
GpmSampleGet GpmMigSampleGet GpmMetricsGet
"""


def test_what_the_allocator_needs_is_exported(sim: SimulatedMachine) -> None:
    """No symbol is missing."""
    script = f"lib = ctypes.CDLL('libnvidia-ml.so.1'); print([s for s in {NEEDED.split()} if not hasattr(lib, 'nvml' + s)])"
    assert sim.ask(script) == "[]"


def test_a_missing_symbol_and_its_answer_are_the_same_to_pynvml(
    sim: SimulatedMachine, old_driver_symbols: Played
) -> None:
    """A library without a symbol, and a fault that answers FUNCTION_NOT_FOUND, raise the same error."""
    with simulate.changed(sim.dir) as state:
        state["faults"] = [{"symbol": "nvmlDeviceGetComputeRunningProcesses_v3", "ret": 13}]
    simulate.heal(old_driver_symbols.dir)  # what it answers now is what dlsym says
    script = "print(code(p.nvmlDeviceGetComputeRunningProcesses_v3, gpu[0]), code(p.nvmlDeviceGetMemoryInfo, gpu[0]))"
    assert sim.ask(script) == old_driver_symbols.ask(script) == "13 0"


def test_build_is_done_once(driver: Path) -> None:
    """A library newer than its sources is not compiled again."""
    first = driver.stat().st_mtime_ns
    assert simulate.build(driver.parent).stat().st_mtime_ns == first
