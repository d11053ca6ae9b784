"""`ds01-lab gpu ...`: what happens to the simulated GPUs of a running lab, played by a person.

Exit codes: 0 done · 1 this lab or this machine will not do · 2 usage.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cdi, claims, simulate
from lab.scenarios import NOBODY, SCENARIOS, NotPlayable, Part
from lab.tree import LabTree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lab.simulate import State

_UNKNOWN = "unknown"


class NoSuchDevice(NotPlayable):
    """The text names a device that the machine has not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A row of the list. gi, ci: None for a whole GPU."""

    index: str
    uuid: str
    gpu: State
    gi: int | None = None
    ci: int | None = None


def main(arguments: Sequence[str]) -> int:
    """Run one verb on the lab below `--root`. Returns: the exit code."""
    asked = _parser().parse_args(arguments)
    tree = LabTree.at(asked.root)
    os.umask(0o022)  # the allocator reads what root writes
    try:
        machine = simulate.read_state(tree.nvml)
    except FileNotFoundError:
        return _failed(f"no lab with simulated GPUs below {tree.root}; start one: script/server --gpus SPEC")
    try:
        _play(asked, tree.nvml, machine)
        _tell_engine(tree, before=machine)
    except NotPlayable as refused:
        return _failed(str(refused))
    except PermissionError as refused:
        return _failed(f"may not change {refused.filename}; try: sudo")
    return 0


def devices(machine: State) -> Iterator[Device]:
    """Every GPU, each followed by its MIG devices, with NVML's indices."""
    for index, gpu in enumerate(machine["gpus"]):
        yield Device(index=str(index), uuid=gpu["uuid"], gpu=gpu)
        for gi in gpu["gis"]:
            for ci in gi["cis"]:
                uuid = simulate.mig_uuid(gpu["uuid"], gi["id"], ci["id"])
                yield Device(index=f"{index}:{ci['index']}", uuid=uuid, gpu=gpu, gi=gi["id"], ci=ci["id"])


def table(machine: State, held: Sequence[claims.Claim]) -> Iterator[str]:
    """The machine in lines: devices with their processes, then what is out of order."""
    for device in devices(machine):
        where = (device.gpu["uuid"], device.gi, device.ci)
        rows = [(row["pid"], row["mib"]) for row in machine["procs"] if _place(row) == where]
        rows += [(one.pid, one.mib) for one in held if one.uuid == device.uuid]
        running = ", ".join(f"{pid} ({_mib(mib)})" for pid, mib in rows)
        yield f"{device.index:<5} {device.uuid:<42} {running or '-'}"
    yield from (f"XID {event['data']} on {event['gpu']}" for event in machine["events"])
    yield from (f"fault {fault}" for fault in machine["faults"])


def _place(row: State) -> tuple[str, int | None, int | None]:
    return row["gpu"], row["gi"], row["ci"]


def _play(asked: argparse.Namespace, state_dir: Path, machine: State) -> None:
    match asked.verb:
        case "list":
            print(*table(machine, list(claims.held(state_dir))), sep="\n")
        case "add-process":
            on = _device(machine, asked.device)
            simulate.add_process(
                state_dir, asked.pid, on.gpu["uuid"], memory_mib=asked.mib, gi=on.gi, ci=on.ci
            )
        case "remove-process":
            simulate.remove_process(state_dir, asked.pid)
        case "xid":
            on = _device(machine, asked.device)
            tell = simulate.log_xid if asked.log_only else simulate.raise_xid
            tell(state_dir, on.gpu["uuid"], asked.code, gi=on.gi, ci=on.ci)
        case "load":
            uuid = _device(machine, asked.device).gpu["uuid"]
            simulate.set_load(
                state_dir,
                uuid,
                gpu_percent=asked.percent,
                memory_percent=0,
                power_mw=round(asked.watts * 1000),
                now_ns=time.time_ns(),
            )
        case "lose":
            simulate.lose_gpu(state_dir, _device(machine, asked.device).gpu["uuid"])
        case "hang":
            milliseconds = round(asked.seconds * 1000)
            simulate.hang(
                state_dir, asked.symbol, milliseconds=milliseconds, sigterm_proof=asked.sigterm_proof
            )
        case "heal":
            simulate.heal(state_dir)
        case _:
            _scenario(asked, state_dir)


def _scenario(asked: argparse.Namespace, state_dir: Path) -> None:
    """Play one step, or all; without a name, say which there are."""
    if asked.name is None:
        print(*(f"{name:<42} {scenario.summary}" for name, scenario in SCENARIOS.items()), sep="\n")
        return
    scenario = SCENARIOS[asked.name]
    last = max(1, len(scenario.steps))
    if asked.step is not None and not 1 <= asked.step <= last:
        raise NotPlayable(f"{asked.name} ends with step {last}; there is no step {asked.step}")
    part = Part(pid=asked.pid)
    with simulate.changed(state_dir) as state:
        for step in range(last) if asked.step is None else (asked.step - 1,):
            scenario.play(state, step, part)
    print(scenario.summary)


def _tell_engine(tree: LabTree, *, before: State) -> None:
    """Where the devices changed that may be handed over, dockerd reads so in the CDI spec."""
    now = simulate.read_state(tree.nvml)
    hook = tree.hook / simulate.HOOK_NAME
    if tree.cdi.is_dir() and cdi.spec(now, hook=hook) != cdi.spec(before, hook=hook):
        cdi.write_spec(tree.cdi, now, hook=hook)


def _device(machine: State, text: str) -> Device:
    found = next((one for one in devices(machine) if text in (one.index, one.uuid)), None)
    if found is None:
        raise NoSuchDevice(f"there is no device {text}; see: ds01-lab gpu list")
    return found


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--root", type=Path, default=Path(".lab"), help="the directory of the lab")
    parser = argparse.ArgumentParser(prog="ds01-lab gpu", description="Play with a lab's simulated GPUs.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    device = "an index of the list (2, 2:0) or a UUID"

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=text, description=text, parents=[shared])

    verb("list", "devices, processes and faults")
    add = verb("add-process", "let a process run on a device")
    add.add_argument("device", help=device)
    add.add_argument("pid", type=int)
    add.add_argument("--mib", type=_amount, default=1024, help="memory in MiB, or: unknown")
    verb("remove-process", "end it on every device").add_argument("pid", type=int)
    xid = verb("xid", "raise an XID of a GPU or a MIG device, in NVML and in the kernel log")
    xid.add_argument("device", help=device)
    xid.add_argument("code", type=int)
    xid.add_argument("--log-only", action="store_true", help="NVML does not tell it")
    load = verb("load", "let a GPU be busy")
    load.add_argument("device", help="an index of the list or a UUID; of a MIG device, its GPU")
    load.add_argument("percent", type=_amount, help="utilisation, or: unknown")
    load.add_argument("--watts", type=float, default=60)
    verb("lose", "let a GPU be lost").add_argument("device", help=device)
    hang = verb("hang", "let calls hang")
    hang.add_argument("symbol", help="a function of NVML, or the beginning of its name and *")
    hang.add_argument("--seconds", type=float, default=60)
    hang.add_argument("--sigterm-proof", action="store_true", help="SIGTERM does not end who hangs")
    verb("heal", "take every fault back: lost GPUs, hangs, driver errors")
    scenario = verb("scenario", "play a scenario; without a name, list them")
    scenario.add_argument("name", nargs="?", choices=list(SCENARIOS), metavar="NAME")
    scenario.add_argument("--step", type=int, help="only this step, from 1 on; else all")
    scenario.add_argument("--pid", type=int, default=NOBODY, help="the process that plays a part")
    return parser


def _amount(text: str) -> int | None:
    return None if text == _UNKNOWN else int(text)


def _mib(amount: int | None) -> str:
    return _UNKNOWN if amount is None else f"{amount} MiB"


def _failed(problem: str) -> int:
    print(f"ds01-lab: {problem}", file=sys.stderr)
    return 1
