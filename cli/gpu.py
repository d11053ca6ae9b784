"""`ds01 gpu`, `ds01 gpu queue` and `ds01 gpu why-full`: what there is, who waits, and when something is free."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from cli.gpu_reservations import kept
from cli.screen import columns, login, paint, plain

INVENTORY, QUEUE = "inventory", "queue"
_HEAD = ("DEVICE", "CLASS", "STATE", "HOLDER", "SINCE", "ENDS", "UTIL", "MEMORY")
_COLOURS = {
    "free": "good",
    "yours": "good",
    "leased": "warn",
    "in use": "warn",
    "reserved": "warn",
    "MIG": "dim",
}
_OBSTACLES = {"held": "leased", "foreign": "in use", "in_use": "in use", "reserved": "reserved"} | {
    "unattributed": "unattributed"
}


def table(answer: Mapping[str, Any], *, uid: int | None = None) -> str:
    """Every device, as nvidia-smi orders them, and what is not as it should be below."""
    devices = sorted(answer["devices"], key=_place)
    if not devices:
        return "\n".join(_unread(answer)) or "no GPUs"
    mine = os.geteuid() if uid is None else uid
    rows = [_row(device, mine) for device in devices]
    remarks = [
        f"{plain(device['index'])}: {plain(said)}" for device in devices for said in _remarks(device, mine)
    ]
    notes = [f"{plain(one['holder'])}: {plain(one['note'])}" for one in devices if one.get("note")]
    below = [*remarks, *dict.fromkeys(notes), *_foreign(devices), *_unread(answer)]
    return "\n".join([*columns([_HEAD, *rows]), *below])


def state(device: Mapping[str, Any], uid: int) -> str:
    """One word or two: free, yours, leased, in use, reserved, unattributed, unknown, MIG for what is split, or what is wrong with it."""
    if device["state"] == "unusable" and (device.get("mig_mode") or {}).get("current"):
        return "MIG"
    if device["state"] != "ok":
        return str(device["state"])
    if device["held"]:
        return "yours" if device.get("holder_uid") == uid else "leased"
    if device["in_use"] is None:
        return "unknown"
    if device["in_use"]:
        return "in use"
    obstacle = device["obstacle"]
    return "free" if obstacle is None else _OBSTACLES.get(obstacle["kind"], "unknown")


def _remarks(device: Mapping[str, Any], uid: int) -> list[str]:
    """What is known against it; and what keeps it from being given, where the state alone does not say enough."""
    said = [device["remark"]] if device.get("remark") else []
    if state(device, uid) in ("reserved", "unattributed"):
        said.append(device["obstacle"]["message"])
    return said


def _row(device: Mapping[str, Any], uid: int) -> list[str]:
    word = state(device, uid)
    measures = device.get("measures") or {}
    foreign = f"container {device['foreign']}" if device.get("foreign") else None
    holder = device["holder"] or foreign or ("in use" if device["held"] or device["in_use"] else None)
    return [
        plain(device["index"]),
        plain(device["profile"]),
        paint(word, _COLOURS.get(word, "bad")),
        plain(holder),
        plain(device.get("since")),
        plain(device.get("ends_at")),
        _percent(measures.get("utilisation_percent")),
        _memory(measures.get("memory_used_mib"), device["memory_mib"]),
    ]


def _foreign(devices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each container once that ds01 did not make, with whose it may be; only admins are told of any."""
    told = {one["container_id"]: one for device in devices for one in device.get("foreign_owners") or ()}
    return [_ownership(one) for one in sorted(told.values(), key=lambda one: str(one["container"]))]


def _ownership(one: Mapping[str, Any]) -> str:
    state = "" if one["runs"] else "stopped "
    said = f"{state}container {plain(one['container'])}: ds01 did not make it"
    if one["monitor"]:
        return f"{said}; it takes no GPU, by gpu.monitors of the policy"
    if one["owner_uid"] is None:
        return f"{said}; whose it is: {plain(one['why'] or 'not looked at yet')}"
    return f"{said}; probably {login(one['owner_uid'])}'s, by {plain(one['why'])}"


def _percent(value: float | None) -> str:
    return "N/A" if value is None else f"{value:.0f}%"


def _memory(used: int | None, whole: int | None) -> str:
    return f"{'N/A' if used is None else used} / {'N/A' if whole is None else whole} MiB"


def _place(device: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(int(part) for part in str(device["index"]).split(":"))


def unidentified(answer: Mapping[str, Any]) -> list[str]:
    """GPUs that are in no list, since they did not say which they are."""
    found = sorted(answer.get("unidentified", {}).items(), key=lambda one: int(one[0]))
    return [f"GPU {plain(index)} could not be read: {plain(why)}" for index, why in found]


def _unread(answer: Mapping[str, Any]) -> list[str]:
    """GPUs that are not in the list, and how old it is where that matters."""
    age = answer["age_seconds"]
    when = "never read" if age is None else f"as of {age:.0f} s ago"
    lines = unidentified(answer)
    if answer["state"] != "ok":
        lines.append(f"{when}: the GPUs cannot be read now, and none is given: {plain(answer['problem'])}")
    elif not answer["fresh"]:
        lines.append(
            f"{when}: the GPUs have not answered since; they are looked at again before one is given"
        )
    return lines


def queue(answer: Mapping[str, Any]) -> str:
    """Who waits, next first, and what is kept for somebody."""
    lines: list[str] = []
    if answer["waiting"]:
        head = ["POSITION", "USER", "WANTS", "WAITED", "LONGEST", "WHY"]
        rows = [
            [
                str(one["position"]),
                plain(one["owner_name"] or "somebody"),
                _wants(one["wants"]),
                _time(one["waited_seconds"]),
                _time(one["wait_seconds"]),
                plain(one["refusal"]),
            ]
            for one in answer["waiting"]
        ]
        lines += columns([head, *rows])
    else:
        lines.append("nobody waits for a GPU")
    return "\n".join([*lines, *kept(answer["reservations"])])


def _wants(wants: Mapping[str, Any]) -> str:
    if ids := wants.get("device_ids"):
        return plain(", ".join(ids))
    said = [f"{wants.get('count', 1)} x {plain(wants.get('profile') or 'GPU')}"]
    if memory := wants.get("memory_mib"):
        said.append(f"of {memory} MiB")
    return " ".join(said)


def _time(seconds: int) -> str:
    minutes, seconds = divmod(max(0, int(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m{seconds:02}s" if minutes else f"{seconds}s"


def why_full(inventory: Mapping[str, Any], line: Mapping[str, Any], *, now: datetime | None = None) -> str:
    """Why no device is free now, when the first will be as far as is known, and what can be done."""
    devices = inventory["devices"]
    free = [device for device in devices if state(device, -1) == "free"]
    if free:
        said = ", ".join(f"{plain(device['index'])} ({plain(device['profile'])})" for device in free)
        return "\n".join([f"it is not full: {said} free; docker run --gpus 1 ...", *_unread(inventory)])
    if not devices:
        return table(inventory)
    counted = Counter(_class(device) for device in devices)
    lines = [f"{number} {what}" for what, number in sorted(counted.items())]
    lines += [*_unread(inventory), *_ends(devices, datetime.now(UTC) if now is None else now)]
    if waiting := len(line["waiting"]):
        lines.append(f"{waiting} wait already; see ds01 gpu queue")
    lines += [
        f"{one['count']} kept for {plain(one['name'])}" for one in line["reservations"] if one["running"]
    ]
    lines.append(
        "wait in line with: docker run --gpus 1 --label ds01.wait=TIME ... (ds01 whoami says how long you may)"
    )
    return "\n".join(lines)


def _ends(devices: Sequence[Mapping[str, Any]], now: datetime) -> list[str]:
    """The first end to come, and how many devices should be back already."""
    ends = sorted(datetime.fromisoformat(device["ends_at"]) for device in devices if device.get("ends_at"))
    ahead = [end for end in ends if end > now]
    first = (
        f"the first lease ends at {ahead[0]:%Y-%m-%dT%H:%M:%SZ}"
        if ahead
        else "no lease has an end that is known"
    )
    overdue = len(ends) - len(ahead)
    return [
        first,
        *([f"{overdue} overdue: the lease should have ended, and its container goes on"] if overdue else []),
    ]


def _class(device: Mapping[str, Any]) -> str:
    word = state(device, -1)
    whom = f" by {plain(device['holder'])}" if device["holder"] else ""
    return f"{plain(device['profile'])} {word}{whom}"
