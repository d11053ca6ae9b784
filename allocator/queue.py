"""Who is next, and what must be left for who is next. Pure; `allocator.waiting` does the waiting.

Order: higher priority, then the smaller share of recent GPU time for one's weight, then who asked first.
INVARIANT: nobody takes a device that somebody ahead could use and is still too few of, whatever comes back and when, nor
the room in a limit that both share. So what is behind is served only from what nobody ahead can use: no request ahead
waits longer for it.
Who could not be served whatever comes back claims nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, TypeVar

from allocator.model import Placement, Refusal, RefusalKind
from allocator.place import could_use, hopeless, over_limits, place
from allocator.refusals import promised_room
from allocator.reservations import kept_for
from allocator.slices import equivalents

_Limit = TypeVar("_Limit", int, Fraction)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from allocator.board import Board, Devices
    from allocator.model import GpuRequest
    from allocator.reservations import Window
    from policy.model import DeviceUuid, Uid

_WANTS_DEVICES = frozenset({RefusalKind.IN_USE, RefusalKind.RESERVED})
_NOTHING: Devices = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request in line. `asked_ms` and `number`: when it first asked, and in what order it came."""

    want: GpuRequest
    asked_ms: int
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Room in the limits of an owner and its groups that a waiting request needs, as much as it may take of it."""

    want: GpuRequest
    devices: int
    equivalents: Fraction


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What those ahead must find when their turn comes."""

    devices: Devices = _NOTHING
    promises: tuple[Promise, ...] = ()

    @classmethod
    def of(cls, several: Iterable[Claims]) -> Claims:
        """All together."""
        some = list(several)
        return cls(
            devices=_NOTHING.union(*{one.devices for one in some}),  # many want the same
            promises=tuple(promise for one in some for promise in one.promises),
        )


NO_CLAIMS = Claims()


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one request gets now, and what those behind must leave to it.

    final: whether neither what others give back nor what recovers by itself can change it.
    """

    outcome: Placement | Refusal
    claims: Claims = NO_CLAIMS
    final: bool = False


Rank = tuple[int, float, int, int]


def rank(entry: Entry, shares: Mapping[Uid, float]) -> Rank:
    """Smaller is further ahead."""
    share = shares.get(entry.want.owner_uid, 0.0) / max(1, entry.want.weight)
    return (-entry.want.priority, share, entry.asked_ms, entry.number)


def ordered(entries: Iterable[Entry], shares: Mapping[Uid, float]) -> list[Entry]:
    """Who is next, first."""
    return sorted(entries, key=lambda entry: rank(entry, shares))


def answer(board: Board, want: GpuRequest, windows: Collection[Window], ahead: Claims = NO_CLAIMS) -> Answer:
    """What a request gets, with `ahead` claimed by those before it.

    Who waits for a limit claims no devices: it is not for want of them.
    """
    kept = kept_for(board, want, windows)
    outcome = place(board, want, claimed=ahead.devices, withheld=kept)
    if isinstance(outcome, Placement):
        outcome = _over_promised(board, want, outcome, ahead.promises) or outcome
    if isinstance(outcome, Placement):
        return Answer(outcome=outcome)
    if never := hopeless(board, want):
        return Answer(outcome=never, final=board.snapshot.is_settled)
    return Answer(
        outcome=outcome, claims=_claims(board, want, kept, of_devices=outcome.kind in _WANTS_DEVICES)
    )


def still_waits(board: Board, want: GpuRequest, windows: Collection[Window], ahead: Claims) -> Claims | None:
    """What a request claims that plainly has too few devices; None: only `answer` can tell. Quick, and without words."""
    if want.count is None or len((board.usable(want) & board.free) - ahead.devices) >= want.count:
        return None
    if hopeless(board, want) or over_limits(board, want, want.count):
        return None
    return _claims(board, want, kept_for(board, want, windows), of_devices=True)


def _claims(board: Board, want: GpuRequest, kept: Collection[DeviceUuid], *, of_devices: bool) -> Claims:
    could = could_use(board, want)
    if want.count is None:
        worth = sum((equivalents(board.snapshot.devices[uuid]) for uuid in could), Fraction(0))
        promise = Promise(want=want, devices=len(could), equivalents=worth)
    else:
        promise = Promise(want=want, devices=want.count, equivalents=want.count * board.largest(want))
    return Claims(devices=could.difference(kept) if of_devices else _NOTHING, promises=(promise,))


def _over_promised(
    board: Board, want: GpuRequest, placement: Placement, promises: tuple[Promise, ...]
) -> Refusal | None:
    """Whether a placement would take room in a limit that somebody ahead needs."""
    own = [promise for promise in promises if promise.want.owner_uid == want.owner_uid]
    limits: list[tuple[tuple[int, Fraction], list[Promise], int | None, Fraction | None]] = []
    if own:
        asked = [want, *(promise.want for promise in own)]
        most = _least(one.limit for one in asked), _least(one.equivalents for one in asked)
        limits.append((board.held_by_owner(want), own, *most))
    for group in want.groups:
        of_group = [item for item in promises if group.name in {each.name for each in item.want.groups}]
        same = [group, *(each for item in of_group for each in item.want.groups if each.name == group.name)]
        most = _least(one.devices for one in same), _least(one.equivalents for one in same)
        if of_group and most != (None, None):
            limits.append((board.held_by_group(group.name), of_group, *most))
    for (devices, worth), some, most_devices, most_worth in limits:
        all_devices = devices + len(placement.devices) + sum(promise.devices for promise in some)
        all_worth = worth + placement.equivalents + sum((one.equivalents for one in some), Fraction(0))
        too_many = most_devices is not None and all_devices > most_devices
        if too_many or (most_worth is not None and all_worth > most_worth):
            return promised_room(board, want)
    return None


def _least(limits: Iterable[_Limit | None]) -> _Limit | None:
    """Those in line may have asked under another policy than of now: the least that one of them has to keep counts."""
    return min((one for one in limits if one is not None), default=None)
