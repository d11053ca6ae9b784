"""What the simulated library says of a device: numbers of the state, and NOT_SUPPORTED for what it has not; processes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from lab import simulate
from tests.fakes.simulated_gpus import LAB, START, SimulatedMachine

if TYPE_CHECKING:
    from pathlib import Path


def test_measurements_do_not_exist_on_mig(sim: SimulatedMachine) -> None:
    """Utilisation and remapped rows are numbers on a whole GPU and NOT_SUPPORTED while MIG is on."""
    script = """
print([code(f, gpu[i]) for i in (0, 2) for f in (p.nvmlDeviceGetUtilizationRates, p.nvmlDeviceGetRemappedRows)])
print(code(p.nvmlDeviceGetSamples, gpu[2], 1, 0), code(p.nvmlDeviceGetProcessUtilization, gpu[2], 0))
"""
    assert sim.ask(script).split("\n") == ["[0, 0, 3, 3]", "3 3"]


def test_unknown_memory_is_none_and_a_ghost_still_counts(sim: SimulatedMachine) -> None:
    """A process without known memory reports None; pids in the state need not exist."""
    simulate.add_process(sim.dir, 4194000, simulate.gpu_uuid(0), memory_mib=None)
    simulate.add_process(sim.dir, 4194001, simulate.gpu_uuid(0), memory_mib=512)
    simulate.remove_process(sim.dir, 1)
    out = sim.ask(
        "print([r.usedGpuMemory for r in p.nvmlDeviceGetComputeRunningProcesses(gpu[0])], p.nvmlDeviceGetMemoryInfo(gpu[0]).used >> 20)"
    )
    assert out == "[None, 536870912] 512"


def test_every_reading_of_a_whole_gpu_is_the_state(sim: SimulatedMachine) -> None:
    """Power, temperature, ECC, remapped rows, reasons and recovery are what the state says, also by field id."""
    with simulate.changed(sim.dir) as state:
        state["gpus"][0] |= {
            "power_mw": 71000, "temp": 44, "ecc": {"dbe_vol": 1, "dbe_agg": 3, "sbe_vol": 9},
            "remap": [4, 1, 1, 0], "reasons": 0x40, "recovery": 1,
        }  # fmt: skip
    script = """
g = gpu[0]
print(p.nvmlDeviceGetPowerUsage(g), p.nvmlDeviceGetTemperature(g, 0), p.nvmlDeviceGetTemperatureV(g, 0))
print([p.nvmlDeviceGetTotalEccErrors(g, kind, counter) for kind in (0, 1) for counter in (0, 1)])
print([p.nvmlDeviceGetMemoryErrorCounter(g, 1, 0, place) for place in (0, 2)], list(map(int, p.nvmlDeviceGetEccMode(g))))
print(p.nvmlDeviceGetRemappedRows(g), p.nvmlDeviceGetRowRemapperHistogram(g).high)
print(p.nvmlDeviceGetCurrentClocksEventReasons(g), p.nvmlDeviceGetCurrentClocksThrottleReasons(g))
print([(v.nvmlReturn, v.value.ullVal) for v in p.nvmlDeviceGetFieldValues(g, [4, 6, 142, 144, 185, 186, 230, 9999])])
"""
    assert sim.ask(script).split("\n") == [
        "71000 44 44", "[9, 9, 1, 3]", "[0, 1] [1, 1]", "(4, 1, 1, 0) 5", "64 64",
        "[(0, 1), (0, 3), (0, 4), (0, 1), (0, 71000), (0, 71000), (0, 1), (3, 0)]",
    ]  # fmt: skip


@pytest.mark.parametrize("missing", [None, "absent"])
def test_what_the_state_does_not_know_is_not_supported(sim: SimulatedMachine, missing: str | None) -> None:
    """A reading that is null or absent answers NOT_SUPPORTED by every way to it, never 0."""
    keys = (
        "power_mw",
        "temp",
        "ecc",
        "remap",
        "reasons",
        "recovery",
        "util",
        "mem_mib",
        "energy",
        "numa",
        "serial",
    )
    with simulate.changed(sim.dir) as state:
        for key in keys:
            state["gpus"][0].pop(key)
            if missing is None:
                state["gpus"][0][key] = None
    script = """
g = gpu[0]
calls = [
    (p.nvmlDeviceGetPowerUsage, g), (p.nvmlDeviceGetTemperature, g, 0), (p.nvmlDeviceGetTotalEccErrors, g, 1, 0),
    (p.nvmlDeviceGetMemoryErrorCounter, g, 1, 0, 2), (p.nvmlDeviceGetRemappedRows, g), (p.nvmlDeviceGetRowRemapperHistogram, g),
    (p.nvmlDeviceGetCurrentClocksEventReasons, g), (p.nvmlDeviceGetUtilizationRates, g), (p.nvmlDeviceGetSamples, g, 1, 0),
    (p.nvmlDeviceGetProcessUtilization, g, 0), (p.nvmlDeviceGetMemoryInfo, g), (p.nvmlDeviceGetMemoryInfo, g, p.nvmlMemory_v2),
    (p.nvmlDeviceGetTotalEnergyConsumption, g), (p.nvmlDeviceGetCpuAffinity, g, 1), (p.nvmlDeviceGetSerial, g),
    (p.nvmlDeviceGetFanSpeed, g), (p.nvmlDeviceGetPcieThroughput, g, 0), (p.nvmlDeviceGetEncoderUtilization, g),
    (p.nvmlDeviceGetRetiredPagesPendingStatus, g), (p.nvmlDeviceGetDriverModel_v2, g),
]
print({code(*call) for call in calls}, {v.nvmlReturn for v in p.nvmlDeviceGetFieldValues(g, [3, 4, 5, 6, 83, 142, 143, 144, 145, 185, 186, 230])})
"""
    assert sim.ask(script) == "{3} {3}"


def test_energy_is_power_over_time_and_keeps_what_was_drawn(driver: Path, tmp_path: Path) -> None:
    """The counter grows with the power of each period, and a change of power loses nothing."""
    now_ns = time.time_ns()
    sim = SimulatedMachine(tmp_path, library=driver, now_ns=now_ns - 100 * 10**9)  # 60 W from 100 s ago
    ask = "print(p.nvmlDeviceGetTotalEnergyConsumption(gpu[0]))"
    assert 6_000_000 <= int(sim.ask(ask)) < 6_000_000 + 60_000 * 60
    simulate.set_load(
        sim.dir,
        simulate.gpu_uuid(0),
        gpu_percent=90,
        memory_percent=20,
        power_mw=300_000,
        now_ns=now_ns - 50 * 10**9,
    )
    assert 3_000_000 + 15_000_000 <= int(sim.ask(ask)) < 18_000_000 + 300_000 * 60


def test_neighbours_have_links_and_nodes(driver: Path, tmp_path: Path) -> None:
    """Four links lead to each other GPU of the node; a GPU of another node is across the system; MIG has no link."""
    sim = SimulatedMachine(tmp_path, library=driver, spec="5xa100-40,a100-40:empty")
    script = """
print([p.nvmlDeviceGetTopologyCommonAncestor(gpu[0], h) for h in gpu])
ends = [p.nvmlDeviceGetNvLinkRemotePciInfo(gpu[0], i).busId for i in range(12)]
print([ends.count(p.nvmlDeviceGetPciInfo(h).busId) for h in gpu], p.nvmlDeviceGetNvLinkState(gpu[0], 0))
print(code(p.nvmlDeviceGetNvLinkState, gpu[0], 12), code(p.nvmlDeviceGetNvLinkState, gpu[5], 0))
print(hex(p.nvmlDeviceGetCpuAffinity(gpu[4], 1)[0]), list(p.nvmlDeviceGetMemoryAffinity(gpu[4], 1, 0)))
"""
    assert sim.ask(script).split("\n") == [
        "[0, 40, 40, 40, 50, 50]", "[0, 4, 4, 4, 0, 0] 1", "3 3", "0xffff0000 [2]",
    ]  # fmt: skip


def test_accounting_remembers_ended_processes_and_mig_has_none(sim: SimulatedMachine) -> None:
    """Once switched on, what a process used is told while it runs and after; in MIG mode it is forced off."""
    script = """
print(code(p.nvmlDeviceSetAccountingMode, gpu[0], 1), code(p.nvmlDeviceSetAccountingMode, gpu[2], 1), p.nvmlDeviceGetAccountingMode(gpu[2]))
simulate.add_process(state, 4194304, simulate.gpu_uuid(0), memory_mib=700)
def told():
    one = p.nvmlDeviceGetAccountingStats(gpu[0], 4194304)
    return p.nvmlDeviceGetAccountingPids(gpu[0]), one.isRunning, one.gpuUtilization, one.maxMemoryUsage >> 20
print(told()); simulate.remove_process(state, 4194304); print(told())
p.nvmlDeviceClearAccountingPids(gpu[0])
print(p.nvmlDeviceGetAccountingPids(gpu[0]), code(p.nvmlDeviceGetAccountingStats, gpu[0], 4194304), code(p.nvmlDeviceGetAccountingPids, gpu[2]))
"""
    assert sim.ask(LAB + START + script, start="").split("\n") == [
        "0 3 0", "([4194304], 1, 50, 700)", "([4194304], 0, 50, 700)", "[] 6 3",
    ]  # fmt: skip


def test_each_kind_of_process_is_in_its_own_list_only(sim: SimulatedMachine) -> None:
    """Compute, graphics and MPS processes are told apart by every version of the lists."""
    with simulate.changed(sim.dir) as state:
        row = simulate.process(4194304, simulate.gpu_uuid(0), memory_mib=1)
        state["procs"] = [row | {"type": kind, "pid": 4194304 + at} for at, kind in enumerate("CGM")]
    script = """
for kind in ("Compute", "Graphics", "MPSCompute"):
    calls = [getattr(p, f"nvmlDeviceGet{kind}RunningProcesses{version}") for version in ("", "_v2", "_v3")]
    print([[r.pid - 4194304 for r in call(gpu[0])] for call in calls])
print([[r.pid - 4194304 for r in p.nvmlDeviceGetRunningProcessDetailList(gpu[0], p.nvmlProcessDetailList_v1, mode)] for mode in range(4)])
"""
    assert sim.ask(script).split("\n") == [
        "[[0], [0], [0]]", "[[1], [1], [1]]", "[[2], [2], [2]]", "[[0], [1], [2], [0, 1, 2]]",
    ]  # fmt: skip


def test_the_parent_hides_processes_of_mig_devices_from_others_than_root(sim: SimulatedMachine) -> None:
    """Root sees them on the GPU too; another user only on the MIG device, and memory counts for both."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to be somebody else")
    simulate.add_process(sim.dir, 4194304, simulate.gpu_uuid(2), memory_mib=512, gi=1, ci=0)
    script = """
def seen(h): return len(p.nvmlDeviceGetComputeRunningProcesses(h)), p.nvmlDeviceGetMemoryInfo(h).used >> 20
mig = p.nvmlDeviceGetMigDeviceHandleByIndex(gpu[2], 0)
print(seen(gpu[2]), seen(mig)); os.seteuid(65534); print(seen(gpu[2]), seen(mig))
print(code(p.nvmlDeviceSetMigMode, gpu[0], 1))
"""
    assert sim.ask(script).split("\n") == ["(1, 512) (1, 512)", "(0, 512) (1, 512)", "4"]
