"""`ds01 gpu top`: every GPU process with whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cli.screen import columns, login, paint, plain

PROCESSES = "/v1/processes"
_HEAD = ("DEVICE", "PID", "USER", "WHERE", "MEMORY", "PROGRAM", "")


def top(answer: Mapping[str, Any], devices: Mapping[str, str]) -> str:
    """Args: devices: what nvidia-smi calls each UUID."""
    if answer["at"] is None:
        return "nothing is known of GPU processes yet; try again in a moment"
    rows = [_process(one, devices) for one in answer["processes"]]
    rows += [
        ["open", str(one["pid"]), _user(one), _where(one), "-", plain(one["name"]), _files(one)]
        for one in answer["elsewhere"]
    ]
    lines = columns([_HEAD, *sorted(rows)]) if rows else ["no GPU process"]
    lines += [
        paint(
            f"{devices.get(one['device'], plain(one['device']))}: {one['used_mib']} MiB used by no process that can be seen,"
            f" since {plain(one['since'])}",
            "bad",
        )
        for one in answer["unattributed_memory"]
    ]
    if answer["unread"]:
        lines.append(f"{answer['unread']} processes did not let their open files be read")
    return "\n".join(lines)


def named(inventory: Mapping[str, Any]) -> dict[str, str]:
    """What nvidia-smi calls each UUID."""
    return {device["uuid"]: plain(device["index"]) for device in inventory["devices"]}


def _process(one: Mapping[str, Any], devices: Mapping[str, str]) -> list[str]:
    memory = "N/A" if one["memory_mib"] is None else f"{one['memory_mib']} MiB"
    device = devices.get(one["device"], plain(one["device"]))
    return [device, str(one["pid"]), _user(one), _where(one), memory, plain(one["name"]), _remark(one)]


def _remark(one: Mapping[str, Any]) -> str:
    """What is wrong with where it is; then when it ended, or what is known beside."""
    wrong = paint("NOT LEASED", "bad") if one["leased"] is False else ""
    said = f"ended {plain(one['ended_at'])}" if one["ended_at"] else _why(one)
    return "; ".join(filter(None, (wrong, said)))


def _user(one: Mapping[str, Any]) -> str:
    """A login name; a uid without an account; what it is if it is nobody's."""
    uid = one["owner_uid"]
    if uid is None:
        return "the system" if one["kind"] == "service" else "unknown"
    return login(uid)


def _where(one: Mapping[str, Any]) -> str:
    match one["kind"]:
        case "container":
            return f"container {plain(one['container'] or one['container_id'][:12])}"
        case "other_container":
            return f"unknown container {plain(one['container_id'] or '')[:12]}"
        case "build_step":
            return "build"
        case "user" | "service":
            return f"host, {plain(one['unit'])}" if one["unit"] else "host"
    return "unknown"


def _why(one: Mapping[str, Any]) -> str:
    if one["kind"] == "unknown" and one["why"]:
        return plain(one["why"])
    if one.get("probable_owner_uid") is None:
        return ""
    return f"probably {login(one['probable_owner_uid'])}'s, by {plain(one['evidence'])}"


def _files(one: Mapping[str, Any]) -> str:
    return plain(", ".join(one["files"]))
