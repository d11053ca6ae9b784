"""The simulated library on states that are broken, and on handles that nobody made: error codes, never a memory error."""

from __future__ import annotations

import copy
import json
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from lab import simulate
from tests.fakes.simulated_gpus import PREAMBLE, SimulatedMachine, driver_library

if TYPE_CHECKING:
    from pathlib import Path

MIG = '{"gpus":[{"uuid":"GPU-a","profile_set":"a100-40","mig":{"current":1},"gis":[%s]}]}'
MALFORMED = [
    MIG % '{"id":1,"profile":9,"start":99,"cis":[{"id":0,"profile":2,"start":99}]}',
    MIG % '{"id":1,"profile":9,"start":-3,"cis":[{"id":0,"profile":2,"start":-3}]}',
    MIG % '7,{"id":-1,"cis":[{},[]]},{"id":1e300,"profile":-5,"start":99,"cis":{}}',
    MIG % '{"id":1,"profile":9,"start":0,"cis":[{"id":0,"profile":9223372036854775807}]}',
    '{"gpus": 5}', '{"gpus": [null, 3, "x", [], {}]}', '{"gpus": [{"uuid": 7}]}', '{"gpus":[{"uuid":"' + "G" * 5000 + '"}]}',
    '{"gpus":[{"uuid":"../..","mem_mib":-1,"remap":"x","ecc":[],"util":{"gpu":-4},"mig":3,"profile_set":"a100-40"}],"procs":[{"pid":-1},{"pid":1e99,"gpu":"../.."}],"faults":[{}],"events":{}}',
    "[" * 100000, '"', "", "nul", "\x00", '{"a":"\\u12', '{"a":"\\', "1e", "{},", '{"gpus":[{"uuid":"GPU-\x01"}]}',
]  # fmt: skip
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 7, 255, 1 << 31, 1 << 53, 1 << 61, -(1 << 63), 1e300, "", "*", "GPU-", "../..", "x" * 300, [], [[]],
    {}, {"id": 1}, [None, 3, {}],
)  # fmt: skip
MUTANTS = 120

# Functions of pynvml that the library has a symbol for, each time others, on each handle that the state gives and on some
# that it does not.
WALK = """
import ctypes, inspect, random
lib = ctypes.CDLL("libnvidia-ml.so.1")
lib.nvmlErrorString.restype = ctypes.c_char_p
chance = random.Random(1)
ODD = (0, 1, 2, 9, 19, 2**31 - 1)
asked = []
class Asked(dict):
    def __contains__(self, name): asked.append(name); return False
calls, p._nvmlGetFunctionPointer_cache = [], Asked()
def attempt(function, *arguments):
    try: return function(*arguments)
    except (p.NVMLError, p.NVMLLibraryMismatchError, TypeError, AttributeError, ctypes.ArgumentError, ValueError, OverflowError): return None
def value(parameter):
    if "count" in parameter.lower(): return ctypes.byref(ctypes.c_uint(8))
    if parameter.endswith(("Ref", "Array", "Struct")): return (ctypes.c_ulonglong * 64)()
    return chance.choice((0, 1, 4) if "Size" in parameter else ODD)
p._LoadNvmlLibrary()
for name, function in vars(p).items():
    if not name.startswith(("nvmlDevice", "nvmlGpuInstance", "nvmlComputeInstance", "nvmlGpm")) or not inspect.isfunction(function): continue
    if not any(word in name for word in ("Get", "Is", "Query")): continue
    more = list(inspect.signature(function).parameters)[1:]
    asked.clear()
    attempt(function, p.c_nvmlDevice_t(), *map(value, more))
    if asked and all(hasattr(lib, symbol) for symbol in asked): calls.append((function, more))
p._nvmlGetFunctionPointer_cache = {}
def handles():
    for i in range(-1, 6):
        h = attempt(p.nvmlDeviceGetHandleByIndex, i)
        if h is None: continue
        yield h
        for m in range(8): yield attempt(p.nvmlDeviceGetMigDeviceHandleByIndex, h, m)
        for g in range(16):
            gi = attempt(p.nvmlDeviceGetGpuInstanceById, h, g)
            if gi is not None: yield gi; yield attempt(p.nvmlGpuInstanceGetComputeInstanceById, gi, 0)
    for kind in range(6): yield ctypes.cast(kind << 28 | 1 << 16 | chance.getrandbits(16), p.c_nvmlDevice_t)
    for _ in range(3): yield ctypes.cast(chance.getrandbits(63), p.c_nvmlDevice_t)
def change(gpu):
    place = ctypes.byref(p.c_nvmlGpuInstancePlacement_t(chance.choice(ODD), chance.choice(ODD)))
    for gi in (attempt(p.nvmlDeviceCreateGpuInstanceWithPlacement, gpu, 19, place), attempt(p.nvmlDeviceCreateGpuInstance, gpu, 19)):
        if gi is None: continue
        for profile in ODD: attempt(p.nvmlGpuInstanceCreateComputeInstance, gi, profile)
        attempt(p.nvmlGpuInstanceDestroy, gi)
    events = attempt(p.nvmlEventSetCreate)
    attempt(p.nvmlDeviceRegisterEvents, gpu, chance.choice((8, 0xFFFF)), events)
    for _ in range(2): attempt(p.nvmlEventSetWait_v2, events, 0)
    attempt(p.nvmlEventSetFree, events)
    attempt(p.nvmlDeviceGetFieldValues, gpu, [3, 83, 142, 185, 230, 2**31])
    for mode in (1, 0): attempt(p.nvmlDeviceSetMigMode, gpu, mode)
path = os.environ["DS01_SIM_NVML"] + "/state.json"
for text in sys.stdin.read().split("\\x1e"):
    os.unlink(path)
    open(path, "w", newline="").write(text)
    if code(p.nvmlInit): continue
    found = [h for h in handles() if h is not None]
    for h in found:
        for function, more in chance.sample(calls, 20):
            attempt(function, h, *map(value, more))
    change(found[0])
    p.nvmlShutdown()
print("whole", len(calls))
"""


def mutants(seed: int) -> list[str]:
    """The default machine with a process, an event and a fault, and in each copy up to three values replaced or gone."""
    chance = random.Random(seed)
    machine = simulate.machine()
    machine["procs"] = [simulate.process(1, machine["gpus"][2]["uuid"], gi=1, ci=0)]
    machine["events"] = [{"id": 1, "gpu": machine["gpus"][0]["uuid"], "type": 8, "data": 79}]
    machine["faults"] = [{"symbol": "nvmlDeviceGetName", "ret": 15}]
    return [json.dumps(_mutant(copy.deepcopy(machine), chance)) for _ in range(MUTANTS)]


def _mutant(machine: Any, chance: random.Random) -> Any:
    for _ in range(chance.randint(1, 3)):
        places = list(_places(machine))
        container, key = chance.choice(places)
        if isinstance(container, dict) and chance.random() < 0.2:
            del container[key]
        elif key != "hang_ms":
            container[key] = chance.choice(ODD)
    return machine


def _places(node: Any) -> Any:
    for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield node, key
        yield from _places(node[key])


def test_broken_states_never_crash_even_under_sanitizers(tmp_path: Path) -> None:
    """Broken files, mutated machines, invented handles and every call on them give error codes, with no memory error."""
    probe = subprocess.run(
        ["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not probe.startswith("/"):
        pytest.skip("gcc has no address sanitizer here")
    sim = SimulatedMachine(tmp_path, library=driver_library("sanitized", sanitize=True))
    sanitizers = {
        "LD_PRELOAD": probe,
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
    done = sim.run(
        sys.executable,
        "-c",
        PREAMBLE + WALK,
        env=sanitizers,
        text="\x1e".join(MALFORMED + mutants(seed=4)),
        seconds=100,
    )
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["whole"]), done.stderr[-3000:]
    assert int(done.stdout.split()[1]) > 60
