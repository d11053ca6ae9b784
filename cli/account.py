"""`ds01 whoami` and `ds01 status`: what ds01 knows of you, and how it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.gpu import unidentified
from cli.outcome import Exit
from cli.screen import columns, paint, plain, size

_STATE_COLOUR = {
    "ready": "good",
    "guarding": "good",
    "ok": "good",
    "not required": "warn",
    "free": "good",
    "yours": "good",
    "busy": "warn",
    "reserved": "warn",
    "unusable": "bad",
}


def whoami(answer: Mapping[str, Any]) -> str:
    """Name, role, groups, then usage and limits."""
    limits, usage = answer["limits"], answer["usage"]
    groups = ", ".join(map(plain, answer["policy_groups"])) or "none"
    rows = [
        ["user", f"{plain(answer['name'])} (uid {answer['uid']}), role {plain(answer['role'])}"],
        ["policy groups", groups],
        ["socket", plain(answer.get("socket"))],
        [
            "GPUs",
            f"{_known(usage['gpus'])} of {limits['gpus']} held; --gpus all means {limits['gpus_default']}",
        ],
        ["containers", f"{_known(usage['containers'])} of {limits['containers']}"],
        ["uploads at once", size(limits["uploads_bytes"])],
        ["waits for a GPU", _waits(limits)],
    ]
    if answer.get("container"):
        rows.insert(1, ["asked from", f"container {plain(answer['container'])[:12]}"])
    return "\n".join([*columns(rows), "each container may have:", *columns(_each(limits), indent="  ")])


def status(answer: Mapping[str, Any]) -> str:
    """One line for each part, then the devices."""
    engine, allocator, lifecycle = answer["engine"], answer["allocator"], answer["lifecycle"]
    about = f"docker {plain(engine['version'])}, API {plain(engine['api_version'])}"
    lines = columns(
        [
            ["engine", _painted(engine["state"]), about],
            ["AuthZ plugin", _painted(answer["authz_plugin"])],
            ["allocator", _painted(allocator["state"]), plain(allocator.get("problem") or "")],
            ["lifecycle", _painted(lifecycle["state"]), plain(lifecycle.get("problem") or "")],
            ["policy", plain(answer["policy"]["digest"])[:12]],
        ]
    )
    if objects := answer.get("objects"):
        lines.append("objects: " + ", ".join(f"{count} {plain(kind)}s" for kind, count in objects.items()))
    return "\n".join([*lines, *_devices(answer.get("gpus")), *unidentified(allocator)])


def status_code(answer: Mapping[str, Any]) -> Exit:
    """UNAVAILABLE when a part does not serve, so that a script can ask."""
    serves = (
        answer["engine"]["state"] == "ready"
        and answer["authz_plugin"] != "missing"
        and answer["allocator"]["state"] == "ok"
        and answer["lifecycle"]["state"] == "ok"
    )
    return Exit.OK if serves else Exit.UNAVAILABLE


def _each(limits: Mapping[str, Any]) -> list[list[str]]:
    return [
        ["memory", size(limits["memory_bytes"])],
        ["shared memory", size(limits["shm_bytes"])],
        ["locked memory", size(limits["memlock_bytes"])],
        ["CPUs", f"{limits['cpu_millis'] / 1000:g}"],
        ["processes", str(limits["pids"])],
        ["open files", str(limits["nofile"])],
        ["log files", size(limits["log_bytes"])],
        ["restarts", str(limits["restarts"])],
    ]


def _devices(devices: Sequence[Mapping[str, Any]] | None) -> list[str]:
    if devices is None:
        return ["GPUs: unknown, the allocator does not say"]
    free = sum(device["state"] == "free" for device in devices)
    rows = [
        [
            plain(device["index"]),
            plain(device["profile"]),
            size(device["memory_mib"] * 1024**2) if device["memory_mib"] is not None else "-",
            _painted(device["state"]) + (f" ({plain(device['holder'])})" if device.get("holder") else ""),
        ]
        for device in devices
    ]
    return [f"GPUs and MIG devices: {free} of {len(devices)} free", *columns(rows, indent="  ")]


def _painted(state: str) -> str:
    return paint(plain(state), _STATE_COLOUR.get(state, "bad"))


def _waits(limits: Mapping[str, Any]) -> str:
    """How long unasked, and how long with the label."""
    unasked = limits["wait_seconds"]
    return f"{unasked}s, with --label ds01.wait=TIME up to {max(unasked, limits['wait_most_seconds'])}s"


def _known(count: int | None) -> str:
    return "unknown" if count is None else str(count)
