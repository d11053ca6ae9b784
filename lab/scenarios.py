"""What can happen to a GPU machine, each under a name: edits of the simulated machine's state, one step after another.

A step changes the document it is given and nothing else. Tests have a fixture for each name; `ds01-lab gpu scenario` plays them.
SOURCE: the failures that NVIDIA's tools and their issue trackers tell of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lab import simulate
from lab.simulate import State

NOBODY: Final = 1 << 22  # SOURCE: linux/threads.h, PID_MAX_LIMIT: no process ever has this pid
GPU_IS_LOST, DRIVER_MISMATCH, NO_LIBRARY, NO_FUNCTION = 15, 18, 12, 13
_ELSEWHERE = "1"  # no PID namespace has this inode
_HALF_NARROW: Final = ((1, 8), (3, 10), (5, 12))  # memory slice, id of the GPU instance

SYMBOLS_OLD_DRIVERS_LACK: Final = (  # SOURCE: nvml.h of 450 against 550
    "nvmlDeviceGetComputeRunningProcesses_v2",
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v2",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v2",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
    "nvmlDeviceGetRunningProcessDetailList",
    "nvmlDeviceGetMemoryInfo_v2",
    "nvmlDeviceGetTemperatureV",
    "nvmlDeviceGetCurrentClocksEventReasons",
    "nvmlDeviceGetGpuInstanceProfileInfoV",
    "nvmlDeviceGetGpuInstanceProfileInfoByIdV",
    "nvmlGpuInstanceGetComputeInstanceProfileInfoV",
    "nvmlDeviceGetDriverModel_v2",
    "nvmlGpmQueryDeviceSupport",
)


class NotPlayable(ValueError):  # noqa: N818  told as a statement about the machine, like SpecInvalid
    """The machine has not what the scenario is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Who plays: the pid of the process, and how long a call hangs."""

    pid: int = NOBODY
    milliseconds: int = 60_000


Step = Callable[[State, Part], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One thing that can happen.

    machine: what a test starts from. replaces: playing it on a running lab puts that machine in place of the lab's.
    library: None: the driver library is not there; else the symbols that it lacks.
    """

    summary: str
    steps: tuple[Step, ...] = ()
    machine: str = simulate.DEFAULT_SPEC
    replaces: bool = False
    library: tuple[str, ...] | None = ()

    def play(self, state: State, step: int, part: Part) -> State:
        """The machine after step `step` (from 0) on `state`, which is changed. Raises: NotPlayable."""
        if self.replaces and step == 0:
            state |= simulate.machine(self.machine) | {"seq": state["seq"]}
        if step < len(self.steps):
            self.steps[step](state, part)
        return state


def reboot(state: State) -> State:
    """What a boot leaves: A100s keep MIG mode, Hopper does not, no instance and no process survives.

    A mode that waited for a reset is in force; counters start again.
    """
    state |= {"procs": [], "events": []}
    for gpu in state["gpus"]:
        mode = gpu["mig"]["pending"] if gpu["profile_set"].startswith("a100") else 0
        gpu |= {"gis": [], "mig": {"current": mode, "pending": mode}, "ghost_mib": 0}
        gpu["energy"]["mj"] = 0
        gpu["ecc"] = {key: count for key, count in gpu["ecc"].items() if key.endswith("_agg")}
    return state


def whole_gpu(state: State, number: int = 0) -> State:
    """The GPU without MIG mode that stands at `number` among those. Raises: NotPlayable."""
    found = [gpu for gpu in state["gpus"] if not gpu["mig"]["current"]]
    if number >= len(found):
        raise NotPlayable(f"this needs {number + 1} GPUs without MIG mode, and there are {len(found)}")
    one: State = found[number]
    return one


def mig_gpu(state: State) -> State:
    """The first GPU with a MIG device. Raises: NotPlayable."""
    for gpu in state["gpus"]:
        if gpu["mig"]["current"] and any(instance["cis"] for instance in gpu["gis"]):
            one: State = gpu
            return one
    raise NotPlayable("this needs a GPU with a MIG device, and there is none")


def _mig_mode_pending(state: State, _part: Part) -> None:
    whole_gpu(state)["mig"] |= {"pending": 1, "needs_reset": True}


def _mig_in_use(state: State, part: Part) -> None:
    gpu = mig_gpu(state)
    instance = gpu["gis"][0]
    state["procs"].append(
        simulate.process(part.pid, gpu["uuid"], gi=instance["id"], ci=instance["cis"][0]["id"])
    )


def _fragmented(state: State, _part: Part) -> None:
    gpu = mig_gpu(state)
    gpu["gis"] = [
        {
            "id": node,
            "profile": 19,
            "start": start,
            "size": 1,
            "cis": [{"id": 0, "profile": 0, "start": 0, "index": index}],
        }
        for index, (start, node) in enumerate(_HALF_NARROW)
    ]


def _destroy_mig_device(state: State, _part: Part) -> None:
    gpu = mig_gpu(state)
    gpu["destroyed"] = gpu["gis"].pop(0)


def _make_it_again(state: State, _part: Part) -> None:
    gpu = next((gpu for gpu in state["gpus"] if "destroyed" in gpu), None)
    if gpu is None:
        raise NotPlayable("no MIG device was destroyed; play step 1 first")
    gpu["gis"].insert(0, gpu.pop("destroyed"))


def _another_profile(state: State, _part: Part) -> None:
    gpu = mig_gpu(state)
    (wide,) = simulate.machine("a100-40:4g.20gb")["gpus"][0]["gis"]
    if wide["id"] != gpu["gis"][0]["id"]:
        raise NotPlayable("this needs a MIG device over the lower half of its GPU")
    gpu["gis"][0] = wide


def _mig_switched_off(state: State, _part: Part) -> None:
    mig_gpu(state).update({"gis": [], "mig": {"current": 0, "pending": 0}})


def _mig_switched_on(state: State, _part: Part) -> None:
    split = simulate.machine("a100-40:3g.20gb+3g.20gb")["gpus"][0]
    whole_gpu(state).update({"gis": split["gis"], "mig": split["mig"]})


def _runs_on(number: int, *, memory_mib: int | None) -> Step:
    """The process runs on that whole GPU and on no other."""

    def step(state: State, part: Part) -> None:
        state["procs"] = [row for row in state["procs"] if row["pid"] != part.pid]
        row = simulate.process(part.pid, whole_gpu(state, number)["uuid"], memory_mib=memory_mib)
        state["procs"].append(row)

    return step


def _runs_on_mig_device(state: State, part: Part) -> None:
    """The process runs on the first MIG device and nowhere else."""
    state["procs"] = [row for row in state["procs"] if row["pid"] != part.pid]
    _mig_in_use(state, part)


def _exits_unseen(state: State, part: Part) -> None:
    _runs_on(0, memory_mib=1024)(state, Part(pid=NOBODY, milliseconds=part.milliseconds))


def _foreign_pid_namespace(state: State, part: Part) -> None:
    row = simulate.process(part.pid, whole_gpu(state)["uuid"], memory_mib=2048)
    state["procs"].append(row | {"pids": {_ELSEWHERE: part.pid}})


def _ghost_memory(state: State, _part: Part) -> None:
    whole_gpu(state)["ghost_mib"] = 3000


def _event(state: State, event: State) -> None:
    last = max((one["id"] for one in state["events"]), default=0)
    state["events"].append({"id": last + 1, "type": simulate.XID_EVENT, "gi": None, "ci": None} | event)


def _xid_on_gi(state: State, _part: Part) -> None:
    gpu = mig_gpu(state)
    instance = gpu["gis"][0]
    place = {"gi": instance["id"], "ci": instance["cis"][0]["id"]}
    _event(state, {"gpu": gpu["uuid"], "data": 31, **place})  # page fault of one tenant


def _xid_on_device(state: State, _part: Part) -> None:
    _event(state, {"gpu": whole_gpu(state)["uuid"], "data": 79})  # off the bus


def _ecc_and_remap_pending(state: State, _part: Part) -> None:
    gpu = whole_gpu(state)
    gpu |= {"ecc": {"dbe_vol": 1, "dbe_agg": 3, "sbe_vol": 12}, "remap": [0, 1, 1, 0], "recovery": 1}
    _event(state, {"gpu": gpu["uuid"], "data": 63})  # row remapping recorded


def _fault(**fault: object) -> Step:
    return lambda state, _part: state["faults"].append(fault)


def _lost_mid_sweep(state: State, _part: Part) -> None:
    fault = {"gpu": whole_gpu(state)["uuid"], "symbol": "*", "ret": GPU_IS_LOST, "after_calls": 3}
    state["faults"].append(fault)


def _lost_at_enumeration(state: State, _part: Part) -> None:
    gpu = whole_gpu(state)["uuid"]
    for symbol in ("nvmlDeviceGetHandleByIndex_v2", "nvmlDeviceGetHandleByUUID", "*"):
        state["faults"].append({"gpu": gpu, "symbol": symbol, "ret": GPU_IS_LOST})


def _missing_after_reboot(state: State, _part: Part) -> None:
    gone = whole_gpu(state, 1)["uuid"]
    reboot(state)["gpus"] = [gpu for gpu in state["gpus"] if gpu["uuid"] != gone]


def _index_order_swapped(state: State, _part: Part) -> None:
    if len(state["gpus"]) < 2:
        raise NotPlayable("this needs two GPUs")
    reboot(state)["gpus"].reverse()


def _hang(symbol: str, *, sigterm_proof: bool = False) -> Step:
    def step(state: State, part: Part) -> None:
        fault = {"symbol": symbol, "hang_ms": part.milliseconds}
        state["faults"].append(fault | ({"sigterm_proof": True} if sigterm_proof else {}))

    return step


def _old_driver(state: State, _part: Part) -> None:
    """A running process has the library open: there the symbols answer what dlsym would have said."""
    state["driver"] = "450.36.06"
    state["faults"] += [{"symbol": symbol, "ret": NO_FUNCTION} for symbol in SYMBOLS_OLD_DRIVERS_LACK]


def _memory_size_unknown(state: State, _part: Part) -> None:
    whole_gpu(state)["mem_mib"] = None


def _utilisation_unknown(state: State, _part: Part) -> None:
    for gpu in state["gpus"]:
        gpu["util"] = None


_PROCESSES_CALL = "nvmlDeviceGetComputeRunningProcesses_v3"

SCENARIOS: Final[Mapping[str, Scenario]] = {
    "mig_mode_pending": Scenario(
        summary="MIG mode was switched on and waits for a reset of the GPU.", steps=(_mig_mode_pending,)
    ),
    "mig_in_use": Scenario(
        summary="A process runs on a MIG device: it cannot be destroyed, nor the mode switched off.",
        steps=(_mig_in_use,),
    ),
    "fragmented": Scenario(
        summary="A GPU has five memory slices free, and no two of them where 2g may start.",
        steps=(_fragmented,),
    ),
    "same_uuid_after_recreation": Scenario(
        summary="A MIG device is destroyed, and made again with the same UUID.",
        steps=(_destroy_mig_device, _make_it_again),
    ),
    "another_profile_at_the_same_place": Scenario(
        summary="In place of a 3g MIG device there is a 4g, with the same UUID.",
        steps=(_another_profile,),
    ),
    "mig_switched_off": Scenario(
        summary="A GPU that was split is whole again, by hand: whose MIG device it was has its file still.",
        steps=(_mig_switched_off,),
    ),
    "mig_switched_on": Scenario(
        summary="A whole GPU was split into two MIG devices, by hand: who had it whole has its file still.",
        steps=(_mig_switched_on,),
    ),
    "process_exits_between_list_and_proc_read": Scenario(
        summary="NVML lists a process that /proc no longer has.", steps=(_exits_unseen,)
    ),
    "pid_reused": Scenario(
        summary="A pid runs on one GPU; the same pid, another process by then, on another one.",
        steps=(_runs_on(0, memory_mib=1000), _runs_on(1, memory_mib=2000)),
    ),
    "process_without_lease": Scenario(
        summary="A process (--pid) runs on a GPU, then on a MIG device, whoever leases them.",
        steps=(_runs_on(0, memory_mib=1024), _runs_on_mig_device),
    ),
    "foreign_pid_namespace": Scenario(
        summary="A process in a PID namespace that cannot be seen uses memory and is in no list.",
        steps=(_foreign_pid_namespace,),
    ),
    "ghost_memory": Scenario(summary="Memory is used that no process owns.", steps=(_ghost_memory,)),
    "xid_on_gi": Scenario(summary="An XID of one MIG device only.", steps=(_xid_on_gi,)),
    "xid_on_device": Scenario(summary="An XID of a whole GPU.", steps=(_xid_on_device,)),
    "xid_while_nvml_hangs": Scenario(
        summary="A GPU falls off the bus while NVML answers nothing: the kernel log has it, NVML tells it late.",
        steps=(_hang("nvml*"), _xid_on_device),
    ),
    "ecc_and_remap_pending": Scenario(
        summary="An uncorrectable error; a row waits for a reset to be remapped.",
        steps=(_ecc_and_remap_pending,),
    ),
    "gpu_lost_mid_sweep": Scenario(
        summary="A GPU answers three calls and then is lost.", steps=(_lost_mid_sweep,)
    ),
    "gpu_lost_at_enumeration": Scenario(
        summary="A GPU is counted and gives no handle.", steps=(_lost_at_enumeration,)
    ),
    "gpu_missing_after_reboot": Scenario(
        summary="After a boot one GPU is not there, and no MIG device.", steps=(_missing_after_reboot,)
    ),
    "index_order_swapped": Scenario(
        summary="After a boot the GPUs stand in another order, and there is no MIG device.",
        steps=(_index_order_swapped,),
    ),
    "hang_in_one_call": Scenario(summary="One call hangs; others go on.", steps=(_hang(_PROCESSES_CALL),)),
    "hang_at_init": Scenario(summary="Starting NVML hangs.", steps=(_hang("nvmlInit*"),)),
    "sigterm_proof_hang": Scenario(
        summary="A call hangs and SIGTERM does not end the process.",
        steps=(_hang(_PROCESSES_CALL, sigterm_proof=True),),
    ),
    "driver_mismatch": Scenario(
        summary="The driver was upgraded under the running kernel module.",
        steps=(_fault(symbol="nvmlInit*", ret=DRIVER_MISMATCH),),
    ),
    "no_library": Scenario(
        summary="There is no NVIDIA driver library.",
        steps=(_fault(symbol="nvmlInit*", ret=NO_LIBRARY),),
        library=None,
    ),
    "old_driver_symbols": Scenario(
        summary="The driver is older than the _v2 and _v3 calls.",
        steps=(_old_driver,),
        library=SYMBOLS_OLD_DRIVERS_LACK,
    ),
    "no_gpus": Scenario(summary="The driver runs and there is no GPU.", machine="none", replaces=True),
    "eight_by_seven": Scenario(
        summary="Eight GPUs with seven MIG devices each.", machine="8xa100-40:7x1g.5gb", replaces=True
    ),
    "memory_unknown": Scenario(
        summary="The driver does not say how much memory a process uses.",
        steps=(_runs_on(0, memory_mib=None),),
    ),
    "memory_size_unknown": Scenario(
        summary="The driver does not say how much memory a GPU has.", steps=(_memory_size_unknown,)
    ),
    "utilisation_unknown": Scenario(
        summary="The driver does not say how busy a GPU is.", steps=(_utilisation_unknown,)
    ),
}
