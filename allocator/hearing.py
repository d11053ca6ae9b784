"""Errors that two sources tell, NVML and the kernel log: each counted once, as NVML's if both told it.

NVML tells one event for each error. The log has a line for each message about it: an XID 13 has three, an XID 45 one
for each channel. So lines are not counted: equal ones within `_BURST_SECONDS` are one error. Then errors and events are
paired one to one, within a time: what is left over of either is an error of its own, so that a second error of the same
kind counts, and an error told twice does not. Were it not so, two users' errors could read as five of several users,
and speak against the device (`health.of_faults`).

The times: lines are read when they are written, so NVML is ahead of the log by little. It may be behind it by far: a
look comes every few seconds, and a call into a GSP that does not answer returns after 45 s. Within that time an error
that only the log told and another that only NVML told are taken for one; both sources would have to miss one.
SOURCE: open-gpu-kernel-modules, kernel_rc.c (lines: nvErrorLog, krcReportXid) and kernel_rc_notification.c (events).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from allocator.kernel_log import parse_address
from allocator.model import DeviceKind
from allocator.readings import XidEvent, XidSource
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from allocator.kernel_log import LoggedXid, PciAddress
    from allocator.model import Moment, Snapshot
    from policy.model import DeviceUuid

_BURST_SECONDS: Final = 1.0
_NVML_LATE_SECONDS: Final = 60.0
_LOG_LATE_SECONDS: Final = 5.0
_CHANCE_SECONDS: Final = 1.0  # a look that begins so long after a line would have had NVML's event of it
_MOST: Final = 1000  # of each kind that are remembered; older ones give way


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    xid: LoggedXid
    read: Moment


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    event: XidEvent
    heard: Moment


class Hearing:
    """What was heard lately, and what of it waits for the other source. Of one thread, the loop's."""

    def __init__(self, *, now: Callable[[], Moment]) -> None:
        """Nothing was heard, and no GPU is known."""
        self._now = now
        self._gpus: dict[PciAddress, DeviceUuid] | None = None  # None: no look has said what there is
        self._bursts: dict[LoggedXid, Moment] = {}
        self._waiting: deque[_Line] = deque(maxlen=_MOST)  # NVML may tell them yet
        self._alone: deque[_Line] = deque(maxlen=_MOST)  # told as the log's alone
        self._told: deque[_Told] = deque(maxlen=_MOST)  # by NVML, and not by the log so far

    def know(self, snapshot: Snapshot) -> None:
        """Learn where the GPUs are; one that is not there any more keeps its place until another has it."""
        found = {}
        for device in snapshot.devices.values():
            address = None if device.pci_bus_id is None else parse_address(device.pci_bus_id)
            if device.kind is DeviceKind.GPU and address is not None:
                found[address] = device.uuid
        self._gpus = {
            at: uuid for at, uuid in (self._gpus or {}).items() if uuid not in found.values()
        } | found

    def logged(self, xid: LoggedXid) -> None:
        """The log has a line about an error."""
        now = self._now()
        self._bursts = {one: at for one, at in self._bursts.items() if now.seconds_since(at) < _BURST_SECONDS}
        # INVARIANT: the time runs from the first line, so that errors without a pause are not one for ever.
        if xid in self._bursts:
            return
        self._bursts[xid] = now
        self._told = deque(
            (one for one in self._told if now.seconds_since(one.heard) < _LOG_LATE_SECONDS), maxlen=_MOST
        )
        same = [one for one in self._told if self._is_same(xid, one.event)]
        if same:
            self._told.remove(max(same, key=lambda one: _is_exact(xid, one.event)))
        else:
            self._waiting.append(_Line(xid=xid, read=now))

    def told(self, heard: Iterable[XidEvent]) -> tuple[XidEvent, ...]:
        """What NVML told, without what was carried out as the log's before."""
        now = self._now()
        self._alone = deque(
            (one for one in self._alone if now.seconds_since(one.read) < _NVML_LATE_SECONDS), maxlen=_MOST
        )
        return tuple(event for event in heard if self._is_new(event, now))

    def alone(self, before: Moment) -> tuple[XidEvent, ...]:
        """What only the log has told, though NVML was asked at `before` or could not be; each once."""
        if self._gpus is None:
            return ()
        ripe = [one for one in self._waiting if before.seconds_since(one.read) >= _CHANCE_SECONDS]
        found = []
        for one in ripe:
            self._waiting.remove(one)
            gpu = self._gpus.get(one.xid.address)
            if gpu is None:
                log(events.XID_UNPLACED, address=str(one.xid.address), xid=one.xid.xid)
                continue
            self._alone.append(one)
            found.append(_event(one.xid, gpu))
        return tuple(found)

    def _is_new(self, event: XidEvent, now: Moment) -> bool:
        # What waits goes first: it is told in NVML's name then, and the number is the same either way.
        if self._pair(self._waiting, event):
            return True
        if self._pair(self._alone, event):
            return False
        self._told.append(_Told(event=event, heard=now))
        return True

    def _pair(self, lines: deque[_Line], event: XidEvent) -> bool:
        """Whether one of the lines is about the error; it is about no other then."""
        same = [one for one in lines if self._is_same(one.xid, event)]
        if same:
            lines.remove(max(same, key=lambda one: _is_exact(one.xid, event)))
        return bool(same)

    def _is_same(self, xid: LoggedXid, event: XidEvent) -> bool:
        """Whether both can be about one error. A GSP's driver writes no instance to the log, and tells it by NVML."""
        at = (self._gpus or {}).get(xid.address)
        instances = {xid.gpu_instance_id, event.gpu_instance_id} - {None}
        return at == event.gpu and xid.xid == event.xid and len(instances) < 2


def _is_exact(xid: LoggedXid, event: XidEvent) -> bool:
    return xid.gpu_instance_id == event.gpu_instance_id


def _event(xid: LoggedXid, gpu: DeviceUuid) -> XidEvent:
    return XidEvent(
        gpu=gpu,
        xid=xid.xid,
        gpu_instance_id=xid.gpu_instance_id,
        compute_instance_id=xid.compute_instance_id,
        source=XidSource.KERNEL_LOG,
    )
