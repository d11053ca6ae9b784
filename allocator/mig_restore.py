"""After a reboot: the GPU instances that it took are made again at their places, where their devices get the UUIDs they had.

An A100 keeps MIG mode over a reboot and loses the instances; Hopper loses both. Nobody could have had an instance in between, so
that its device is the same one for its holder (ADR 0022). What was destroyed within a boot is not made again.
Run again after a crash it finds what it made before, and goes on. SOURCE: NVIDIA's MIG user guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from allocator import nvml_codes
from allocator.mig import Create, SetMode
from allocator.mig_driver import MigRefused
from allocator.mig_steps import entry_of
from allocator.model import InventoryUnavailable
from allocator.nvml_codes import Action
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from allocator.mig import GpuInstance, MigProfile, Partition, Step
    from allocator.mig_journal import Place
    from allocator.mig_record import PastInstance, PastPartition
    from allocator.mig_steps import Driver, Steps
    from policy.model import DeviceUuid

_WHO: Final = "ds01, after a reboot"
_FOR_GOOD: Final = frozenset({Action.CLASH, Action.GAP, Action.UNKNOWN_VALUE})  # other refusals may pass


class Past(Protocol):
    """What was there before the reboot: `allocator.withheld.WithheldDevices`."""

    def before_reboot(self) -> Sequence[PastPartition]:
        """The GPUs that are not settled; nobody is given a part of them."""

    async def withhold(self, devices: Collection[DeviceUuid], place: Place | None = None) -> object:
        """Let nobody lease what is made at a place, until the CDI spec shows it."""

    async def settle(self, gpu: DeviceUuid, restored: Collection[DeviceUuid]) -> None:
        """What is missing has gone. Raises: InventoryUnavailable: what was restored is not seen yet."""


class _Impossible(Exception):  # noqa: N818  the name says what is wrong
    """It cannot be made again; the message says why."""


class Restoration:
    """Makes instances again. Not for two at once."""

    def __init__(self, *, driver: Driver, steps: Steps, past: Past) -> None:
        self._driver = driver
        self._steps = steps
        self._past = past

    async def run(self) -> None:
        """Every GPU that a boot found otherwise than it was.

        Raises: MigRefused, InventoryUnavailable: of one it cannot be told yet. It stays as it is; the others are settled.
        """
        problem: MigRefused | InventoryUnavailable | None = None
        for before in self._past.before_reboot():
            try:
                await self._restore(before)
            except (MigRefused, InventoryUnavailable) as error:
                problem = problem or error
        if problem is not None:
            raise problem

    async def _restore(self, before: PastPartition) -> None:
        gone = await self._make(before)
        back = [item for item in before.instances if item.start not in gone]
        await self._past.settle(before.gpu, [device for item in back for device in item.devices])
        for item in before.instances:
            told = {"device": before.gpu, "profile": item.profile, "start": item.start}
            if item in back:
                log(events.MIG_INSTANCE_RESTORED, **told)
            else:
                log(events.MIG_INSTANCE_LOST, **told, problem=gone[item.start])

    async def _make(self, before: PastPartition) -> dict[int, str]:
        """Returns: by start, why an instance is not there again."""
        try:
            partition = await self._in_mig_mode(before)
            tried = [await self._make_one(item, partition) for item in before.instances]
            partition = await self._partition(before.gpu)
        except _Impossible as error:
            return dict.fromkeys((item.start for item in before.instances), str(error))
        found = zip(before.instances, tried, strict=True)
        why = {item.start: problem or _differs(item, partition) for item, problem in found}
        return {start: problem for start, problem in why.items() if problem is not None}

    async def _partition(self, gpu: DeviceUuid) -> Partition:
        found = next((one for one in await self._driver.partitions() if one.gpu == gpu), None)
        if found is None:
            raise _Impossible("the GPU is not there, or cannot do MIG")
        return found

    async def _in_mig_mode(self, before: PastPartition) -> Partition:
        found = await self._partition(before.gpu)
        if found.mig_now:
            return found
        if not before.enabled:
            raise _Impossible("MIG mode was to be off after a reset")
        if not found.mig_pending:
            await self._take(SetMode(gpu=before.gpu, enabled=True))
            found = await self._partition(before.gpu)
        if not found.mig_now:
            raise _Impossible("MIG mode is on only after a reset of the GPU; then: ds01 gpu mig apply")
        return found

    async def _make_one(self, item: PastInstance, partition: Partition) -> str | None:
        """Unless it is there. Returns: why it cannot be made."""
        if _found(item, partition) is not None:
            return None
        try:
            profile = _profile(item, partition)
            await self._past.withhold((), (partition.gpu, item.start))
            await self._take(Create(gpu=partition.gpu, profile=profile, start=item.start))
        except _Impossible as error:
            return str(error)
        return None

    async def _take(self, step: Step) -> None:
        try:
            await self._steps.take(step, entry_of(step, _WHO))
        except MigRefused as error:
            if nvml_codes.action(error.code) in _FOR_GOOD:
                raise _Impossible(str(error)) from error
            raise


def _found(item: PastInstance, partition: Partition) -> GpuInstance | None:
    same = (one for one in partition.instances if (one.start, one.profile) == (item.start, item.profile))
    return next(same, None)


def _profile(item: PastInstance, partition: Partition) -> MigProfile:
    """What it is made of. Raises: _Impossible: it is not to be had at its place."""
    if len(item.devices) != 1:
        raise _Impossible("it was divided into several compute instances; make it by hand")
    for one in partition.instances:
        if one.start < item.start + item.size and item.start < one.start + one.size:
            raise _Impossible(f"{one.profile} at {one.start} is in its place")
    wanted = (item.profile, item.number, item.size)
    for profile in partition.profiles:
        if (profile.name, profile.number, profile.size) == wanted and item.start in profile.starts:
            return profile
    raise _Impossible(f"this GPU offers no GPU instance {item.profile} at {item.start}")


def _differs(item: PastInstance, partition: Partition) -> str | None:
    """Why an instance is not what it was; None: it is."""
    found = _found(item, partition)
    if found is None:
        return "it is not there"
    if set(found.devices) == set(item.devices):
        return None
    return f"it came back with other devices: {', '.join(found.devices) or 'none'}"
