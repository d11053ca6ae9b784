"""Devices whose processes a look could not list: what runs there is not known, which is neither "nothing" nor "ended"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from allocator.model import Device, Moment, Snapshot
    from policy.model import DeviceUuid


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlisted:
    """A device, and why its processes are not known.

    device: None: a GPU that never said its UUID.
    index: as nvidia-smi counts; of a device that no look has now, the one that it had.
    listed: the last look that listed its processes, which still stand as they were then; None: none did.
    """

    device: DeviceUuid | None
    index: str
    why: str
    listed: Moment | None


class Listings:
    """When the processes of each device were listed last."""

    def __init__(self) -> None:
        """No look was taken in yet."""
        self._last: dict[DeviceUuid, tuple[str, Moment]] = {}  # with the index that it had

    def take_in(self, snapshot: Snapshot, at: Moment) -> tuple[Unlisted, ...]:
        """Those that a look of this moment could not list, in nvidia-smi's order."""
        self._forget_gone(snapshot)
        for device in snapshot.devices.values():
            if device.processes is not None:
                self._last[device.uuid] = (device.index, at)
        found = (*self._silent(snapshot), *self._missing(snapshot))
        return tuple(sorted(found, key=lambda one: [int(part) for part in one.index.split(":")]))

    def _forget_gone(self, snapshot: Snapshot) -> None:
        if snapshot.complete:
            self._last = {uuid: known for uuid, known in self._last.items() if uuid in snapshot.devices}

    def _silent(self, snapshot: Snapshot) -> Iterator[Unlisted]:
        """Devices of the look that did not tell their processes."""
        for device in snapshot.devices.values():
            if device.processes is None:
                _, listed = self._last.get(device.uuid, ("", None))
                yield Unlisted(device=device.uuid, index=device.index, why=_why(device), listed=listed)

    def _missing(self, snapshot: Snapshot) -> Iterator[Unlisted]:
        """GPUs that did not even say which they are, with the devices that earlier looks found at their indices."""
        left = dict(snapshot.unidentified)
        for uuid, (index, listed) in self._last.items():
            if uuid not in snapshot.devices:
                gpu, _, _ = index.partition(":")
                why = snapshot.unidentified.get(gpu, "it was not found")
                left.pop(gpu, None)
                yield Unlisted(device=uuid, index=index, why=why, listed=listed)
        for index, why in left.items():
            yield Unlisted(device=None, index=index, why=why, listed=None)


def _why(device: Device) -> str:
    if device.silent_seconds is not None:
        return f"it has not answered for {device.silent_seconds:.0f} s"
    if device.error is not None:
        return device.remark or f"NVML error {device.error}"
    return "NVML does not list its processes"
