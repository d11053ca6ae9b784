"""`ds01 gpu reservations`, and the words of `reserve` and `queue` for what is kept for whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cli.screen import columns, plain

PATH = "/v1/reservations"
_HEAD = ["ID", "RESERVED", "FOR", "WHEN", "NEXT FROM", "TO", "NEEDS", "MADE BY", "WHY"]


def listed(answer: Mapping[str, Any]) -> str:
    """Each with its next time, what it then still lacks, who made it and why."""
    rows = [
        [
            plain(one["id"]),
            _what(one),
            plain(one["name"]),
            plain(one["when"]),
            *_next(one["next"]),
            plain(one["by"] or one["source"]),
            plain(one["reason"] or "-"),
        ]
        for one in answer["reservations"]
    ]
    return "\n".join(columns([_HEAD, *rows])) if rows else "nothing is reserved"


def _next(time: Mapping[str, Any] | None) -> list[str]:
    if time is None:
        return ["over", "-", "-"]
    begin = "now" if time["running"] else plain(time["begins_at"])
    return [begin, plain(time["ends_at"]), _needs(time)]


def _needs(time: Mapping[str, Any]) -> str:
    return "unknown" if time["needs"] is None else str(time["needs"])


def _what(one: Mapping[str, Any]) -> str:
    return f"{one['count']} x {plain(one['profile'])}"


def kept(windows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Times that run or come, below the queue; nothing where there are none."""
    if not windows:
        return []
    head = ["RESERVED", "FOR", "FROM", "TO", "", "NEEDS", "ID"]
    rows = [
        [
            _what(one),
            plain(one["name"]),
            plain(one["begins_at"]),
            plain(one["ends_at"]),
            "now" if one["running"] else "ahead",
            _needs(one),
            plain(one["reservation"]),
        ]
        for one in windows
    ]
    return ["", *columns([head, *rows])]


def made(answer: Mapping[str, Any]) -> str:
    """What was reserved, how it ends, and whether there is as much."""
    warning = answer.get("warning")
    return "\n".join(
        [
            f"{_what(answer)} kept for {plain(answer['name'])}, {plain(answer['when'])}",
            *([f"warning: {plain(warning)}"] if warning else []),
            f"take it back: ds01 gpu unreserve {plain(answer['id'])}",
        ]
    )
