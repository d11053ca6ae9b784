"""Which devices a change of MIG keeps out of reach, and which a reboot took that are being made again.

INVARIANT: a GPU that a boot found otherwise than the ledger has it is leased to nobody, and what is missing of it is not judged,
until `settle`. What was made is leased to nobody before the CDI spec shows it. Both are known again after a crash.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from allocator.mig_journal import MigJournal, StepKind
from allocator.mig_record import MigRecord, seen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from allocator.ledger import Ledger
    from allocator.mig_journal import Place
    from allocator.mig_record import PastPartition
    from allocator.model import Device, Snapshot
    from policy.model import DeviceUuid


class Underway:
    """Made at the start, from the ledger. Raises from what reads or writes it: LedgerUnavailable."""

    def __init__(self, ledger: Ledger, boot_id: str) -> None:
        self._record = MigRecord(ledger)
        self._boot_id = boot_id
        journal = MigJournal(ledger)
        unfinished = journal.unfinished()
        steps = (*unfinished, *journal.unwritten())
        self._devices = frozenset(device for step in steps for device in step.devices)
        self._places = frozenset(step.place for step in steps if step.place is not None)
        removed = {(step.gpu, step.start) for step in unfinished if step.kind is StepKind.DESTROY}
        past = self._record.of_other_boots(boot_id)
        self._past = {gpu: _without(removed, one) for gpu, one in past.items()}
        self._awaited = _devices(*self._past.values())

    @property
    def awaited(self) -> frozenset[DeviceUuid]:
        """MIG devices that no look of this boot has seen yet, and that may be made again."""
        return self._awaited

    def before_reboot(self) -> tuple[PastPartition, ...]:
        """The GPUs that are not settled since the machine has booted, as they were before. From any thread."""
        return tuple(self._past.values())

    def withhold(self, devices: Collection[DeviceUuid], place: Place | None = None) -> None:
        """These, parts of these, and what stands at a place, are nobody's from now on. From any thread."""
        self._devices |= set(devices)
        self._places |= set() if place is None else {place}

    def give_back(self, devices: Collection[DeviceUuid], places: Collection[Place] = ()) -> None:
        """They may be leased again. From any thread."""
        self._devices -= set(devices)
        self._places -= set(places)

    def obstacle(self, device: Device) -> str | None:
        """Why a device is nobody's now; None: nothing here keeps it from being leased. From any thread."""
        if device.gpu in self._past:
            return "its GPU is being split as it was before the reboot"
        if device.uuid in self._devices or device.parent in self._devices:
            return "its GPU is being split anew"
        return "it is new, and waits for the CDI spec" if self._is_new(device) else None

    def _is_new(self, device: Device) -> bool:
        if device.placement is None:  # unknown is never free
            return any(gpu == device.parent for gpu, _ in self._places)
        return (device.gpu, device.placement.start) in self._places

    def learn(self, read: Snapshot) -> None:
        """Take in a look: what is there is not awaited any more, and how each settled GPU is split is written down.

        What was there in this boot and has gone is not made again: somebody meant it, though the rest of its GPU still waits.
        """
        found = tuple(seen(read))
        gone = {place for one in found if one.gpu in self._past for place in self._vanished(one.gpu, read)}
        if gone:
            self._record.forget(gone)
            self._past = {gpu: _without(gone, one) for gpu, one in self._past.items()}
        self._awaited -= read.devices.keys()
        self._record.write([one for one in found if one.gpu not in self._past], self._boot_id)

    def _vanished(self, gpu: DeviceUuid, read: Snapshot) -> Iterator[Place]:
        for item in self._past[gpu].instances:
            if self._awaited.isdisjoint(item.devices) and not read.devices.keys() >= set(item.devices):
                yield gpu, item.start

    def settle(self, gpu: DeviceUuid, read: Snapshot) -> None:
        """From the next look on, what is missing of a GPU has gone. Args: read: the last look."""
        before = self._past[gpu]
        left = tuple(item for item in before.instances if read.devices.keys() >= set(item.devices))
        self._record.write([replace(before, instances=left)], self._boot_id)
        self._past = {uuid: one for uuid, one in self._past.items() if uuid != gpu}
        self._awaited -= _devices(before)


def _without(removed: Collection[tuple[DeviceUuid, int | None]], past: PastPartition) -> PastPartition:
    """What somebody has destroyed, or had begun to, is not made again."""
    left = tuple(item for item in past.instances if (past.gpu, item.start) not in removed)
    return replace(past, instances=left)


def _devices(*partitions: PastPartition) -> frozenset[DeviceUuid]:
    return frozenset(device for one in partitions for item in one.instances for device in item.devices)
