"""What becomes of devices that fail: verdicts are carried out, kept in the ledger and told to holders.

INVARIANT: a device with a quarantine in the ledger is never told as `ok`, whatever NVML says and however often ds01
restarts, until a person ends it. Not for two threads at once; every method may raise LedgerUnavailable.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from allocator import health, nvml_codes
from allocator.device_records import DeviceRecords, Quarantine
from allocator.health import Fitness, XidClass
from allocator.mig_underway import Underway
from allocator.model import DeviceKind, DeviceState, LeaseState, Snapshot
from allocator.notes import Notes
from allocator.nvml_codes import Action
from allocator.reconcile import Change, is_there
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from allocator.health import Verdict
    from allocator.ledger import Ledger
    from allocator.model import Device, Lease, Moment
    from allocator.readings import XidEvent
    from policy.model import DeviceUuid, LeaseId

_ITSELF: Final = "ds01"
_HELD_BACK: Final = (Fitness.DRAIN, Fitness.QUARANTINE)
_MOST_UNHEARD: Final = 1000  # while the ledger cannot be written
_STRICTNESS: Final = (
    DeviceState.OK,
    DeviceState.UNUSABLE,
    DeviceState.DRAINING,
    DeviceState.UNRESPONSIVE,
    DeviceState.QUARANTINED,
    DeviceState.LOST,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """A look as everybody may see it, and the leases that lost a device by it."""

    snapshot: Snapshot
    changes: tuple[Change, ...]


class Care:
    """Judges each look, and keeps what must not be forgotten in the ledger."""

    def __init__(self, ledger: Ledger, *, boot_id: str) -> None:
        self._ledger = ledger
        self._records = DeviceRecords(ledger)
        self._standing: dict[DeviceUuid, str | None] = {}  # what the last look had against a device
        self._unheard: deque[XidEvent] = deque(maxlen=_MOST_UNHEARD)
        self._errors: dict[
            DeviceUuid, tuple[int, Moment]
        ] = {}  # unknown ones in a row: how many, and the first
        self._suspected: dict[DeviceUuid, str] = {}  # by errors, until a person looked
        self._slowed: dict[DeviceUuid, str] = {}  # by the last look
        self._notes = Notes(self._records)
        self._read = Snapshot(complete=False)  # before the first look nothing is known to be gone
        self.underway = Underway(ledger, boot_id)

    def take_in(self, read: Snapshot, now: Moment) -> Taken:
        """Give generations, carry out verdicts, tell holders."""
        self._unheard.extend(read.events)
        self.underway.learn(read)
        shapes = {uuid: _shape(device) for uuid, device in read.devices.items()}
        awaited = self.underway.awaited
        generations = self._records.observe(shapes, complete=read.complete, awaited=awaited)
        self._read = replace(
            read,
            awaited=awaited,
            devices={
                uuid: replace(device, generation=generations[uuid]) for uuid, device in read.devices.items()
            },
        )
        self._ledger.learn_gpus({uuid: device.gpu for uuid, device in read.devices.items()})
        leases = self._ledger.live()
        self._notes.keep(leases)
        self._hear_all(leases, now)
        for device in self._read.devices.values():
            if device.kind is DeviceKind.GPU:  # what is known of a whole GPU holds for its parts
                self._judge(device, now)
        self._notes.tell_hidden(leases, self._read, now)
        self._tell_holders(leases, now)
        return Taken(snapshot=self.marked(), changes=tuple(self._losses(leases)))

    def hear(self, told: Iterable[XidEvent], seen: Snapshot | None, now: Moment) -> Taken:
        """Errors that no look brought, carried out on the devices of the last one.

        Args: seen: what everybody sees of the devices now, which is told again as it is after this; None: nothing.
        """
        self._unheard.extend(told)
        leases = self._ledger.live()
        self._hear_all(leases, now)
        self._tell_holders(leases, now)
        return Taken(snapshot=self.marked(seen), changes=tuple(self._losses(leases)))

    def hear_nothing(self, now: Moment) -> None:
        """The driver as a whole has not answered for `health.SILENT_SECONDS`: tell every holder."""
        self._notes.tell_silence(self._ledger.live(), now)

    @property
    def is_behind(self) -> bool:
        """Whether an error was told that could not be carried out yet. From any thread."""
        return bool(self._unheard)

    def marked(self, snapshot: Snapshot | None = None) -> Snapshot:
        """A snapshot with what is known against its devices; without one, the last look."""
        lasting = self._records.quarantines()
        seen = self._read if snapshot is None else snapshot
        devices = {uuid: self._marked(device, lasting) for uuid, device in seen.devices.items()}
        return replace(seen, devices=devices)

    def settle(self, gpu: DeviceUuid) -> None:
        """What a reboot took of a GPU was made again as far as it can be: from now on it is judged like any other."""
        self.underway.settle(gpu, self._read)

    def quarantine(self, device: DeviceUuid, *, by: str, why: str, now: Moment) -> bool:
        """Take a device out of service; who holds it goes on, and is told. False: there never was such a device."""
        if not self._records.is_known(device):
            return False
        wanted = Quarantine(
            device=device, fitness=Fitness.QUARANTINE, by=by, automatic=False, why=why, began=now
        )
        if self._records.quarantine(wanted):
            log(events.GPU_QUARANTINED, device=device, problem=f"{why} (by {by})")
            self._tell_holders(self._ledger.live(), now)
        return True

    def release(self, device: DeviceUuid, *, by: str, why: str, now: Moment) -> bool:
        """Put a device back into service; what NVML says against it still counts. False: it was not taken out."""
        suspected = self._suspected.pop(device, None) is not None
        if not self._records.release(device, by=by, why=why, now=now) and not suspected:
            return False
        log(events.GPU_UNQUARANTINED, device=device, by=by, reason=why)
        for lease in self._ledger.live():
            if self._notes.of(lease.id) is not None and any(self._holds(lease, device)):
                self._notes.tell(lease, f"{self._named(device)} is in service again", now)
        return True

    def intruded(self, lease: LeaseId, device: DeviceUuid, now: Moment) -> None:
        """Tell who holds a device that somebody else's process is on it; not whose, which is the admin's to know."""
        note = f"a process that is not yours was seen on {self._named(device)}, which nobody but you may use; tell the admin"
        for held in self._ledger.live():
            if held.id == lease:
                self._notes.tell(held, note, now)

    def note(self, lease: LeaseId) -> str | None:
        """What the holder of a live lease was told last. From any thread."""
        return self._notes.of(lease)

    def _hear_all(self, leases: Collection[Lease], now: Moment) -> None:
        # Each error is told once: it is let go only when it was carried out.
        while self._unheard:
            self._hear(self._unheard[0], leases, now)
            self._unheard.popleft()

    def _hear(self, event: XidEvent, leases: Collection[Lease], now: Moment) -> None:
        """One error: remembered, told, and carried out on what it is of."""
        gpu = self._read.devices.get(event.gpu)
        kind = health.xid_class(event.xid)
        advice = None if gpu is None else gpu.measures.recovery
        verdict = health.of_xid(event.xid, advice, event.source)
        for device in self._targets(event, kind):
            holders = [lease for lease in leases if any(self._holds(lease, device))]
            # An error that does not say of which instance it is is nobody's in particular on a GPU that is shared.
            holder = holders[0] if len(holders) == 1 else None
            owner = None if holder is None else holder.owner_uid
            self._records.note_error(device, event.xid, kind, owner=owner, now=now)
            told = [lease.id for lease in holders]
            log(
                events.GPU_XID,
                device=device,
                xid=event.xid,
                kind=kind.value,
                source=event.source.value,
                leases=told,
            )
            if kind is XidClass.USER_JOB:
                if holder is not None:
                    text = (
                        f"{verdict.reason} on {self._named(device)}: an error of the program that ran on it"
                    )
                    self._notes.tell(holder, text, now)
                owners = self._records.fault_owners(device, seconds=health.SUSPECT_SECONDS, now=now)
                verdict = health.of_faults(owners)
            self._carry_out(device, verdict, now)

    def _targets(self, event: XidEvent, kind: XidClass) -> tuple[DeviceUuid, ...]:
        """The MIG devices of the instance an error is of; else, or when it is of the GPU itself, the GPU."""
        parts = [
            device.uuid
            for device in self._read.devices.values()
            if device.parent == event.gpu
            and device.gpu_instance_id == event.gpu_instance_id
            and event.compute_instance_id in (None, device.compute_instance_id)
        ]
        if event.gpu_instance_id is None or kind is XidClass.DEVICE or not parts:
            return (event.gpu,)
        return tuple(parts)

    def _judge(self, device: Device, now: Moment) -> None:
        """Carry out what this look has against a GPU, once for as long as it has it: a person may know better."""
        verdict = max(health.of_device(device), self._of_errors(device, now), key=health.rank)
        if verdict.fitness not in _HELD_BACK:
            self._slow(device.uuid, verdict)
            if device.error is None and device.silent_seconds is None:
                self._standing[device.uuid] = None
            return
        if device.uuid not in self._standing:
            self._standing[device.uuid] = self._records.released_here(device.uuid, now.boot_id)
        if self._standing[device.uuid] != verdict.text:
            self._carry_out(device.uuid, verdict, now)
            self._standing[device.uuid] = verdict.text

    def _of_errors(self, device: Device, now: Moment) -> Verdict:
        if device.error is None or nvml_codes.action(device.error) is not Action.COUNT:
            self._errors.pop(device.uuid, None)
            return health.FIT
        number, first = self._errors.get(device.uuid, (0, now))
        self._errors[device.uuid] = (number + 1, first)
        return health.of_errors(device.error, in_row=number + 1, seconds=now.seconds_since(first))

    def _carry_out(self, device: DeviceUuid, verdict: Verdict, now: Moment) -> None:
        if verdict.fitness is Fitness.SUSPECT and self._suspected.get(device) != verdict.text:
            self._suspected[device] = verdict.text
            log(events.GPU_SUSPECTED, device=device, problem=verdict.text)
        if verdict.fitness not in _HELD_BACK:
            return
        wanted = Quarantine(
            device=device,
            fitness=verdict.fitness,
            by=_ITSELF,
            automatic=True,
            why=verdict.text,
            began=now,
        )
        if self._records.quarantine(wanted):
            log(events.GPU_QUARANTINED, device=device, problem=f"{verdict.fitness}: {verdict.text}")

    def _slow(self, device: DeviceUuid, verdict: Verdict) -> None:
        if verdict.fitness is not Fitness.SUSPECT:
            self._slowed.pop(device, None)
        elif self._slowed.get(device) != verdict.text:
            self._slowed[device] = verdict.text
            log(events.GPU_SUSPECTED, device=device, problem=verdict.text)

    def _marked(self, device: Device, lasting: Mapping[DeviceUuid, Quarantine]) -> Device:
        if (obstacle := self.underway.obstacle(device)) is not None:
            state = max(device.state, DeviceState.UNUSABLE, key=_STRICTNESS.index)
            return replace(device, state=state, remark=obstacle, recovers=True)
        found = _of(device, lasting)
        if found is None:
            suspicion = self._suspected.get(device.uuid) or self._slowed.get(device.uuid)
            return replace(device, remark=device.remark or suspicion, recovers=health.is_hiccup(device))
        draining = found.fitness is Fitness.DRAIN
        state = DeviceState.DRAINING if draining else DeviceState.QUARANTINED
        state = max(device.state, state, key=_STRICTNESS.index)
        return replace(device, state=state, remark=found.why, recovers=False)

    def _tell_holders(self, leases: Collection[Lease], now: Moment) -> None:
        """One note for each lease of which a device is out of service or gone, about all such devices of it."""
        lasting = self._records.quarantines()
        for lease in leases:
            generations = lease.generations or (0,) * len(lease.devices)
            held = zip(lease.devices, generations, strict=True)
            told = [self._against(uuid, generation, lasting) for uuid, generation in held]
            if note := "; ".join(text for text in told if text is not None):
                self._notes.tell(lease, note, now)

    def _against(
        self, uuid: DeviceUuid, generation: int, lasting: Mapping[DeviceUuid, Quarantine]
    ) -> str | None:
        """What there is to tell the holder of a device; None: nothing."""
        found = self._found(uuid, lasting)
        if found is not None:
            return f"{self._named(uuid)} is out of service: {found.why}; {_what_of_it(found)}"
        if is_there(self._read, uuid, generation):
            return None
        seen = self._read.devices.get(uuid)
        gone = seen is None or seen.state is DeviceState.LOST
        what = "is gone" if gone else "was gone, and has come back as another"
        return f"{self._named(uuid)} {what}; it is lost to you"

    def _losses(self, leases: Collection[Lease]) -> Iterator[Change]:
        """Leases on a device that ds01 itself found unfit; what an admin takes out of service is not lost."""
        lasting = self._records.quarantines()
        for lease in leases:
            if lease.state is LeaseState.LOST:
                continue
            for uuid in lease.devices:
                found = self._found(uuid, lasting)
                if found is not None and _takes_away(found):
                    yield Change(lease=lease.id, state=LeaseState.LOST, why=f"device {uuid}: {found.why}")
                    break

    def _found(self, uuid: DeviceUuid, lasting: Mapping[DeviceUuid, Quarantine]) -> Quarantine | None:
        device = self._read.devices.get(uuid)
        return lasting.get(uuid) if device is None else _of(device, lasting)

    def _holds(self, lease: Lease, device: DeviceUuid) -> Iterator[bool]:
        """Whether each device of a lease is this one, or a part of it."""
        for uuid in lease.devices:
            seen = self._read.devices.get(uuid)
            yield uuid == device or (seen is not None and seen.parent == device)

    def _named(self, uuid: DeviceUuid) -> str:
        device = self._read.devices.get(uuid)
        if device is None:
            return f"device {uuid}"
        return f"{'GPU' if device.kind is DeviceKind.GPU else 'MIG device'} {device.index}"


def _of(device: Device, lasting: Mapping[DeviceUuid, Quarantine]) -> Quarantine | None:
    """The strictest that is on a device or on the GPU it is a part of."""
    found = [lasting[uuid] for uuid in (device.uuid, device.parent) if uuid is not None and uuid in lasting]
    return max(found, key=lambda one: one.fitness is Fitness.QUARANTINE, default=None)


def _what_of_it(found: Quarantine) -> str:
    """What a quarantine means to who holds the device."""
    if _takes_away(found):
        return "it is lost to you"
    if found.fitness is Fitness.QUARANTINE:
        return (
            "it is yours until you remove the container, which does not start again before the device is back"
        )
    return "it is yours until you remove the container"


def _takes_away(found: Quarantine) -> bool:
    return found.automatic and found.fitness is Fitness.QUARANTINE


def _shape(device: Device) -> str:
    """What may change behind one UUID: a MIG device's profile and place; "" where it is not known."""
    if device.profile_id is None or device.placement is None:
        return ""
    return f"{device.profile_id}@{device.placement.start}+{device.placement.size}"
