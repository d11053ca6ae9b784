"""`ds01 image ls|share|unshare`: who may see and use whose images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.screen import columns, plain


def listed(answer: Mapping[str, Any]) -> str:
    """Own images with those who may use them, then what others share."""
    lines = (
        ["your images:"]
        if answer["own"]
        else ["you have named no image yet; docker build -t NAME . makes one"]
    )
    lines += columns([[plain(each["image"]), _readers(each["with"])] for each in answer["own"]], indent="  ")
    if answer["shared"]:
        lines.append("shared with you:")
        rows = [
            [plain(each["image"]), f"by {plain(each['owner']) if each['owner'] else 'the admin'}"]
            for each in answer["shared"]
        ]
        lines += columns(rows, indent="  ")
    return "\n".join(lines)


def shared(answer: Mapping[str, Any]) -> str:
    """What holds now for one image."""
    return f"{plain(answer['image'])}: {_readers(answer['with'])}"


def _readers(grantees: Sequence[str]) -> str:
    if "all" in grantees:
        return "everybody may see and use it"
    if not grantees:
        return "only you"
    return "you and " + ", ".join(plain(each).replace("group:", "group ") for each in grantees)
