"""`ds01 share|unshare`: who may see or use which containers, and until when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.screen import columns, plain
from cli.times import seconds_of

_MAY = {"view": "see", "use": "use"}


def grantees(users: Sequence[str], groups: Sequence[str]) -> list[str]:
    """Users and policy groups as the server tells them apart."""
    return [*(f"user:{name}" for name in users), *(f"group:{name}" for name in groups)]


def wish(container: str, whom: Sequence[str], *, use: bool, time: str) -> Mapping[str, Any]:
    """What the server is asked for. Raises: Failed: USAGE: no time."""
    may = "use" if use else "view"
    return {
        "container": container,
        "with": list(whom),
        "share": may,
        "seconds": seconds_of("--for", time),
    }


def shared(answer: Mapping[str, Any], *, use: bool) -> str:
    """What holds now for one container, and what its owner should know."""
    lines = [_one(answer)]
    if use:
        lines.append(
            "Whoever may use it runs programs in it as you would: they read and write what it mounts, your directories "
            "too, and use its GPUs. Programs they leave running stay until the container is restarted."
        )
    if answer.get("exec_refused"):
        lines.append(
            "exec will be refused all the same: your Docker socket is mounted there, and would make them you. "
            "Logs, top and stop work."
        )
    return "\n".join(lines)


def unshared(answer: Mapping[str, Any]) -> str:
    """What still holds for one container."""
    return _one(answer)


def listed(answer: Mapping[str, Any]) -> str:
    """Own containers with those who may see or use them, then those of others."""
    lines = (
        ["your containers:"]
        if answer["own"]
        else ["you share no container; ds01 share NAME --with USER does"]
    )
    lines += [f"  {_one(each)}" for each in answer["own"]]
    if answer["shared"]:
        lines.append("shared with you:")
        rows = [
            [plain(each["container"]), f"you may {_MAY[each['share']]} it", f"by {plain(each['owner'])}"]
            for each in answer["shared"]
        ]
        lines += columns(rows, indent="  ")
    return "\n".join(lines)


def _one(told: Mapping[str, Any]) -> str:
    name = plain(told["container"])
    if not told["with"]:
        return f"{name}: only you"
    return f"{name}: " + "; ".join(
        f"{plain(each['who']).replace('group:', 'group ')} may {_MAY[each['share']]} it until {plain(each['until'])}"
        for each in told["with"]
    )
