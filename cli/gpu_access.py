"""`ds01 gpu grant|revoke|grants`: who may use GPUs outside containers, and until when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.outcome import Exit, Failed
from cli.screen import columns, plain

GRANTS = "host-access"
PATH = f"/v1/{GRANTS}"


def wish(user: str, *, hours: float, reason: str, devices: Sequence[str]) -> Mapping[str, Any]:
    """What the allocator is asked for; it knows the bounds and the devices. Raises: Failed: USAGE: no time."""
    if not 0 < hours < 1e6:
        raise Failed(Exit.USAGE, f"--hours {hours:g} is no time; write it like 8 or 0.5")
    asked: dict[str, Any] = {"user": user, "seconds": round(hours * 3600), "reason": reason}
    return asked | ({"devices": list(devices)} if devices else {})


def granted(answer: Mapping[str, Any]) -> str:
    """What holds now, and what both should know."""
    return (
        f"{plain(answer['user'])} may use {_devices(answer)} outside containers until {plain(answer['ends_at'])}\n"
        "It counts in sessions that are open already. What others lease is not taken from them: agree on which GPU.\n"
        f"end it: ds01 gpu revoke {plain(answer['user'])}"
    )


def revoked(answer: Mapping[str, Any]) -> str:
    """That it is over."""
    return f"{plain(answer['user'])} may no longer use GPUs outside containers; what still had one open was ended"


def listed(answer: Mapping[str, Any]) -> str:
    """A table of all that hold, or that there is none."""
    if not answer["grants"]:
        return "nobody may use GPUs outside containers; ds01 gpu grant USER --hours N --reason TEXT lets somebody"
    head = ["USER", "DEVICES", "LEFT", "UNTIL", "BY", "REASON"]
    rows = [
        [plain(one["user"]), _devices(one), _left(one["left_seconds"]), *map(plain, _rest(one))]
        for one in answer["grants"]
    ]
    return "\n".join(columns([head, *rows]))


def _rest(one: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return one["ends_at"], one["granted_by"], one["reason"]


def _devices(answer: Mapping[str, Any]) -> str:
    return ", ".join(map(_device, answer["devices"])) or "all GPUs"


def _device(one: Mapping[str, Any]) -> str:
    """As `ds01 gpu` names it now, and by UUID, which stays."""
    return f"{plain(one['index'] or 'gone')} ({plain(one['uuid'])})"


def _left(seconds: int) -> str:
    hours, minutes = divmod(max(0, seconds) // 60, 60)
    return f"{hours}h{minutes:02}m" if hours else f"{minutes}m" if seconds >= 60 else f"{max(0, seconds)}s"
