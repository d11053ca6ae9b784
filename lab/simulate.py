"""A simulated GPU machine: the library that answers as NVML, and the state it answers from.

Owns building `lab/nvml`, describing machines and changing their state; leaves starting daemons to
the rest of the lab. The state directory holds `state.json` (replaced by rename, changed under
`lock`), `kmsg`, a FIFO that stands for the kernel log, and `claims/<uuid>/<n>`: a process that holds
a POSIX write lock on one counts as running on that device, with the memory and type written in it
("2048 C": MiB and type).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from allocator.mig import MigProfile
from allocator.mig_plan import arrange
from lab import claims
from lab.gpu_models import MODELS, SHAPES, Profile
from lab.pid_namespaces import pids_by_namespace

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

State = dict[str, Any]  # the document `lab/nvml` reads

SOURCE_DIR: Final = Path(__file__).parent / "nvml"
LIBRARY_NAME: Final = "libnvidia-ml.so.1"
KERNEL_LOG: Final = "kmsg"
HOOK_NAME: Final = "nvidia-container-runtime-hook"
DEFAULT_SPEC: Final = "2xa100-40,a100-40:3g.20gb+3g.20gb,a100-40:7x1g.5gb"
FLAGS: Final = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-O2", "-fPIC", "-shared", "-fvisibility=hidden")
SANITIZERS: Final = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
XID_EVENT: Final = 8
_GPUS_PER_NODE, _LINKS_TO_EACH = 4, 4
GPU_IS_LOST: Final = 15
_COMPUTE_SLICES: Final = 7  # of every model with MIG
_SHAPES: Final = {
    shape.id: MigProfile(
        name="", number=shape.id, compute_slices=shape.compute, size=shape.size, starts=shape.starts, most=7
    )
    for shape in SHAPES
}


class SpecInvalid(ValueError):  # noqa: N818  told as a statement about the spec, like PolicyInvalid
    """The machine description cannot be read, or its MIG devices do not fit on the GPU."""


def build(out_dir: Path, *, sanitize: bool = False, without: Collection[str] = ()) -> Path:
    """Compile the library into `out_dir`, unless the one there is newer than every source and this module.

    `without`: symbols that it does not export, as a driver older than they are; always the same for one directory.
    Returns: The path of `libnvidia-ml.so.1`. Raises: subprocess.CalledProcessError: gcc refused.
    """
    library = out_dir / LIBRARY_NAME
    sources = sorted(SOURCE_DIR.glob("*.[ch]"))
    newest_ns = max(source.stat().st_mtime_ns for source in (*sources, Path(__file__)))
    if library.exists() and library.stat().st_mtime_ns > newest_ns:
        return library
    out_dir.mkdir(parents=True, exist_ok=True)
    fresh = library.with_name(f".{LIBRARY_NAME}.{os.getpid()}")
    compiled = [str(source) for source in sources if source.suffix == ".c"]
    extra = list(SANITIZERS if sanitize else ())
    if without:
        exports = out_dir / "exports"
        exports.write_text(f"{{ local: {'; '.join(without)}; }};\n")
        extra.append(f"-Wl,--version-script={exports}")
    subprocess.run(
        ["gcc", *FLAGS, *extra, f"-Wl,-soname,{LIBRARY_NAME}", "-o", fresh, *compiled, "-lpthread"],
        check=True,
    )
    fresh.replace(library)
    return library


def machine(spec: str = DEFAULT_SPEC, *, now_ns: int = 0) -> State:
    """Describe a machine: `[<n>x]<model>[:<mig>]` joined by commas; `none` has no GPU.

    `<mig>` is profiles joined by `+`, each with an optional count (`3g.20gb+4x1g.5gb`), or `empty`:
    MIG mode on without instances. The same spec always gives the same UUIDs. `now_ns`: the wall clock, from which
    power adds up to energy; with 0 the energy stands still.
    Raises: SpecInvalid: unknown model or profile, or the profiles do not fit.
    """
    entries = [] if spec == "none" else [one for part in spec.split(",") for one in _repeated(part.strip())]
    gpus = [_gpu(entry, index, now_ns) for index, entry in enumerate(entries)]
    for gpu in gpus:
        gpu["links"] = _links(gpu, gpus)
    driver: State = {"v": 1, "seq": 1, "driver": "550.54.15", "cuda": 12040}
    return driver | {"gpus": gpus, "procs": [], "events": [], "faults": []}


def gpu_uuid(index: int) -> str:
    """The UUID of the GPU that stands at `index` in every machine."""
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_URL, f'ds01-simulated-gpu/{index}')}"


def mig_uuid(gpu: str, gi: int, ci: int) -> str:
    """The UUID of a MIG device: its place decides, so that re-creation gives the same again."""
    return f"MIG-{uuid.uuid5(uuid.UUID(int=0), f'{gpu}/{gi}/{ci}')}"


def device_uuids(gpu: State) -> tuple[str, ...]:
    """What of one GPU of a machine can be handed over: its MIG devices in MIG mode, else itself."""
    if not gpu["mig"]["current"]:
        return (gpu["uuid"],)
    return tuple(mig_uuid(gpu["uuid"], gi["id"], ci["id"]) for gi in gpu["gis"] for ci in gi["cis"])


def write_state(state_dir: Path, state: State) -> None:
    """Put `state` in place by rename and make sure that `lock`, `kmsg` and `claims/` exist."""
    for folder in (state_dir, state_dir / "claims"):
        folder.mkdir(parents=True, exist_ok=True)
    (state_dir / "lock").touch()
    with contextlib.suppress(FileExistsError):
        os.mkfifo(state_dir / KERNEL_LOG, mode=0o600)
    fresh = state_dir / f".state.{os.getpid()}"
    fresh.write_text(json.dumps(state, indent=1))
    fresh.replace(state_dir / "state.json")


def read_state(state_dir: Path) -> State:
    """The state as it is now; raises FileNotFoundError before the first `write_state`."""
    state: State = json.loads((state_dir / "state.json").read_text())
    return state


@contextmanager
def changed(state_dir: Path) -> Iterator[State]:
    """Yield the state for editing and write it back, under the lock that the library takes too.

    Events that were added are lines of the kernel log as well, as the driver writes them.
    """
    with (state_dir / "lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read_state(state_dir)
        before = {event["id"] for event in state["events"]}
        yield state
        state["seq"] += 1
        write_state(state_dir, state)
        for event in state["events"]:
            if event["id"] not in before:
                _write_record(state_dir, state, event)


def add_process(
    state_dir: Path,
    pid: int,
    device: str,
    *,
    memory_mib: int | None = 1024,
    gi: int | None = None,
    ci: int | None = None,
) -> None:
    """Let `pid` run on GPU UUID `device`, in a MIG instance if `gi` and `ci` are given; None MiB = unknown.

    Who asks NVML sees a process that exists by its pid in the own PID namespace, or not at all. A pid that nobody has
    is shown to everybody outside containers.
    """
    with changed(state_dir) as state:
        state["procs"].append(process(pid, device, memory_mib=memory_mib, gi=gi, ci=ci))


def process(
    pid: int, device: str, *, memory_mib: int | None = 1024, gi: int | None = None, ci: int | None = None
) -> State:
    """The row that `add_process` adds."""
    row = {"pid": pid, "gpu": device, "gi": gi, "ci": ci, "mib": memory_mib, "type": "C", "sm": 50}
    pids = pids_by_namespace(pid)
    return row | {"pids": {str(inode): inside for inode, inside in pids.items()}} if pids else row


def remove_process(state_dir: Path, pid: int) -> None:
    """End `pid` on every GPU. Where accounting is on, what it had used stays on record."""
    with changed(state_dir) as state:
        ended = [row for row in state["procs"] if row["pid"] == pid]
        state["procs"] = [row for row in state["procs"] if row["pid"] != pid]
        tables = {gpu["uuid"]: gpu["accounting"] for gpu in state["gpus"] if "accounting" in gpu}
        for row in ended:
            if (table := tables.get(row["gpu"], {})).get("mode"):
                record = {"pid": pid, "gpu": row["sm"], "mem": 0, "max_mib": row["mib"], "time_ms": 0}
                table["records"].append(record)


def set_load(
    state_dir: Path, device: str, *, gpu_percent: int | None, memory_percent: int, power_mw: int, now_ns: int
) -> None:
    """Change what a GPU measures from `now_ns` (wall clock) on; what it drew until then stays in its energy counter.

    `gpu_percent` None: the utilisation is not known.
    """
    with changed(state_dir) as state:
        gpu = next(gpu for gpu in state["gpus"] if gpu["uuid"] == device)
        drawn, since_ns = gpu["energy"]["mj"], gpu["energy"]["at_ns"]
        if since_ns:
            drawn += gpu["power_mw"] * max(0, now_ns - since_ns) // 10**9
        gpu |= {
            "util": {"gpu": gpu_percent, "mem": memory_percent},
            "power_mw": power_mw,
            "energy": {"mj": drawn, "at_ns": now_ns},
        }


def raise_xid(
    state_dir: Path, device: str, code: int, *, gi: int | None = None, ci: int | None = None
) -> None:
    """Deliver XID `code` of a GPU to every event set that waits for it, and write it to the kernel log."""
    with changed(state_dir) as state:
        last = max((event["id"] for event in state["events"]), default=0)
        event = {"id": last + 1, "gpu": device, "type": XID_EVENT, "data": code, "gi": gi, "ci": ci}
        state["events"].append(event)


def log_xid(state_dir: Path, device: str, code: int, *, gi: int | None = None, ci: int | None = None) -> None:
    """Write XID `code` of a GPU to the kernel log alone, as where NVML never tells it."""
    _write_record(state_dir, read_state(state_dir), {"gpu": device, "data": code, "gi": gi, "ci": ci})


def _write_record(state_dir: Path, state: State, event: State) -> None:
    """One line, for who reads the log now; like the kernel's, it waits for nobody."""
    pci = next((gpu["pci"] for gpu in state["gpus"] if gpu["uuid"] == event["gpu"]), None)
    if pci is None:
        return
    domain, bus, device = pci.lower().partition(".")[0].split(":")
    instances = (("GPU-I", event.get("gi")), ("GPU-CI", event.get("ci")))
    named = "".join(f" {name}:{number:02}" for name, number in instances if number is not None)
    at = f"PCI:{int(domain, 16):04x}:{bus}:{device}{named}"
    line = f"3,{state['seq']},{time.monotonic_ns() // 1000},-;NVRM: Xid ({at}): {event['data']}, simulated\n"
    with contextlib.suppress(OSError):  # nobody reads it, or not fast enough
        fifo = os.open(state_dir / KERNEL_LOG, os.O_WRONLY | os.O_NONBLOCK)
        try:
            os.write(fifo, line.encode("ascii"))
        finally:
            os.close(fifo)


def lose_gpu(state_dir: Path, device: str) -> None:
    """Make every call on the GPU and its MIG devices answer GPU_IS_LOST."""
    _add_fault(state_dir, {"gpu": device, "symbol": "*", "ret": GPU_IS_LOST})


def hang(
    state_dir: Path,
    symbol: str,
    *,
    milliseconds: int,
    after_calls: int = 0,
    times: int | None = None,
    sigterm_proof: bool = False,
) -> None:
    """Make calls of `symbol` sleep first; `times` None = every one after the first `after_calls`.

    `symbol` may end with `*`. `sigterm_proof`: SIGTERM does not end the process meanwhile.
    """
    fault: State = {"symbol": symbol, "hang_ms": milliseconds, "after_calls": after_calls}
    if sigterm_proof:
        fault["sigterm_proof"] = True
    _add_fault(state_dir, fault if times is None else fault | {"times": times})


def heal(state_dir: Path) -> None:
    """Take every fault back."""
    with changed(state_dir) as state:
        state["faults"] = []


def _add_fault(state_dir: Path, fault: State) -> None:
    with changed(state_dir) as state:
        state["faults"].append(fault)


def _repeated(part: str) -> list[str]:
    count, text = _counted(part)
    return [text] * count


def _counted(text: str) -> tuple[int, str]:
    match = re.fullmatch(r"(?:([1-9][0-9]?)x)?([a-z0-9.+:-][a-z0-9.+:x-]*)", text.lower())
    if match is None:
        raise SpecInvalid(f"{text!r} is not [<n>x]<model>[:<mig>]; try {DEFAULT_SPEC}")
    return int(match[1] or 1), match[2]


def _links(gpu: State, gpus: list[State]) -> list[str]:
    """Four NVLinks to each other GPU of the node, as on a board of four; the PCI address of each far end."""
    others = [other for other in gpus if other["numa"] == gpu["numa"] and other is not gpu]
    return [other["pci"] for other in others for _ in range(_LINKS_TO_EACH)]


def _gpu(entry: str, index: int, now_ns: int) -> State:
    model, _, mig = entry.partition(":")
    if model not in MODELS:
        raise SpecInvalid(f"unknown GPU model {model!r}; known are {', '.join(MODELS)}")
    name, memory_mib, _ = MODELS[model]
    return {
        "uuid": gpu_uuid(index),
        "name": name,
        "profile_set": model,
        "pci": f"00000000:{7 + 8 * index:02X}:00.0",
        "minor": index,
        "serial": f"16530000{index:05}",
        "mem_mib": memory_mib,
        "mig": {"current": int(bool(mig)), "pending": int(bool(mig))},
        "gis": _gpu_instances(model, mig),
        "util": {"gpu": 0, "mem": 0},
        "power_mw": 60000,
        "energy": {"mj": 0, "at_ns": now_ns},
        "temp": 35,
        "ecc": {"dbe_vol": 0},
        "remap": [0, 0, 0, 0],
        "recovery": 0,
        "reasons": 1,
        "numa": index // _GPUS_PER_NODE,
        "accounting": {"mode": 0, "records": []},
    }


def _gpu_instances(model: str, mig: str) -> list[State]:
    """Each profile at its first start that leaves room for those behind it; one whole compute instance each."""
    wanted = _profiles(model, mig)
    places = arrange([_SHAPES[profile.id] for profile in wanted], compute_slices=_COMPUTE_SLICES)
    if places is None:
        raise SpecInvalid(f"{mig} does not fit on one {model}")
    return [
        {
            "id": 8 // profile.size - 1 + start // profile.size,
            "profile": profile.id,
            "start": start,
            "size": profile.size,
            "cis": [{"id": 0, "profile": profile.ci_profile, "start": 0, "index": index}],
        }
        for index, (profile, (_, start)) in enumerate(zip(wanted, places, strict=True))
    ]


def _profiles(model: str, mig: str) -> list[Profile]:
    shapes = dict(zip(MODELS[model][2], SHAPES, strict=True))
    wanted: list[Profile] = []
    for text in re.split(r"\+(?!me)", mig) if mig not in ("", "empty") else ():
        count, name = _counted(text)
        if name not in shapes:
            raise SpecInvalid(f"unknown MIG profile {name!r}; {model} has {', '.join(shapes)}")
        wanted += [shapes[name]] * count
    return wanted


def install_hook(hook_dir: Path, *, state_dir: Path, library: Path) -> Path:
    """Put the stand-in hook, its settings and the job into `hook_dir`, which must come first on dockerd's PATH.

    dockerd looks the hook up by name at its start: a daemon that runs already does not learn of it.
    """
    hook_dir.mkdir(parents=True, exist_ok=True)
    hook = hook_dir / HOOK_NAME
    shutil.copy2(Path(__file__).parent / "hook" / HOOK_NAME, hook)
    hook.chmod(0o755)
    job = claims.build_job(hook_dir)
    settings = {
        "state_dir": str(state_dir.resolve()),
        "library": str(library.resolve()),
        "job": str(job.resolve()),
    }
    (hook_dir / "hook.json").write_text(json.dumps(settings))
    return hook
