"""Why each device cannot be leased now, for whoever looks at the list. Pure; `allocator.refusals` tells those who asked for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.model import GpuRequest, Obstacle
from allocator.reservations import kept_for
from allocator.shown import utc_after

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from allocator.board import Board
    from allocator.model import Moment
    from allocator.reservations import Window
    from policy.model import DeviceUuid, Uid

_WORDS: Final = {
    Obstacle.OUTAGE: "the GPUs cannot be read now, and none is given",
    Obstacle.OUT_OF_SERVICE: "it is not in service",
    Obstacle.HELD: "a lease has it",
    Obstacle.FOREIGN: "a container has it that ds01 did not make",
    Obstacle.UNATTRIBUTED: "memory is in use by no process that can be seen; ds01 gpu top tells the admin more",
    Obstacle.UNKNOWN: "its processes cannot be read",
    Obstacle.IN_USE: "a process uses it that holds no lease",
}


def obstacles(
    board: Board, windows: Collection[Window], *, uid: Uid, now: Moment, sees_all: bool
) -> Mapping[DeviceUuid, dict[str, str] | None]:
    """By device, the kind of obstacle and a sentence; None: a user without a reservation may get it now, for as long as wanted.

    Args: uid: who looks: what is kept for that user is no obstacle. What is kept for a group is, since groups are not known here.
    SECURITY: a sentence names nobody; for whom a device is kept, only who sees all reads.
    """
    looking = GpuRequest(owner_uid=uid, owner_name="", limit=1, count=1, request_id="", session="")
    kept = kept_for(board, looking, windows)
    found: dict[DeviceUuid, dict[str, str] | None] = {}
    for uuid, device in board.snapshot.devices.items():
        kind = board.obstacle(device)
        if kind is None:
            found[uuid] = _reserved(kept[uuid], now, sees_all=sees_all) if uuid in kept else None
        else:
            found[uuid] = _told(kind)
    return found


def outage() -> dict[str, str]:
    """That of every device while none can be read."""
    return _told(Obstacle.OUTAGE)


def _told(kind: Obstacle) -> dict[str, str]:
    return {"kind": kind.value, "message": _WORDS[kind]}


def _reserved(window: Window, now: Moment, *, sees_all: bool) -> dict[str, str]:
    whom = window.reservation.name if sees_all else "a reservation"
    begin = "" if window.begin <= 0 else f" from {utc_after(now, window.begin)}"
    message = f"kept for {whom}{begin} until {utc_after(now, window.end)}; see ds01 gpu queue"
    return {"kind": Obstacle.RESERVED.value, "message": message}
