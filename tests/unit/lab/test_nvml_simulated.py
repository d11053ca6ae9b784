"""The simulated library under the real pynvml: one process for each machine."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from lab import simulate

if TYPE_CHECKING:
    from pathlib import Path

PREAMBLE = """
import ctypes, os, sys
ctypes.CDLL({library!r}, ctypes.RTLD_GLOBAL)
import pynvml as p
def code(function, *arguments):
    try:
        function(*arguments)
    except p.NVMLError as error:
        return error.value
    return 0
def migs(h):
    found = {{}}
    for i in range(p.nvmlDeviceGetMaxMigDeviceCount(h)):
        try:
            found[i] = p.nvmlDeviceGetUUID(p.nvmlDeviceGetMigDeviceHandleByIndex(h, i))
        except p.NVMLError_NotFound:
            pass
    return found
"""
START = "p.nvmlInit(); gpu = [p.nvmlDeviceGetHandleByIndex(i) for i in range(p.nvmlDeviceGetCount())]\n"


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate.build(tmp_path_factory.mktemp("nvml"))


class Sim:
    """One state directory and the library; `ask` runs a script in a process of its own."""

    def __init__(self, library: Path, state_dir: Path) -> None:
        self.library = library
        self.dir = state_dir
        simulate.write_state(state_dir, simulate.machine())

    def ask(self, script: str, *, start: str = START, env: dict[str, str] | None = None) -> str:
        environ = os.environ | {"DS01_SIM_NVML": str(self.dir), "STATE": str(self.dir)} | (env or {})
        text = PREAMBLE.format(library=str(self.library)) + start + script
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, env=environ, timeout=30, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def sim(library: Path, tmp_path: Path) -> Sim:
    return Sim(library, tmp_path / "state")


def test_inventory_is_the_machine(sim: Sim) -> None:
    """UUIDs, modes and MIG devices are those of the state, and UUIDs agree with Python's rule."""
    out = sim.ask(
        "print([p.nvmlDeviceGetUUID(h) for h in gpu], [p.nvmlDeviceGetMigMode(h)[0] for h in gpu], migs(gpu[2]))"
    )
    halves = {index: simulate.mig_uuid(simulate.gpu_uuid(2), gi, 0) for index, gi in enumerate((1, 2))}
    assert out == f"{[simulate.gpu_uuid(i) for i in range(4)]} [0, 0, 1, 1] {halves}"


def test_measurements_do_not_exist_on_mig(sim: Sim) -> None:
    """Utilisation and remapped rows are numbers on a whole GPU and NOT_SUPPORTED while MIG is on."""
    script = """
print([code(f, gpu[i]) for i in (0, 2) for f in (p.nvmlDeviceGetUtilizationRates, p.nvmlDeviceGetRemappedRows)])
print(code(p.nvmlDeviceGetSamples, gpu[2], 1, 0), code(p.nvmlDeviceGetProcessUtilization, gpu[2], 0))
"""
    assert sim.ask(script).split("\n") == ["[0, 0, 3, 3]", "3 3"]


def test_lifecycle_recreates_the_same_uuid_and_leaves_gaps(sim: Sim) -> None:
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


def test_placement_clashes_are_insufficient_resources(sim: Sim) -> None:
    """An overlapping placement and an eighth compute slice are refused; an impossible place is an invalid argument."""
    script = """
P = p.c_nvmlGpuInstancePlacement_t
make = lambda i, profile, *at: code(p.nvmlDeviceCreateGpuInstanceWithPlacement, gpu[i], profile, ctypes.byref(P(*at)))
print(make(2, 9, 4, 4), make(3, 19, 6, 1), make(2, 9, 2, 4), make(0, 9, 0, 4))
print(p.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu[3], 19))
"""
    assert sim.ask(script).split("\n") == ["23 23 2 3", "0"]


def test_profiles_have_real_ids_and_placements(sim: Sim) -> None:
    """Profiles carry the driver's ids, and 1g.10gb starts at every second memory slice."""
    script = """
ids = [p.nvmlDeviceGetGpuInstanceProfileInfo(gpu[2], e).id for e in (0, 7, 9, 1, 2, 3, 4)]
count, out = ctypes.c_uint(8), (p.c_nvmlGpuInstancePlacement_t * 8)()
p.nvmlDeviceGetGpuInstancePossiblePlacements(gpu[2], 15, out, ctypes.byref(count))
print(ids, [(out[i].start, out[i].size) for i in range(count.value)])
"""
    assert sim.ask(script) == "[19, 20, 15, 14, 9, 5, 0] [(0, 2), (2, 2), (4, 2), (6, 2)]"


def test_mode_stays_pending_while_instances_exist(sim: Sim) -> None:
    """Switching MIG off with instances answers IN_USE as status and leaves the mode pending."""
    script = "print(p.nvmlDeviceSetMigMode(gpu[2], 0), p.nvmlDeviceGetMigMode(gpu[2]), p.nvmlDeviceSetMigMode(gpu[0], 1))"
    assert sim.ask(script) == "19 [1, 0] 0"


def test_a_claim_is_a_process_as_long_as_it_is_held(sim: Sim) -> None:
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


def test_unknown_memory_is_none_and_a_ghost_still_counts(sim: Sim) -> None:
    """A process without known memory reports None; pids in the state need not exist."""
    simulate.add_process(sim.dir, 4194000, simulate.gpu_uuid(0), memory_mib=None)
    simulate.add_process(sim.dir, 4194001, simulate.gpu_uuid(0), memory_mib=512)
    simulate.remove_process(sim.dir, 1)
    out = sim.ask(
        "print([r.usedGpuMemory for r in p.nvmlDeviceGetComputeRunningProcesses(gpu[0])], p.nvmlDeviceGetMemoryInfo(gpu[0]).used >> 20)"
    )
    assert out == "[None, 536870912] 512"


def test_a_lost_gpu_answers_so_on_itself_and_its_mig_devices(sim: Sim) -> None:
    """After loss, calls on the GPU and its MIG devices answer GPU_IS_LOST; other GPUs go on."""
    script = """
sys.path[0:0] = [os.getcwd()]
mig = p.nvmlDeviceGetMigDeviceHandleByIndex(gpu[2], 0)
from pathlib import Path
from lab import simulate
simulate.lose_gpu(Path(os.environ["STATE"]), simulate.gpu_uuid(2))
print([code(p.nvmlDeviceGetMemoryInfo, h) for h in (gpu[2], mig, gpu[1])])
simulate.heal(Path(os.environ["STATE"]))
print(code(p.nvmlDeviceGetMemoryInfo, mig))
"""
    assert sim.ask(script).split("\n") == ["[15, 15, 0]", "0"]


def test_a_hang_holds_one_thread_and_trips_after_its_calls(sim: Sim) -> None:
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


def test_an_xid_reaches_each_event_set_once(sim: Sim) -> None:
    """A waiting set gets the XID with its code and instance, then times out."""
    script = """
sys.path[0:0] = [os.getcwd()]
from pathlib import Path
from lab import simulate
events = p.nvmlEventSetCreate()
p.nvmlDeviceRegisterEvents(gpu[2], 8, events)
simulate.raise_xid(Path(os.environ["STATE"]), simulate.gpu_uuid(2), 79, gi=1, ci=0)
event = p.nvmlEventSetWait_v2(events, 1000)
print(event.eventType, event.eventData, event.gpuInstanceId, p.nvmlDeviceGetUUID(event.device) == simulate.gpu_uuid(2))
print(code(p.nvmlEventSetWait_v2, events, 50))
"""
    assert sim.ask(script).split("\n") == ["8 79 1 True", "10"]


def test_faults_at_start_and_missing_state_are_error_codes(sim: Sim) -> None:
    """An ordered init failure and a machine without state both answer 9; calls before init answer 1."""
    with simulate.changed(sim.dir) as state:
        state["faults"] = [{"symbol": "nvmlInitWithFlags", "ret": 18}]
    assert sim.ask("print(code(p.nvmlInit))", start="") == "18"
    assert sim.ask("print(code(p.nvmlInit))", start="", env={"DS01_SIM_NVML": "/nonexistent"}) == "9"


def test_a_view_shows_only_its_devices(sim: Sim) -> None:
    """With one MIG device visible there is one GPU with one MIG device, and others cannot be looked up."""
    mine = simulate.mig_uuid(simulate.gpu_uuid(3), 9, 0)
    script = f"print(len(gpu), migs(gpu[0]), code(p.nvmlDeviceGetHandleByUUID, b'{simulate.gpu_uuid(0)}'))"
    assert sim.ask(script, env={"DS01_SIM_VISIBLE": mine}) == f"1 {{2: '{mine}'}} 6"


def test_an_unreadable_state_keeps_the_last_good_one(sim: Sim) -> None:
    """A half-written file changes nothing for a running process."""
    script = """
open(os.environ["STATE"] + "/state.json", "w").write('{"gpus": [{"uuid":')
print(p.nvmlDeviceGetCount())
"""
    assert sim.ask(script) == "4"


MALFORMED = [
    '{"gpus":[{"uuid":"GPU-a","profile_set":"a100-40","mig":{"current":1},"gis":[{"id":1,"profile":9,"start":99,"cis":[{"id":0,"profile":2,"start":99}]}]}]}',
    '{"gpus":[{"uuid":"GPU-a","profile_set":"a100-40","mig":{"current":1},"gis":[{"id":1,"profile":9,"start":-3,"cis":[{"id":0,"profile":2,"start":-3}]}]}]}',
    '{"gpus": 5}', '{"gpus": [null, 3, "x", [], {}]}', '{"gpus": [{"uuid": 7}]}', '{"gpus":[{"uuid":"' + "G" * 5000 + '"}]}',
    '{"gpus":[{"uuid":"GPU-a","profile_set":"a100-40","mig":{"current":1},"gis":[7,{"id":-1,"cis":[{},[]]},{"id":1e300,"profile":-5,"start":99,"cis":{}}]}]}',
    '{"gpus":[{"uuid":"../..","mem_mib":-1,"remap":"x","ecc":[],"util":{"gpu":-4},"mig":3,"profile_set":"a100-40"}],"procs":[{"pid":-1},{"pid":1e99,"gpu":"../.."}],"faults":[{}],"events":{}}',
    "[" * 100000, '"', "", "nul", "\x00", '{"a":"\\u12', '{"a":"\\', "1e", "{},", '{"gpus":[{"uuid":"GPU-\x01"}]}',
    '{"gpus":[{"uuid":"GPU-a","profile_set":"a100-40","mig":{"current":1},"gis":[{"id":1,"profile":9,"start":0,"cis":[{"id":0,"profile":9223372036854775807}]}]}]}',
]  # fmt: skip

WALK = """
import random
def walk():
    if code(p.nvmlInit):
        return
    handles = []
    for i in range(-1, 6):
        h = p.c_nvmlDevice_t()
        try: h = p.nvmlDeviceGetHandleByIndex(i); handles.append(h)
        except p.NVMLError: pass
        for m in range(8):
            try: handles.append(p.nvmlDeviceGetMigDeviceHandleByIndex(h, m))
            except p.NVMLError: pass
        for g in range(16):
            try:
                gi = p.nvmlDeviceGetGpuInstanceById(h, g); handles.append(gi)
                handles.append(p.nvmlGpuInstanceGetComputeInstanceById(gi, 0))
            except p.NVMLError: pass
    handles += [ctypes.cast(k << 28 | random.getrandbits(28), p.c_nvmlDevice_t) for k in (0, 1, 2, 3, 4, 5, 1 << 30) for _ in range(4)]
    names = [n for n in dir(p) if n.startswith(("nvmlDeviceGet", "nvmlGpuInstance", "nvmlComputeInstance"))]
    for h in handles:
        for n in names:
            for arguments in ((h,), (h, 0), (h, 9), (h, 1, 0)):
                try: getattr(p, n)(*arguments)
                except (p.NVMLError, TypeError, AttributeError, ctypes.ArgumentError, NotImplementedError, ValueError, OSError): pass
    for t in (0, 1): code(p.nvmlDeviceSetMigMode, handles[0], t)
for text in sys.stdin.read().split("\\x1e"):
    os.unlink(os.environ["STATE"] + "/state.json")
    open(os.environ["STATE"] + "/state.json", "w", newline="").write(text)
    walk()
print("whole")
"""


def test_malformed_states_never_crash_even_under_sanitizers(tmp_path: Path) -> None:
    """Broken files, invented handles and every call on them give error codes, with no memory error."""
    probe = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not probe.startswith("/"):
        pytest.skip("gcc has no address sanitizer here")
    sim = Sim(simulate.build(tmp_path / "lib", sanitize=True), tmp_path / "state")
    environ = os.environ | {
        "DS01_SIM_NVML": str(sim.dir), "STATE": str(sim.dir), "LD_PRELOAD": probe,
        "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", PREAMBLE.format(library=str(sim.library)) + WALK],
        input="\x1e".join(MALFORMED), capture_output=True, text=True, env=environ, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip()) == (0, "whole"), done.stderr[-3000:]


def test_build_is_done_once(tmp_path: Path) -> None:
    """A library newer than its sources is not compiled again."""
    library = simulate.build(tmp_path)
    first = library.stat().st_mtime_ns
    time.sleep(0.01)
    assert simulate.build(tmp_path).stat().st_mtime_ns == first
