"""`ds01 gpu mig plan|apply`: from the policy's layouts to the allocator, and its plans in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.outcome import Exit, Failed
from cli.screen import columns, paint, plain
from cli.server import Patience
from policy.document_mig import MigLayout

MIG = "/v1/mig"
# A step takes a second or two, one that hangs `nvml_deadline_seconds`, and the CDI command two minutes at most.
APPLYING = Patience(seconds=900, then="the change goes on without you; see what is left: ds01 gpu mig plan")


def layouts(wanted: Sequence[MigLayout], partitions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the allocator is asked: a layout for each GPU by UUID, null for a whole one.

    Raises: Failed: REFUSED: policy names no GPU, or one that cannot do MIG or is not there.
    """
    if not wanted:
        raise Failed(
            Exit.REFUSED,
            "the policy says nothing of MIG; write gpu: {mig: [...]} (see packaging/policy.yaml)",
        )
    known = {name: one["gpu"] for one in partitions for name in (one["index"], one["gpu"])}
    found: dict[str, Any] = {}
    for layout in wanted:
        for name in layout.gpus:
            gpu = known.get(name) or _by_prefix(name, partitions)
            if gpu is None:
                there = ", ".join(plain(one["index"]) for one in partitions) or "none"
                raise Failed(Exit.REFUSED, f"gpu.mig names GPU {name}, but GPUs that can do MIG are {there}")
            if gpu in found:
                raise Failed(Exit.REFUSED, f"gpu.mig names GPU {name} twice, by index and by UUID")
            found[gpu] = None if layout.profiles is None else dict(layout.profiles)
    return {"layouts": found}


def _by_prefix(name: str, partitions: Sequence[Mapping[str, Any]]) -> str | None:
    near = [one["gpu"] for one in partitions if name.startswith("GPU-") and one["gpu"].startswith(name)]
    return str(near[0]) if len(near) == 1 else None


def planned(answer: Mapping[str, Any]) -> str:
    """The steps for each GPU, and what stands in the way."""
    lines: list[str] = []
    for plan in answer["plans"]:
        lines += [f"GPU {plain(plan['index'])}: {_summary(plan)}"]
        lines += columns(
            [[str(n), _step(step)] for n, step in enumerate(plan["steps"], start=1)], indent="  "
        )
        lines += [paint(f"  kept: {plain(text)}", "warn") for text in plan["kept"]]
        lines += [f"  not yet: {count} x {plain(name)}" for name, count in sorted(plan["missing"].items())]
    return "\n".join(lines)


def applied(answer: Mapping[str, Any]) -> str:
    """What was done on each GPU."""
    lines: list[str] = []
    for outcome in answer["outcomes"]:
        plan = outcome["plan"]
        lines.append(f"GPU {plain(plan['index'])}: {outcome['done']} of {len(plan['steps'])} steps done")
        if outcome["problem"]:
            lines.append(paint(f"  stopped: {plain(outcome['problem'])}", "bad"))
        if outcome["waits_for_reset"]:
            lines.append(
                "  the mode changes with a reboot, or with nvidia-smi --gpu-reset while nothing has the GPU open, ds01-allocator too"
                " (systemctl stop ds01-allocator, reset, start it); then apply again"
            )
        lines += [paint(f"  kept: {plain(text)}", "warn") for text in plan["kept"]]
    if answer["cdi_problem"]:
        lines.append(paint(f"the CDI spec could not be written: {plain(answer['cdi_problem'])}", "bad"))
        lines.append(
            "  what was made is leased to nobody before it is; mend allocator.cdi_command of daemon.yaml, or what it says ([] where GPUs"
            " come by NVIDIA's hook), then apply again"
        )
    return "\n".join(lines)


def code(answer: Mapping[str, Any]) -> Exit:
    """REFUSED when something was stopped or is still missing, or the CDI spec was not written."""
    left = (one["problem"] or one["plan"]["kept"] or one["plan"]["missing"] for one in answer["outcomes"])
    return Exit.REFUSED if answer["cdi_problem"] or any(left) else Exit.OK


def _summary(plan: Mapping[str, Any]) -> str:
    if plan["steps"]:
        return f"{len(plan['steps'])} steps"
    return "nothing can be done now" if plan["kept"] or plan["missing"] else "as it should be"


def _step(step: Mapping[str, Any]) -> str:
    match step["do"]:
        case "destroy":
            return f"destroy {plain(step['profile'])} at {step['start']}"
        case "create":
            return f"create {plain(step['profile'])} at {step['start']}"
    return f"MIG mode {'on' if step['enabled'] else 'off'} (needs a reset of the GPU)"
