"""Devices kept for a group or a user at set times: which times, and what that keeps from everybody else. Pure.

A reservation is of a number of devices of a class, not of certain ones. From others it keeps as many free devices as it
would lack when it begins: what its own people hold already, and what comes back for certain before, need not be kept.
- Of reservations that overlap no two count on the same device; one after the other they do.
- Who says when the container ends may use a kept device, if that is before the reservation begins.
- Others may until `lead_seconds` before. Nobody is stopped for a reservation; what is missing then is shown.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING

from allocator.model import ANY, FULL, Device, DeviceKind, DeviceState
from allocator.place import in_order

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from datetime import date, tzinfo

    from allocator.board import Board
    from allocator.model import GpuRequest, Snapshot
    from policy.model import DeviceUuid, Uid
    from policy.when import When

_HORIZON_DAYS = 8  # every weekly reservation has its next time within; one of a date is told however far


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """Exactly one of `group` (a policy group) and `uid` is set. `profile`: FULL, ANY, "mig" or a MIG profile.

    source: "policy", or which uid asked. by, reason: the admin's login name, and what it is for; None: not said.
    """

    id: str
    group: str | None = None
    uid: Uid | None = None
    name: str  # of whom, for people
    count: int
    profile: str = FULL
    when: When
    when_text: str
    lead_seconds: int = 900
    source: str = "policy"
    by: str | None = None
    reason: str | None = None

    def is_for(self, groups: Collection[str], uid: Uid) -> bool:
        """Whether somebody in these policy groups may use it."""
        return self.uid == uid if self.group is None else self.group in groups


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One time of a reservation, in seconds from now; `begin` is below 0 while it runs."""

    reservation: Reservation
    begin: float
    end: float

    def overlaps(self, other: Window) -> bool:
        """Whether both hold at some moment; two that only touch do not."""
        return self.begin < other.end and other.begin < self.end


def upcoming(
    reservations: Collection[Reservation], now: datetime, zone: tzinfo, *, days: int = _HORIZON_DAYS
) -> tuple[Window, ...]:
    """What runs now or begins within `days`, and what is once however far ahead; first that begins first.

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
    if when.day is not None:
        yield _between(when, when.day, zone)
        return
    today = now.astimezone(zone).date()
    last = today + timedelta(days=days)
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


def kept_for(board: Board, want: GpuRequest, windows: Collection[Window]) -> dict[DeviceUuid, Window]:
    """The free devices that a request may not have, so that every reservation finds its own, each with the first it is kept for.

    What the request names or would be given first is kept last, so that it is refused only where it must be.
    """
    kept: dict[DeviceUuid, Window] = {}
    until = max((window.end for window in windows if _concerns(window, want)), default=None)
    if until is None:
        return kept
    promised = _Promised()
    groups = {group.name for group in want.groups}
    # What begins when all of those are over counts on no device in their time.
    for window, count in _lacking(board, [window for window in windows if window.begin < until]):
        if not count or not _concerns(window, want):
            continue
        suitable = {uuid for uuid in board.free if matches(board.snapshot.devices[uuid], window.reservation)}
        ordered = [device.uuid for device in _least_wanted(board, want, suitable)]
        if window.reservation.is_for(groups, want.owner_uid):
            promised.take(ordered[::-1], window, count)  # of what is its own it gets what it wants most
        else:
            ordered.sort(key=lambda uuid: uuid not in kept)
            for uuid in promised.take(ordered, window, count):
                kept.setdefault(uuid, window)
    return kept


def _concerns(window: Window, want: GpuRequest) -> bool:
    """Whether the request would still have its devices when the reservation begins, or must not take them any more."""
    if want.seconds is None:
        return window.begin <= window.reservation.lead_seconds
    return want.seconds > window.begin


def matches(device: Device, reservation: Reservation) -> bool:
    """Whether a device is of the class that is reserved."""
    if reservation.profile == FULL:
        return device.kind is DeviceKind.GPU
    return reservation.profile in {ANY, device.kind.value, device.profile}


def most(snapshot: Snapshot, reservation: Reservation) -> int | None:
    """How many devices of its class there are as the GPUs are split now, in service or not; None: not every GPU is known."""
    if not snapshot.complete:
        return None
    whole = (one for one in snapshot.devices.values() if one.state is not DeviceState.UNUSABLE)
    return sum(matches(device, reservation) for device in whole)


def missing(board: Board, windows: Collection[Window]) -> dict[Window, int]:
    """How many devices, free or not, each reservation still lacks to be whole when it begins."""
    return dict(_lacking(board, windows))


class _Promised:
    """Which reservations count on a device: never two that overlap."""

    def __init__(self) -> None:
        self._to: defaultdict[DeviceUuid, list[Window]] = defaultdict(list)

    def take(self, devices: Iterable[DeviceUuid], window: Window, count: int) -> list[DeviceUuid]:
        """The first of these that are not promised for this time, at most `count`; from now on they are."""
        able = (uuid for uuid in devices if not any(map(window.overlaps, self._to[uuid])))
        taken = list(islice(able, count))
        for uuid in taken:
            self._to[uuid].append(window)
        return taken


def _lacking(board: Board, windows: Collection[Window]) -> Iterator[tuple[Window, int]]:
    """Each with how many devices it lacks beside what its own people hold and what is back in time, in the order of keeping.

    Those that begin sooner come first, and small choices before: who may have anything takes what is left. It is never too
    little; where a group's own devices could be shared out better among several of its times, it may be one too many.
    """
    promised = _Promised()
    for window in sorted(
        windows, key=lambda one: (_choice(one.reservation.profile), one.begin, one.reservation.id)
    ):
        count = window.reservation.count
        yield window, count - len(promised.take(_counting(board, window), window, count))


def _choice(profile: str) -> int:
    return {DeviceKind.MIG.value: 1, ANY: 2}.get(profile, 0)


def _counting(board: Board, window: Window) -> list[DeviceUuid]:
    """The leased devices that a reservation need not miss, those first that others can count on least.

    They are its own people's, which nobody else can count on before they are back, or back in time.
    """
    found: list[tuple[bool, float, DeviceUuid]] = []
    for lease, back, devices in board.returning:
        own = window.reservation.is_for(lease.groups, lease.owner_uid)
        if own or back <= window.begin:
            found += [
                (not own, -back, device.uuid) for device in devices if matches(device, window.reservation)
            ]
    return [uuid for _, _, uuid in sorted(found)]


def _least_wanted(board: Board, want: GpuRequest, devices: Collection[DeviceUuid]) -> list[Device]:
    backwards = in_order(board, devices)[::-1]
    named = {text.casefold() for text in want.device_ids}
    return sorted(backwards, key=lambda device: device.uuid.casefold() in named or device.index in named)
