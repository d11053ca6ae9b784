"""Devices kept for a group or a user at set times: which times, and what that keeps from everybody else. Pure.

A reservation is of a number of devices of a class, not of certain ones. From others it keeps as many free devices as it
would lack when it begins: what its own people hold already, and what comes back for certain before, need not be kept.
- Who says when the container ends may use a kept device, if that is before the reservation begins.
- Others may until `lead_seconds` before. Nobody is stopped for a reservation; what is missing then is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from allocator.model import ANY, FULL, Device, DeviceKind
from allocator.place import in_order, order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from datetime import date, tzinfo

    from allocator.board import Board, Devices
    from allocator.model import GpuRequest, Lease
    from policy.model import DeviceUuid, Uid
    from policy.when import When

_HORIZON_DAYS = 8  # every weekly reservation has its next time within


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Exactly one of `group` (a policy group) and `uid` is set. `profile`: FULL, ANY, "mig" or a MIG profile."""

    id: str
    group: str | None = None
    uid: Uid | None = None
    name: str  # of whom, for people
    count: int
    profile: str = FULL
    when: When
    when_text: str
    lead_seconds: int = 900
    source: str = "policy"  # or who made it

    def is_for(self, groups: Collection[str], uid: Uid) -> bool:
        """Whether somebody in these policy groups may use it."""
        return self.uid == uid if self.group is None else self.group in groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One time of a reservation, in seconds from now; `begin` is below 0 while it runs."""

    reservation: Reservation
    begin: float
    end: float


def upcoming(
    reservations: Collection[Reservation], now: datetime, zone: tzinfo, *, days: int = _HORIZON_DAYS
) -> tuple[Window, ...]:
    """What runs now or begins within `days`, first that begins first.

    Args: now: aware. zone: in which the times are written; across a change of clocks they stay what the clock shows.
    """
    found = [
        Window(
            reservation=item,
            begin=(begin - now).total_seconds(),
            end=(end - now).total_seconds(),
        )
        for item in reservations
        for begin, end in _times(item.when, now, zone, days)
        if end > now
    ]
    return tuple(sorted(found, key=lambda window: (window.begin, window.reservation.id)))


def is_over(reservation: Reservation, now: datetime, zone: tzinfo) -> bool:
    """Whether it has no further time: its one date is past."""
    day = reservation.when.day
    return day is not None and _between(reservation.when, day, zone)[1] <= now


def _times(when: When, now: datetime, zone: tzinfo, days: int) -> Iterator[tuple[datetime, datetime]]:
    today = now.astimezone(zone).date()
    last = today + timedelta(days=days)
    if when.day is not None:
        if when.day <= last:
            yield _between(when, when.day, zone)
        return
    day = today - timedelta(days=1)  # one that ends after midnight may have begun yesterday
    while day <= last:
        if day.weekday() in when.weekdays:
            yield _between(when, day, zone)
        day += timedelta(days=1)


def _between(when: When, day: date, zone: tzinfo) -> tuple[datetime, datetime]:
    last = day if when.end > when.begin else day + timedelta(days=1)
    return _at(day, when.begin, zone), _at(last, when.end, zone)


def _at(day: date, minutes: int, zone: tzinfo) -> datetime:
    day += timedelta(days=minutes // 1440)
    local = datetime(day.year, day.month, day.day, minutes % 1440 // 60, minutes % 60, tzinfo=zone)
    return local.astimezone(UTC)  # subtraction within one zone would ignore a change of clocks


def withheld(board: Board, want: GpuRequest, windows: Collection[Window]) -> Devices:
    """The free devices that a request may not have, so that every reservation finds its own.

    What the request names or would be given first is kept last, so that it is refused only where it must be.
    """
    concerning = [window for window in windows if _concerns(window, want)]
    if not concerning:
        return frozenset()
    kept: set[DeviceUuid] = set()
    groups = {group.name for group in want.groups}
    # Small choices first: who may have anything takes what is left.
    for window in sorted(concerning, key=lambda item: (item.reservation.profile == ANY, item.begin)):
        if window.reservation.is_for(groups, want.owner_uid):
            continue
        suitable = {uuid for uuid in board.free - kept if matches(board.snapshot.devices[uuid], window)}
        lacking = missing(board, window) if suitable else 0
        ordered = _least_wanted(board, want, suitable)
        kept.update(device.uuid for device in ordered[: max(0, lacking)])
    return frozenset(kept)


def _concerns(window: Window, want: GpuRequest) -> bool:
    """Whether the request would still have its devices when the reservation begins, or must not take them any more."""
    if want.seconds is None:
        return window.begin <= window.reservation.lead_seconds
    return want.seconds > window.begin


def matches(device: Device, window: Window) -> bool:
    """Whether a device is of the class that is reserved."""
    profile = window.reservation.profile
    if profile == FULL:
        return device.kind is DeviceKind.GPU
    return profile in {ANY, device.kind.value, device.profile}


def missing(board: Board, window: Window) -> int:
    """How many devices must still be kept for a reservation to be whole when it begins."""
    return window.reservation.count - sum(
        1 for lease in board.leases for _ in _counting(board, lease, window)
    )


def _counting(board: Board, lease: Lease, window: Window) -> Iterator[DeviceUuid]:
    """The devices of a lease that the reservation need not miss: its own people's, or back in time."""
    own = window.reservation.is_for(lease.groups, lease.owner_uid)
    left = None if board.now is None else lease.seconds_left(board.now)
    if own or (left is not None and 0 < left <= window.begin):
        for uuid in lease.devices:
            device = board.snapshot.devices.get(uuid)
            if device is not None and matches(device, window):
                yield uuid


def _least_wanted(board: Board, want: GpuRequest, devices: Collection[DeviceUuid]) -> list[Device]:
    backwards = in_order(board, devices)[::-1]
    named = {text.casefold() for text in want.device_ids}
    return sorted(backwards, key=lambda device: device.uuid.casefold() in named or device.index in named)


def first_kept(board: Board, window: Window) -> tuple[str, ...]:
    """The indices of the free devices of a reservation's class, for showing what there is."""
    suitable = [board.snapshot.devices[uuid] for uuid in board.free]
    return tuple(device.index for device in sorted(suitable, key=order) if matches(device, window))
