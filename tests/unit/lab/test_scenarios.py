"""Each scenario as real pynvml sees the machine: what the allocator's tests build on."""

from __future__ import annotations

import inspect
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import simulate
from lab.scenarios import NOBODY, SCENARIOS, NotPlayable, Part, reboot
from tests.fakes.simulated_gpus import LAB, PREAMBLE, START, Played, SimulatedMachine

PROCESSES = "def pids(h): return [r.pid for r in p.nvmlDeviceGetComputeRunningProcesses_v3(h)]\n"
NO_START = ""


def caught(pid: int) -> bool:
    """Whether a handler of the process has SIGTERM, as while it hangs in a proof hang."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) & 1 << 14 for line in lines if line.startswith("SigCgt:"))


def test_a_mode_that_waits_for_a_reset_is_pending(mig_mode_pending: Played) -> None:
    """Current and pending differ, and asking again says that a reset is needed."""
    script = "print(p.nvmlDeviceGetMigMode(gpu[0]), p.nvmlDeviceSetMigMode(gpu[0], 1), p.nvmlDeviceGetMigMode(gpu[0]))"
    assert mig_mode_pending.ask(script) == "[0, 1] 16 [0, 1]"


def test_what_is_in_use_can_neither_be_destroyed_nor_switched_off(mig_in_use: Played) -> None:
    """Destroying answers IN_USE for the compute instance and the GPU instance, and so does the mode's status."""
    script = """
gi = p.nvmlDeviceGetGpuInstanceById(gpu[2], 1)
ci = p.nvmlGpuInstanceGetComputeInstanceById(gi, 0)
print(code(p.nvmlComputeInstanceDestroy, ci), code(p.nvmlGpuInstanceDestroy, gi), p.nvmlDeviceSetMigMode(gpu[2], 0))
"""
    assert mig_in_use.ask(script) == "19 19 19"


def test_fragments_hold_no_larger_profile(fragmented: Played) -> None:
    """Three small instances of seven leave four of their kind, and no place for 2g or 3g, wherever it is asked for."""
    script = """
def room(profile): return p.nvmlDeviceGetGpuInstanceRemainingCapacity(gpu[2], profile)
P = p.c_nvmlGpuInstancePlacement_t
print(room(19), room(14), room(9), len(migs(gpu[2])))
print({code(p.nvmlDeviceCreateGpuInstanceWithPlacement, gpu[2], 14, ctypes.byref(P(start, 2))) for start in (0, 2, 4)})
print(code(p.nvmlDeviceCreateGpuInstance, gpu[2], 9), code(p.nvmlDeviceCreateGpuInstanceWithPlacement, gpu[2], 19, ctypes.byref(P(0, 1))))
"""
    assert fragmented.ask(script).split("\n") == ["4 0 0 3", "{23}", "23 0"]


def test_a_device_made_again_has_its_old_uuid(same_uuid_after_recreation: Played) -> None:
    """Destroyed it is not found and leaves a gap; made again, the same UUID and index stand for it."""
    machine = same_uuid_after_recreation
    uuid = simulate.mig_uuid(machine.uuid(2), 1, 0)
    script = f"print(code(p.nvmlDeviceGetHandleByUUID, b'{uuid}'), {{k: v == '{uuid}' for k, v in migs(gpu[2]).items()}})"
    assert machine.ask(script) == "6 {1: False}"
    machine.play(Part())
    assert machine.ask(script) == "0 {0: True, 1: False}"


def test_a_process_can_be_gone_when_proc_is_read(process_exits_between_list_and_proc_read: Played) -> None:
    """NVML lists the pid with its memory; /proc has no such process."""
    script = PROCESSES + "print([(pid, os.path.exists(f'/proc/{pid}')) for pid in pids(gpu[0])])"
    assert process_exits_between_list_and_proc_read.ask(script) == f"[({NOBODY}, False)]"


def test_a_process_can_run_where_nobody_gave_it_a_device(process_without_lease: Played) -> None:
    """On the whole GPU first, then on the MIG device, which its GPU lists as well."""
    script = (
        PROCESSES
        + "print(pids(gpu[0]), pids(gpu[2]), pids(p.nvmlDeviceGetMigDeviceHandleByIndex(gpu[2], 0)))"
    )
    me = os.getpid()
    assert process_without_lease.ask(script) == f"[{me}] [] []"
    process_without_lease.play(Part(pid=me))
    assert process_without_lease.ask(script) == f"[] [{me}] [{me}]"


def test_a_pid_can_come_back_as_another_process(pid_reused: Played) -> None:
    """Only the pid is the same: the device is another one."""
    script = PROCESSES + "print(pids(gpu[0]), pids(gpu[1]))"
    assert pid_reused.ask(script) == f"[{os.getpid()}] []"
    pid_reused.play(Part(pid=os.getpid()))
    assert pid_reused.ask(script) == f"[] [{os.getpid()}]"


def test_a_pid_really_comes_back_with_another_start_time(sim: SimulatedMachine) -> None:
    """In a PID namespace of its own two processes get one pid, one after the other; the start time tells them apart."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("needs root and unshare")
    script = f"""
import time
{PROCESSES}
device, seen = simulate.gpu_uuid(0), []
for round in range(2):
    open("/proc/sys/kernel/ns_last_pid", "w").write("99")
    child = os.fork()
    if not child: time.sleep(30); os._exit(0)
    simulate.add_process(state, child, device)
    seen.append((pids(gpu[0]), open(f"/proc/{{child}}/stat").read().rsplit(")")[1].split()[19]))
    os.kill(child, 9); os.waitpid(child, 0)
    simulate.remove_process(state, child)
    time.sleep(0.05)
print(seen[0][0] == seen[1][0] == [100], seen[0][1] != seen[1][1])
"""
    within = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    assert sim.ask(LAB + START + script, start=NO_START, within=within) == "True True"


@pytest.mark.parametrize(("name", "used"), [("foreign_pid_namespace", 2048), ("ghost_memory", 3000)])
def test_memory_can_be_used_by_nobody_that_is_seen(
    request: pytest.FixtureRequest, name: str, used: int
) -> None:
    """No list of any kind has a process, and the memory is used all the same."""
    machine: Played = request.getfixturevalue(name)
    script = PROCESSES + "print(pids(gpu[0]), p.nvmlDeviceGetMemoryInfo(gpu[0]).used >> 20)"
    assert machine.ask(script) == f"[] {used}"


@pytest.mark.parametrize(
    ("name", "index", "told"),
    [("xid_on_gi", 2, "31 1 0"), ("xid_on_device", 0, f"79 {2**32 - 1} {2**32 - 1}")],
)
def test_an_xid_names_its_device_and_its_instance(
    sim: SimulatedMachine, name: str, index: int, told: str
) -> None:
    """One of a MIG device carries the ids of its instances, one of the GPU none."""
    script = f"""
from lab.scenarios import SCENARIOS, Part
events = p.nvmlEventSetCreate()
for h in gpu: p.nvmlDeviceRegisterEvents(h, 8, events)
with simulate.changed(state) as machine: SCENARIOS["{name}"].play(machine, 0, Part())
e = p.nvmlEventSetWait_v2(events, 1000)
print(p.nvmlDeviceGetIndex(e.device), e.eventData, e.gpuInstanceId, e.computeInstanceId, code(p.nvmlEventSetWait_v2, events, 20))
"""
    assert sim.ask(LAB + START + script, start=NO_START) == f"{index} {told} 10"


def test_memory_errors_wait_for_a_reset(ecc_and_remap_pending: Played) -> None:
    """The error is counted, a row is pending, and the recovery action is a reset; a GPU beside it is well."""
    script = """
for h in gpu[:2]:
    print(p.nvmlDeviceGetTotalEccErrors(h, 1, 0), p.nvmlDeviceGetRemappedRows(h), p.nvmlDeviceGetFieldValues(h, [230])[0].value.ullVal)
"""
    assert ecc_and_remap_pending.ask(script).split("\n") == ["1 (0, 1, 1, 0) 1", "0 (0, 0, 0, 0) 0"]


def test_a_gpu_can_be_lost_between_two_calls(gpu_lost_mid_sweep: Played) -> None:
    """Three calls are answered and none after them; other GPUs go on."""
    script = "print([code(p.nvmlDeviceGetName, gpu[0]) for _ in range(5)], code(p.nvmlDeviceGetName, gpu[1]))"
    assert gpu_lost_mid_sweep.ask(script) == "[0, 0, 0, 15, 15] 0"


def test_a_lost_gpu_can_be_counted_and_give_no_handle(gpu_lost_at_enumeration: Played) -> None:
    """The count includes it, by index and by UUID it answers GPU_IS_LOST, and the next one is at its old index."""
    lost = gpu_lost_at_enumeration.uuid(0)
    script = f"""
p.nvmlInit()
print(p.nvmlDeviceGetCount(), [code(p.nvmlDeviceGetHandleByIndex, i) for i in range(4)], code(p.nvmlDeviceGetHandleByUUID, b"{lost}"))
"""
    assert gpu_lost_at_enumeration.ask(script, start=NO_START) == "4 [15, 0, 0, 0] 15"


def test_a_gpu_can_be_missing_after_a_boot(gpu_missing_after_reboot: Played) -> None:
    """The others close up, MIG mode is kept, and its devices are gone."""
    script = "print([p.nvmlDeviceGetUUID(h) for h in gpu], [p.nvmlDeviceGetMigMode(h)[0] for h in gpu], migs(gpu[1]))"
    others = [simulate.gpu_uuid(index) for index in (0, 2, 3)]
    assert gpu_missing_after_reboot.ask(script) == f"{others} [0, 1, 1] {{}}"
    gone = f"p.nvmlInit(); print(code(p.nvmlDeviceGetHandleByUUID, b'{simulate.gpu_uuid(1)}'))"
    assert gpu_missing_after_reboot.ask(gone, start=NO_START) == "6"


def test_a_boot_ends_instances_and_the_mode_of_hopper() -> None:
    """An A100 keeps MIG mode, or takes the one that was pending; an H100 is without it; nothing runs."""
    state = simulate.machine("a100-40:7g.40gb,h100-80:7g.80gb,a100-40")
    state["gpus"][2]["mig"]["pending"] = 1
    state["procs"] = [simulate.process(NOBODY, state["gpus"][0]["uuid"])]
    reboot(state)
    assert [gpu["mig"]["current"] for gpu in state["gpus"]] == [1, 0, 1]
    assert [gpu["gis"] for gpu in state["gpus"]] == [[], [], []]
    assert state["procs"] == []


def test_indices_can_change_with_a_boot(index_order_swapped: Played) -> None:
    """The same UUIDs, minors and bus ids stand at other indices."""
    script = "print([p.nvmlDeviceGetUUID(h) for h in gpu], [p.nvmlDeviceGetMinorNumber(h) for h in gpu])"
    assert index_order_swapped.ask(script) == f"{[simulate.gpu_uuid(i) for i in (3, 2, 1, 0)]} [3, 2, 1, 0]"


def test_one_call_can_hang_alone(hang_in_one_call: Played) -> None:
    """It takes its time and others do not."""
    script = """
import time
def timed(f): begin = time.monotonic(); f(gpu[0]); return time.monotonic() - begin
print(timed(p.nvmlDeviceGetMemoryInfo) < 0.3, timed(p.nvmlDeviceGetComputeRunningProcesses_v3) >= 0.3)
"""
    assert hang_in_one_call.ask(script) == "True True"


def test_the_start_can_hang(hang_at_init: Played) -> None:
    """Nothing is answered before it."""
    script = "import time; begin = time.monotonic(); p.nvmlInitWithFlags(1); print(time.monotonic() - begin >= 0.3)"
    assert hang_at_init.ask(script, start=NO_START) == "True"


@pytest.mark.parametrize(("name", "survives"), [("hang_in_one_call", False), ("sigterm_proof_hang", True)])
def test_a_hang_ends_by_sigterm_unless_it_is_proof(
    request: pytest.FixtureRequest, name: str, *, survives: bool
) -> None:
    """A process that hangs ends by SIGTERM; in the proof hang it does not, by SIGKILL only."""
    machine: Played = request.getfixturevalue(name)
    with simulate.changed(machine.dir) as state:
        state["faults"][0]["hang_ms"] = 60_000
    script = (
        PREAMBLE + START + "print('hangs', flush=True); p.nvmlDeviceGetComputeRunningProcesses_v3(gpu[0])"
    )
    hung = subprocess.Popen(
        [sys.executable, "-c", script], env=os.environ | machine.environment, stdout=subprocess.PIPE
    )
    assert hung.stdout is not None
    with hung.stdout:
        hung.stdout.readline()
        while survives and not caught(hung.pid):
            time.sleep(0.01)
        hung.terminate()
        try:
            ended = hung.wait(0.5 if survives else 10)
        except subprocess.TimeoutExpired:
            ended = None
        hung.kill()
        hung.wait(10)
    assert ended == (None if survives else -signal.SIGTERM)


def test_a_sigterm_that_came_in_a_proof_hang_ends_the_process_after_it(sigterm_proof_hang: Played) -> None:
    """As a process in D state: nothing of it runs on once the call is over."""
    script = """
import signal, threading
from pathlib import Path
def end():
    while not caught(os.getpid()): pass
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=end, daemon=True).start()
p.nvmlDeviceGetComputeRunningProcesses_v3(gpu[0])
print("went on")
"""
    script = PREAMBLE + START + inspect.getsource(caught) + script
    done = sigterm_proof_hang.run(sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "")


def test_after_proof_hangs_of_several_threads_sigterm_comes_as_before(sigterm_proof_hang: Played) -> None:
    """Calls that overlap leave nothing behind: a SIGTERM after the last of them ends the process."""
    script = """
import signal, threading, time
def ask(): p.nvmlDeviceGetComputeRunningProcesses_v3(gpu[0])
first, second = threading.Thread(target=ask), threading.Thread(target=ask)
first.start(); time.sleep(0.1); second.start()
first.join(); print(second.is_alive(), flush=True); second.join()
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(1)
print("went on")
"""
    done = sigterm_proof_hang.run(sys.executable, "-c", PREAMBLE + START + script)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "True\n")


@pytest.mark.parametrize("how", ["os.kill(os.getpid(), signal.SIGTERM); time.sleep(60)", "sys.exit()"])
def test_a_process_does_not_go_while_a_thread_of_it_hangs_proof(sigterm_proof_hang: Played, how: str) -> None:
    """As with a thread in D state: neither SIGTERM nor the end of its program takes it away before the call is over."""
    script = f"""
import signal, threading, time
threading.Thread(target=lambda: p.nvmlDeviceGetComputeRunningProcesses_v3(gpu[0]), daemon=True).start()
while not caught(os.getpid()): pass
{how}
"""
    with simulate.changed(sigterm_proof_hang.dir) as state:
        state["faults"][0]["hang_ms"] = 2000
    program = PREAMBLE + START + inspect.getsource(caught) + script
    with subprocess.Popen(
        [sys.executable, "-c", "from pathlib import Path\n" + program],
        env=os.environ | sigterm_proof_hang.environment,
    ) as hung:
        while not caught(hung.pid):
            time.sleep(0.01)
        began = time.monotonic()
        hung.wait(20)
    assert time.monotonic() - began > 1.5


@pytest.mark.parametrize(("name", "answer"), [("driver_mismatch", 18), ("no_library", 12)])
def test_a_driver_that_cannot_start_says_why(request: pytest.FixtureRequest, name: str, answer: int) -> None:
    """A mismatch and a missing library are told apart, by either way to start."""
    machine: Played = request.getfixturevalue(name)
    script = "print(code(p.nvmlInit), code(p.nvmlInitWithFlags, 1))"
    assert machine.ask(script, start=NO_START) == f"{answer} {answer}"
    assert (machine.library is None) == (name == "no_library")


def test_an_old_driver_lacks_calls_and_has_their_forerunners(old_driver_symbols: Played) -> None:
    """The newer calls are no symbols of the library; the first forms of them are, and the rest is as ever."""
    script = """
print(p.nvmlSystemGetDriverVersion(), len(gpu), code(p.nvmlDeviceGetMemoryInfo, gpu[0]), code(p.nvmlDeviceGetMemoryInfo, gpu[0], p.nvmlMemory_v2))
print(code(p.nvmlDeviceGetComputeRunningProcesses_v3, gpu[0]), code(p.nvmlDeviceGetComputeRunningProcesses_v2, gpu[0]))
try: p.nvmlDeviceGetComputeRunningProcesses(gpu[0])
except p.NVMLError: print("an NVMLError")
except p.NVMLLibraryMismatchError: print("no NVMLError at all")
lib = ctypes.CDLL("libnvidia-ml.so.1")
print([hasattr(lib, "nvmlDeviceGetComputeRunningProcesses" + version) for version in ("", "_v2", "_v3")])
print(code(p.nvmlDeviceGetCurrentClocksEventReasons, gpu[0]), code(p.nvmlDeviceGetCurrentClocksThrottleReasons, gpu[0]))
"""
    assert old_driver_symbols.ask(script).split("\n") == [
        "450.36.06 4 0 13", "13 13", "no NVMLError at all", "[True, False, False]", "13 0",
    ]  # fmt: skip


def test_a_machine_can_have_no_gpu(no_gpus: Played) -> None:
    """NVML starts and counts none."""
    assert no_gpus.ask("print(p.nvmlDeviceGetCount(), code(p.nvmlDeviceGetHandleByIndex, 0))") == "0 2"


def test_the_largest_machine_has_fifty_six_devices(eight_by_seven: Played) -> None:
    """Eight GPUs of seven MIG devices each, no UUID twice."""
    script = (
        "found = [u for h in gpu for u in migs(h).values()]; print(len(gpu), len(found), len(set(found)))"
    )
    assert eight_by_seven.ask(script) == "8 56 56"


def test_memory_of_a_process_can_be_unknown(memory_unknown: Played) -> None:
    """It is None, which is not 0, and the device's own count does not know of it."""
    script = "print([r.usedGpuMemory for r in p.nvmlDeviceGetComputeRunningProcesses_v3(gpu[0])])"
    assert memory_unknown.ask(script) == "[None]"


def test_memory_of_a_gpu_can_be_unknown(memory_size_unknown: Played) -> None:
    """Its size is not supported, and the next GPU's is told."""
    script = "print([code(p.nvmlDeviceGetMemoryInfo, h) for h in gpu[:2]])"
    assert memory_size_unknown.ask(script) == "[3, 0]"


def test_utilisation_can_be_unknown(utilisation_unknown: Played) -> None:
    """None of the three ways to it answers, on a GPU without MIG mode."""
    script = """
print(code(p.nvmlDeviceGetUtilizationRates, gpu[0]), code(p.nvmlDeviceGetSamples, gpu[0], 1, 0), code(p.nvmlDeviceGetProcessUtilization, gpu[0], 0))
"""
    assert utilisation_unknown.ask(script) == "3 3 3"


@pytest.mark.parametrize("name", ["fragmented", "pid_reused", "index_order_swapped", "xid_on_gi"])
def test_a_machine_that_will_not_do_is_refused_in_words(name: str) -> None:
    """Without GPUs these cannot be played, and the refusal says what is missing."""
    with pytest.raises(NotPlayable, match="this needs"):
        SCENARIOS[name].play(simulate.machine("none"), 0, Part())


def test_a_step_that_needs_an_earlier_one_says_so() -> None:
    """Nothing can be made again that was not destroyed."""
    with pytest.raises(NotPlayable, match="play step 1 first"):
        SCENARIOS["same_uuid_after_recreation"].play(simulate.machine(), 1, Part())
