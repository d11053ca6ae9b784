"""Programs that nobody here wrote, unmodified, on the simulated machine: nvitop and gpustat show what the state says."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lab import simulate
from lab.scenarios import NOBODY, SCENARIOS, Part
from tests.fakes.simulated_gpus import Played, SimulatedMachine

if TYPE_CHECKING:
    from pathlib import Path

    from lab.simulate import State

WIDE = {"COLUMNS": "160", "LINES": "200", "TERM": "dumb"}
# Calls without a GPU of the lab to answer them: absent in the drivers of A100 too, or for confidential computing alone.
MAY_BE_ABSENT = {"nvmlDeviceGetConfComputeMemSizeInfo"}
_GPU_ROW = re.compile(
    r"│ +(\d+) .*?│ (\w{8}:\S+) +\w+ │ +(Enabled|Disabled) .*\n│.*?(\d+)W / .*? │ +(\S+) / (\S+) │ +(\S+)"
)
_MIG_ROW = re.compile(r"│ *(\d+:\d+) +(\S+) @ GI/CI: *(\d+)/(\d+) │ +(\S+) / +(\S+) │")
_PROCESS_ROW = re.compile(r"│ +(\d+(?::\d+)?) +(\d+) [CGX] +(\S+) +(\S+) +\S+ +\S+ +\S+ +\S+ +\S+ +(.*?) +│")


class Shown:
    """What `nvitop -1` prints, by row; memory as it writes it."""

    def __init__(self, text: str) -> None:
        devices, _, processes = text.partition("Processes:")
        self.text = text
        self.gpus = {row[0]: row[1:] for row in _GPU_ROW.findall(devices)}
        self.migs = {row[0]: row[1:] for row in _MIG_ROW.findall(devices)}
        self.processes = _PROCESS_ROW.findall(processes)


def nvitop(machine: SimulatedMachine) -> Shown:
    done = machine.run(sys.executable, "-m", "nvitop", "-1", env=WIDE)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return Shown(done.stdout)


def gpustat(machine: SimulatedMachine) -> list[dict[str, Any]]:
    done = machine.run(sys.executable, "-m", "gpustat", "--json")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    gpus: list[dict[str, Any]] = json.loads(done.stdout)["gpus"]
    return gpus


@pytest.fixture
def busy(driver: Path, tmp_path: Path) -> SimulatedMachine:
    """A whole GPU with a process, a GPU in two parts with one on the second, and a GPU in MIG mode with none."""
    spec = "a100-40,h100-80:3g.40gb+1g.10gb,a100-80:empty"
    machine = SimulatedMachine(tmp_path / "busy", library=driver, spec=spec)
    with simulate.changed(machine.dir) as state:
        state["gpus"][0] |= {"util": {"gpu": 37, "mem": 11}, "power_mw": 271_000, "temp": 61, "fan": None}
    simulate.add_process(machine.dir, os.getpid(), machine.uuid(0), memory_mib=2048)
    gi = simulate.read_state(machine.dir)["gpus"][1]["gis"][1]["id"]
    simulate.add_process(machine.dir, os.getpid(), machine.uuid(1), memory_mib=512, gi=gi, ci=0)
    return machine


def test_nvitop_shows_gpus_mig_devices_and_processes(busy: SimulatedMachine) -> None:
    """Every row of the state is one of the table, with bus id, MIG mode, power, memory, utilisation, GI and CI."""
    shown = nvitop(busy)
    assert shown.gpus == {
        "0": ("00000000:07:00.0", "Disabled", "271", "2048MiB", "40.00GiB", "37%"),
        "1": ("00000000:0F:00.0", "Enabled", "60", "512.0MiB", "79.65GiB", "N/A"),
        "2": ("00000000:17:00.0", "Enabled", "60", "0B", "80.00GiB", "N/A"),
    }
    assert shown.migs == {
        "1:0": ("3g.40gb", "1", "0", "0B", "39.50GiB"),
        "1:1": ("1g.10gb", "11", "0", "512.0MiB", "9984MiB"),
    }
    pid = str(os.getpid())
    assert [row[:2] + row[3:4] for row in shown.processes] == [
        ("0", pid, "2048MiB"),
        ("1:1", pid, "512.0MiB"),
    ]


def test_gpustat_shows_gpus_and_processes(busy: SimulatedMachine) -> None:
    """It knows no MIG devices: the parent has the process, and null where there is no number."""
    gpus = gpustat(busy)
    state: State = simulate.read_state(busy.dir)
    assert [(gpu["index"], gpu["uuid"], gpu["name"]) for gpu in gpus] == [
        (index, gpu["uuid"], gpu["name"]) for index, gpu in enumerate(state["gpus"])
    ]
    keys = (
        "utilization.gpu",
        "power.draw",
        "temperature.gpu",
        "fan.speed",
        "memory.used",
        "memory.total",
    )
    assert [tuple(gpu[key] for key in keys) for gpu in gpus] == [
        (37, 271, 61, None, 2048, 40960),
        (None, 60, 35, None, 512, 81559),
        (None, 60, 35, None, 0, 81920),
    ]
    pid = os.getpid()
    seen = [[(row["pid"], row["gpu_memory_usage"]) for row in gpu["processes"]] for gpu in gpus]
    assert seen == [[(pid, 2048)], [(pid, 512)], []]


def test_the_largest_machine_is_shown_whole(eight_by_seven: Played) -> None:
    """Eight GPUs and their fifty-six MIG devices have a row each, no place twice."""
    shown = nvitop(eight_by_seven)
    assert len(shown.gpus) == 8
    assert len(shown.migs) == 56
    assert len(gpustat(eight_by_seven)) == 8


def test_what_is_odd_is_shown_as_it_is(sim: SimulatedMachine) -> None:
    """Unknown is N/A and null, not 0; memory of nobody is used; a process that ended is told (nvitop) or left out (gpustat)."""
    pid = os.getpid()
    for name in (
        "ghost_memory",
        "memory_unknown",
        "utilisation_unknown",
        "process_exits_between_list_and_proc_read",
    ):
        with simulate.changed(sim.dir) as state:
            SCENARIOS[name].play(state, 0, Part(pid=pid))
    shown, told = nvitop(sim), gpustat(sim)
    assert {row[-1] for row in shown.gpus.values()} == {"N/A"}
    assert {gpu["utilization.gpu"] for gpu in told} == {None}
    assert (shown.gpus["0"][3], told[0]["memory.used"]) == ("4024MiB", 4024)
    rows = {row[1]: (row[3], row[4]) for row in shown.processes}
    assert rows[str(pid)][0] == "N/A"
    assert rows[str(NOBODY)] == ("1024MiB", "No Such Process")
    assert [(row["pid"], row["gpu_memory_usage"]) for row in told[0]["processes"]] == [(pid, None)]


def test_a_lost_gpu_hides_no_other(gpu_lost_mid_sweep: Played) -> None:
    """The lost one has nothing but its index; the MIG devices of the others are all there."""
    shown = nvitop(gpu_lost_mid_sweep)
    assert "0" not in shown.gpus
    assert (set(shown.gpus), len(shown.migs)) == ({"1", "2", "3"}, 9)
    assert re.search(r"│ +0 +N/A", shown.text)


def test_nvitop_falls_back_on_an_old_driver(old_driver_symbols: Played) -> None:
    """By the first form of the process list it still finds the process."""
    simulate.add_process(old_driver_symbols.dir, os.getpid(), old_driver_symbols.uuid(0), memory_mib=300)
    done = old_driver_symbols.run(sys.executable, "-m", "nvitop", "-1", env=WIDE)
    assert done.returncode == 0
    assert [row[:2] + row[3:4] for row in Shown(done.stdout).processes] == [
        ("0", str(os.getpid()), "300.0MiB")
    ]


@pytest.mark.parametrize(
    ("name", "words"),
    [("driver_mismatch", "version mismatch"), ("no_library", "not found")],
)
@pytest.mark.parametrize("program", [("nvitop", "-1"), ("gpustat", "--json")], ids=["nvitop", "gpustat"])
def test_a_driver_that_does_not_start_is_told(
    request: pytest.FixtureRequest, name: str, words: str, program: tuple[str, str]
) -> None:
    """They end with 1 and NVML's reason."""
    machine: Played = request.getfixturevalue(name)
    done = machine.run(sys.executable, "-m", *program, env=WIDE)
    assert done.returncode == 1
    assert words in done.stderr.lower()


@pytest.mark.parametrize(
    "program",
    [("nvitop", "-1"), ("nvitop.select", "-n", "1"), ("gpustat", "--json")],
    ids=["nvitop", "select", "gpustat"],
)
def test_no_call_of_theirs_is_missing(busy: SimulatedMachine, program: tuple[str, ...]) -> None:
    """Each symbol they look for in the library is there."""
    script = f"""
import runpy, sys, pynvml
find, missing = pynvml._nvmlGetFunctionPointer, set()
def found(name):
    try: return find(name)
    except pynvml.NVMLError: missing.add(name); raise
pynvml._nvmlGetFunctionPointer = found
sys.argv = {list(program)!r}
try: runpy.run_module({program[0]!r}, run_name="__main__")
finally: print("missing:", *sorted(missing), file=sys.stderr)
"""
    done = busy.run(sys.executable, "-c", script, env=WIDE)
    assert set(done.stderr.rpartition("missing:")[2].split()) <= MAY_BE_ABSENT, done.stderr
