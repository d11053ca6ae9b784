"""`ds01 gpu top`: every GPU process with whose it is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cli.screen import columns, login, paint, plain

PROCESSES = "processes"
_OLD_SCAN_SECONDS = 60  # there is one every 30 s
_HEAD = ("DEVICE", "PID", "USER", "WHERE", "MEMORY", "PROGRAM", "")


def top(answer: Mapping[str, Any], devices: Mapping[str, str]) -> str:
    """Processes, then what is not known of them, then how old all of that is.

    Args: devices: what nvidia-smi calls each UUID.
    """
    if answer["at"] is None:
        return f"nothing is known of GPU processes yet: {plain(answer['problem'])}; try again in a moment"
    unlisted = answer["unlisted_devices"]
    old = {one["device"]: _ago(one["age_seconds"]) for one in unlisted if one["age_seconds"] is not None}
    rows = [_process(one, devices, old) for one in answer["processes"]]
    rows += [
        ["open", str(one["pid"]), _user(one), _where(one), "-", plain(one["name"]), _files(one)]
        for one in answer["elsewhere"] or ()
    ]
    lines = columns([_HEAD, *sorted(rows)]) if rows else []
    if not rows and answer["problem"] is None:
        lines.append(_none(answer))
    lines += [paint(line, "bad") for line in (*_unlisted(unlisted), *_ghosts(answer, devices))]
    return "\n".join([*lines, *_not_looked_at(answer), _age(answer)])


def _none(answer: Mapping[str, Any]) -> str:
    """There is nothing to show, and of what that is known."""
    whose = "" if answer["scope"] == "all" else " that is known to be yours"
    if answer["unlisted_devices"]:
        return f"no process{whose} on the GPUs that could be read"
    return f"no GPU process{whose}"


def _unlisted(devices: Sequence[Mapping[str, Any]]) -> list[str]:
    """Devices whose processes are not known; a GPU stands for the MIG devices on it."""
    gpus = {one["index"] for one in devices}
    return [_unread(one) for one in devices if not _is_part_of(one["index"], gpus)]


def _is_part_of(index: str, gpus: Collection[str]) -> bool:
    gpu, colon, _ = index.partition(":")
    return bool(colon) and gpu in gpus


def _unread(device: Mapping[str, Any]) -> str:
    index, age = device["index"], device["age_seconds"]
    what = (
        f"{'MIG device' if ':' in index else 'GPU'} {plain(index)} could not be read: {plain(device['why'])}"
    )
    return f"{what}; " + (
        "what runs there is not known" if age is None else f"what is shown of it is {_ago(age)}"
    )


def _ghosts(answer: Mapping[str, Any], devices: Mapping[str, str]) -> list[str]:
    """Memory without a process."""
    return [
        f"{devices.get(one['device'], plain(one['device']))}: {one['used_mib']} MiB used by no process that can be seen,"
        f" since {plain(one['since'])}"
        for one in answer["unattributed_memory"] or ()
    ]


def _not_looked_at(answer: Mapping[str, Any]) -> list[str]:
    """What there is no answer about yet, or an old one. Only who sees everything is told of memory without a process."""
    sees_all, age = answer["scope"] == "all", answer["elsewhere_age_seconds"]
    lines = []
    if sees_all and answer["unattributed_memory"] is None:
        lines.append("memory that no process has was not judged yet")
    if age is None:
        lines.append("who only has a device open was not looked at yet")
    elif age > _OLD_SCAN_SECONDS:
        lines.append(f"who only has a device open: {_ago(age)}")
    if answer["unread"]:
        lines.append(f"{answer['unread']} processes did not let their open files be read")
    return lines


def _age(answer: Mapping[str, Any]) -> str:
    age = _ago(answer["age_seconds"])
    if answer["problem"] is None:
        return paint(age, "dim")
    return paint(f"{age}: {plain(answer['problem'])}; what runs now is not known", "bad")


def _ago(seconds: float) -> str:
    return f"as of {seconds:.0f} s ago"


def named(inventory: Mapping[str, Any]) -> dict[str, str]:
    """What nvidia-smi calls each UUID."""
    return {device["uuid"]: plain(device["index"]) for device in inventory["devices"]}


def _process(one: Mapping[str, Any], devices: Mapping[str, str], old: Mapping[str, str]) -> list[str]:
    """Args: old: of when it is, by device, where it could not be listed since."""
    memory = "N/A" if one["memory_mib"] is None else f"{one['memory_mib']} MiB"
    device = devices.get(one["device"], plain(one["device"]))
    return [device, str(one["pid"]), _user(one), _where(one), memory, plain(one["name"]), _remark(one, old)]


def _remark(one: Mapping[str, Any], old: Mapping[str, str]) -> str:
    """What is wrong with where it is; then when it ended, or what is known beside and of when."""
    wrong = paint("NOT LEASED", "bad") if one["leased"] is False else ""
    if one["ended_at"]:
        return "; ".join(filter(None, (wrong, f"ended {plain(one['ended_at'])}")))
    return "; ".join(filter(None, (wrong, _why(one), old.get(one["device"]))))


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
