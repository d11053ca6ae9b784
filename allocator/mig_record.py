"""How each GPU was split when a look last found it in good order, kept in the ledger: a boot makes again what it took."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from allocator.model import DeviceKind, DeviceState
from policy.model import DeviceUuid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from allocator.ledger import Ledger
    from allocator.mig_journal import Place
    from allocator.model import Device, Snapshot

_IN_GOOD_ORDER = frozenset({DeviceState.OK, DeviceState.UNUSABLE})


@dataclass(frozen=True, slots=True, kw_only=True)
class PastInstance:
    """A GPU instance that held MIG devices. `number`: the id of its profile; start, size: in memory slices."""

    start: int
    size: int
    profile: str
    number: int
    devices: tuple[DeviceUuid, ...]  # sorted, at least one


@dataclass(frozen=True, slots=True, kw_only=True)
class PastPartition:
    """One GPU that can do MIG. `enabled`: whether MIG mode was to be on after a reset."""

    gpu: DeviceUuid
    enabled: bool
    instances: tuple[PastInstance, ...]  # by start


class MigRecord:
    """The table `mig_instances`. Every method is one transaction. Raises from all: LedgerUnavailable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def of_other_boots(self, boot_id: str) -> Mapping[DeviceUuid, PastPartition]:
        """By GPU, what was seen last, where that was before this boot."""
        return _by_gpu(self._ledger.read(f"{_SELECT} WHERE boot_id <> ? {_ORDER}", boot_id))

    def write(self, seen: Collection[PastPartition], boot_id: str) -> None:
        """Each of these GPUs is split so now; nothing is written of one that was before."""
        rows = self._ledger.read(f"{_SELECT} WHERE boot_id = ? {_ORDER}", boot_id)
        known = _by_gpu(rows)
        others = self.of_other_boots(boot_id)
        changed = [one for one in seen if one.gpu in others or _differs(known.get(one.gpu), one)]
        if not changed:
            return
        with self._ledger.transaction() as base:
            base.executemany("DELETE FROM mig_instances WHERE gpu = ?", [(one.gpu,) for one in changed])
            base.executemany(
                f"INSERT INTO mig_instances ({_COLUMNS}, boot_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608  constants
                [(*_row(one, item), boot_id) for one in changed for item in one.instances],
            )

    def forget(self, places: Collection[Place]) -> None:
        """What was at these places is not to be made again."""
        with self._ledger.transaction() as base:
            base.executemany("DELETE FROM mig_instances WHERE gpu = ? AND start = ?", list(places))


_COLUMNS = "gpu, enabled, start, size, profile, number, devices"
_SELECT = f"SELECT {_COLUMNS} FROM mig_instances"  # noqa: S608  constants
_ORDER = "ORDER BY gpu, start"


def seen(read: Snapshot) -> Iterator[PastPartition]:
    """The GPUs that can do MIG, as a look has them; none that did not answer, or of whose parts not every place is told."""
    for gpu in read.devices.values():
        if gpu.kind is not DeviceKind.GPU or gpu.mig_mode is None or not _is_fresh(gpu):
            continue
        parts = [one for one in read.devices.values() if one.parent == gpu.uuid]
        placed = [place for one in parts if (place := _placed(one)) is not None]
        if len(placed) == len(parts):
            instances = tuple(_instances(placed))
            yield PastPartition(gpu=gpu.uuid, enabled=gpu.mig_mode.pending, instances=instances)


def _is_fresh(gpu: Device) -> bool:
    return gpu.state in _IN_GOOD_ORDER and gpu.error is None and gpu.silent_seconds is None


_Placed = tuple[int, int, str, int, DeviceUuid]  # start, size, profile, its id, device


def _placed(part: Device) -> _Placed | None:
    if part.placement is None or part.profile_id is None:
        return None
    return part.placement.start, part.placement.size, part.profile, part.profile_id, part.uuid


def _instances(placed: Collection[_Placed]) -> Iterator[PastInstance]:
    for start, group in groupby(sorted(placed), key=lambda one: one[0]):
        of_one = list(group)
        _, size, profile, number, _ = of_one[0]
        devices = tuple(sorted(one[4] for one in of_one))
        yield PastInstance(start=start, size=size, profile=profile, number=number, devices=devices)


def _differs(known: PastPartition | None, one: PastPartition) -> bool:
    return bool(one.instances) if known is None else known != one


def _row(one: PastPartition, item: PastInstance) -> tuple[str | int, ...]:
    return (
        *(one.gpu, int(one.enabled), item.start, item.size, item.profile, item.number),
        " ".join(item.devices),
    )


def _by_gpu(rows: list[tuple[str, int, int, int, str, int, str]]) -> dict[DeviceUuid, PastPartition]:
    found = {}
    for name, group in groupby(rows, key=lambda row: row[0]):
        of_one = list(group)
        instances = tuple(
            PastInstance(
                start=start,
                size=size,
                profile=profile,
                number=number,
                devices=tuple(map(DeviceUuid, devices.split())),
            )
            for _, _, start, size, profile, number, devices in of_one
        )
        gpu = DeviceUuid(name)
        found[gpu] = PastPartition(gpu=gpu, enabled=bool(of_one[0][1]), instances=instances)
    return found
