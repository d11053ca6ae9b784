"""What the allocator shows, as JSON: leases, the line, reservations. Pure, and sparing with other people's."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from allocator.reservations import missing, most

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from allocator.board import Board
    from allocator.model import GpuRequest, Lease, Moment
    from allocator.reservations import Reservation, Window
    from allocator.waiting import Waiter


def lease(item: Lease, now: Moment, note: str | None = None) -> dict[str, Any]:
    """A lease of the reader's own, or for who may see all.

    `seconds`: how long it lasts from `created_at`; None: it has no end. `ends_in_seconds`: below 0, it should have ended. `note`: what its holder was told last of its devices.
    """
    left = item.seconds_left(now)
    return {
        "id": item.id,
        "owner_uid": item.owner_uid,
        "owner_name": item.owner_name,
        "state": item.state.value,
        "devices": list(item.devices),
        "generations": list(item.generations),
        "equivalents": str(item.equivalents),
        "container_id": item.container,
        "created_at": item.created.utc,
        "seconds": item.seconds,
        "ends_at": ends_at(item, now),
        "ends_in_seconds": None if left is None else int(left),
        "note": note,
    }


def ends_at(item: Lease, now: Moment) -> str | None:
    """When a lease ends, in UTC; None: with its container."""
    left = item.seconds_left(now)
    return None if left is None else utc_after(now, left)


def waiter(item: Waiter, position: int, now: Moment, uid: int, *, sees_all: bool) -> dict[str, Any]:
    """One in line: all see that somebody waits for what and how long; who it is, only the same and who may see all."""
    want = item.entry.want
    visible = sees_all or want.owner_uid == uid
    return {
        "position": position,
        "owner_name": want.owner_name if visible else None,
        "request_id": want.request_id if visible else None,
        "wants": wanted(want) if visible or not want.device_ids else {"count": len(want.device_ids)},
        "priority": want.priority,
        "waited_seconds": max(0, now.boottime_ms - item.entry.asked_ms) // 1000,
        "wait_seconds": want.wait_seconds,
        "refusal": item.refusal.kind.value,
    }


def wanted(want: GpuRequest) -> dict[str, Any]:
    """What a request asks for, without what it is measured by."""
    said = {
        "count": want.count,
        "device_ids": list(want.device_ids),
        "profile": want.profile,
        "memory_mib": want.memory_mib,
    }
    return {key: value for key, value in said.items() if value}


def reservation(item: Reservation) -> dict[str, Any]:
    """A reservation as it was made."""
    return {
        "id": item.id,
        "group": item.group,
        "uid": item.uid,
        "name": item.name,
        "count": item.count,
        "profile": item.profile,
        "when": item.when_text,
        "lead_seconds": item.lead_seconds,
        "source": item.source,
        "by": item.by,
        "reason": item.reason,
    }


def reservations(
    items: Collection[Reservation], times: Collection[Window], now: Moment, board: Board | None
) -> list[dict[str, Any]]:
    """Each as it was made, with the time that runs or is the next; None: it has no further one."""
    needs = _needs(times, board)
    following: dict[str, Window] = {}
    for one in times:
        following.setdefault(one.reservation.id, one)
    found = ((item, following.get(item.id)) for item in items)
    return [
        reservation(item) | {"next": None if one is None else _time(one, now) | {"needs": needs.get(one)}}
        for item, one in found
    ]


def too_much(item: Reservation, board: Board | None) -> str | None:
    """What to tell who reserves more than there is; None: there is enough, or nobody can say."""
    there = None if board is None else most(board.snapshot, item)
    if there is None or there >= item.count:
        return None
    return f"{item.count} x {item.profile} is more than this server has as its GPUs are split now, which is {there}"


def windows(items: Collection[Window], now: Moment, board: Board | None) -> list[dict[str, Any]]:
    """Times of reservations, in their order. `needs`: how many devices one still lacks, free or not; None: nobody can say now."""
    needs = _needs(items, board)
    return [_window(item, now) | {"needs": needs.get(item)} for item in items]


def _needs(items: Collection[Window], board: Board | None) -> Mapping[Window, int]:
    return {} if board is None else missing(board, items)


def _window(item: Window, now: Moment) -> dict[str, Any]:
    of = item.reservation
    return {
        "reservation": of.id,
        "name": of.name,
        "count": of.count,
        "profile": of.profile,
        **_time(item, now),
    }


def _time(item: Window, now: Moment) -> dict[str, Any]:
    return {
        "begins_at": utc_after(now, item.begin),
        "ends_at": utc_after(now, item.end),
        "running": item.begin <= 0,
    }


def utc_after(now: Moment, seconds: float) -> str:
    """The time of day so long after `now`, in UTC."""
    at = now.when() + timedelta(seconds=seconds)
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")
