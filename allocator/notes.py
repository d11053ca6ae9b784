"""What holders of leases were told of their devices: one note a lease, in the ledger, until the lease is over.

Not for two threads at once, `of` excepted; every other method may raise LedgerUnavailable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from allocator.health import SILENT_SECONDS
from allocator.model import LeaseState
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Collection

    from allocator.device_records import DeviceRecords
    from allocator.model import Lease, Moment, Snapshot
    from policy.model import DeviceUuid, LeaseId

# Without names: a note is known again after a restart, when nothing is known of the devices yet.
_SILENT: Final = (
    f"the NVIDIA driver has not answered for your devices for {SILENT_SECONDS} seconds or more;"
    " they are yours until you remove the container"
)
_ANSWERS: Final = "the NVIDIA driver answers for your devices again"


class Notes:
    """The last note of each live lease."""

    def __init__(self, records: DeviceRecords) -> None:
        self._records = records
        self._notes = dict(records.notes())
        self._hidden: dict[DeviceUuid, Moment] = {}  # leased, and since when no look could say of it anything

    def of(self, lease: LeaseId) -> str | None:
        """What the holder of a live lease was told last. From any thread."""
        return self._notes.get(lease)

    def keep(self, leases: Collection[Lease]) -> None:
        """Forget those of leases that are over. Args: leases: all live ones."""
        over = self._notes.keys() - {lease.id for lease in leases}
        if over:
            self._records.forget_notes(over)
            self._notes = {lease: note for lease, note in self._notes.items() if lease not in over}

    def tell(self, lease: Lease, note: str, now: Moment) -> None:
        """Leave a note, once."""
        if self._notes.get(lease.id) == note:
            return
        self._records.tell(lease.id, note, now)
        self._notes[lease.id] = note
        log(events.HOLDER_TOLD, lease=lease.id, uid=lease.owner_uid, note=note)

    def tell_silence(self, leases: Collection[Lease], now: Moment) -> None:
        """The driver has answered nothing for `SILENT_SECONDS`."""
        for lease in leases:
            self._tell_silent(lease, now)

    def tell_hidden(self, leases: Collection[Lease], seen: Snapshot, now: Moment) -> None:
        """After a look: tell who holds what a silent GPU hides, and whose driver answers again."""
        hidden = {
            uuid
            for lease in leases
            for uuid in lease.devices
            if uuid not in seen.devices and not seen.complete
        }
        self._hidden = {uuid: self._hidden.get(uuid, now) for uuid in hidden}
        for lease in leases:
            spans = [now.seconds_since(self._hidden[uuid]) for uuid in lease.devices if uuid in hidden]
            if max(spans, default=0) >= SILENT_SECONDS:
                self._tell_silent(lease, now)
            elif not spans and self._notes.get(lease.id) == _SILENT:
                self.tell(lease, _ANSWERS, now)

    def _tell_silent(self, lease: Lease, now: Moment) -> None:
        # Who has lost a device was told why, and is not to read that it is still theirs.
        if lease.devices and lease.state is not LeaseState.LOST:
            self.tell(lease, _SILENT, now)
