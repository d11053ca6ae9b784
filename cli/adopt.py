"""`ds01 adopt|unadopt`: containers that ds01 did not make, whose they may be, and giving one to its owner."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from cli.screen import columns, login, plain

FOREIGN = "containers/foreign"
_HEAD = ("CONTAINER", "STATE", "OWNER", "GPUS", "WHY")


def listed(answer: Mapping[str, Any]) -> str:
    """All of them, those that nobody was given first, and the command for each of which the owner is likely."""
    containers = sorted(answer["containers"], key=_order)
    if not containers:
        return "ds01 made every container there is"
    lines = columns([_HEAD, *map(_row, containers)])
    likely = [
        one for one in containers if one["adopted_by"] is None and one["probable_owner_uid"] is not None
    ]
    if likely:
        lines += ["", "Evidence is no proof. If it is right:", *map(_command, likely)]
    return "\n".join(lines)


def adopted(answer: Mapping[str, Any]) -> str:
    """What its owner has of it from now on, and what not."""
    name, owner = plain(answer["container"]), plain(answer["owner"])
    lines = [
        f"{name} is {owner}'s: docker ps shows it to them. They may stop, commit and remove it, and not start it again."
    ]
    if answer["closed"]:
        lines += ["They can run no program in it (docker exec), since they could not have it made:"]
        lines += [f"  {plain(reason)}" for reason in answer["closed"]]
    if answer["devices"]:
        lines += [f"It counts as theirs: {', '.join(map(plain, answer['devices']))}"]
    if answer["left_out"]:
        lines += [
            f"Another container leases {', '.join(map(plain, answer['left_out']))}, which it has as well"
        ]
    return "\n".join(lines)


def unadopted(answer: Mapping[str, Any]) -> str:
    """That it is nobody's again."""
    return f"{plain(answer['container'])} is nobody's; only admins see it"


def _order(one: Mapping[str, Any]) -> tuple[bool, str]:
    return one["adopted_by"] is not None, str(one["container"])


def _row(one: Mapping[str, Any]) -> list[str]:
    if one["adopted_by"] is not None:
        owner, why = login(one["adopted_by"]), "adopted"
    else:
        probable = one["probable_owner_uid"]
        owner = "unknown" if probable is None else f"probably {login(probable)}"
        why = plain(one["why"] or "not looked at yet")
    devices = one["devices"]
    gpus = "unknown" if devices is None else str(len(devices) or "-")
    return [_name(one), "running" if one["runs"] else "stopped", owner, gpus, why]


def _command(one: Mapping[str, Any]) -> str:
    sudo = "sudo " if os.geteuid() == 0 else ""  # the same person as this time
    return f"  {sudo}ds01 adopt {_name(one)} --owner {login(one['probable_owner_uid'])}"


def _name(one: Mapping[str, Any]) -> str:
    return plain(one["container"] or one["container_id"][:12])
