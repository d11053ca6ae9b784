"""The steps of a change of MIG: each is written before it is tried, so that a crash leaves at most one half done, and it is found."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from allocator.mig import Create, Destroy, SetMode
from allocator.mig_driver import IN_USE, MigRefused
from allocator.mig_journal import Entry, StepKind, StepState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from allocator.mig import MigProfile, Partition, Step
    from policy.model import DeviceUuid


class Driver(Protocol):
    """`allocator.mig_driver.MigDriver`."""

    async def partitions(self) -> tuple[Partition, ...]: ...
    async def create(self, gpu: DeviceUuid, profile: MigProfile, start: int) -> int: ...
    async def destroy(self, gpu: DeviceUuid, number: int) -> None: ...
    async def complete(self, gpu: DeviceUuid, number: int) -> None: ...
    async def set_mode(self, gpu: DeviceUuid, *, enabled: bool) -> bool: ...


class Journal(Protocol):
    """`allocator.mig_journal.MigJournal`, with the writer's thread and clock."""

    async def intend(self, entry: Entry) -> int: ...
    async def end(self, number: int, state: StepState, why: str = "") -> None: ...
    async def unfinished(self) -> tuple[Entry, ...]: ...
    async def unwritten(self) -> tuple[Entry, ...]: ...
    async def wrote_spec(self) -> None: ...


class Steps:
    """Takes steps, and finishes those that were cut short. Who may be on a device is the caller's to know."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        quiesced: Callable[[], AbstractAsyncContextManager[None]],
        clients: Callable[[DeviceUuid, int | None], Awaitable[str]],
    ) -> None:
        """Args:

        quiesced: while it is open there is no NVML session of our own: one would be in the way of a change of mode.
        clients: who has a GPU, or an instance of it, open, and what to do; asked where NVML says that somebody has.
        """
        self._driver = driver
        self._journal = journal
        self._quiesced = quiesced
        self._clients = clients

    async def take(self, step: Step, entry: Entry) -> None:
        """Write, do, write. Args: entry: of `entry_of`.

        Raises: MigRefused: it was not done. InventoryUnavailable: nobody knows, and it stays INTENDED.
        """
        number = await self._journal.intend(entry)
        try:
            await self._do(step)
        except MigRefused as error:
            told = await self._with_clients(error, entry)
            await self._journal.end(number, StepState.FAILED, str(told))
            raise told from error
        await self._journal.end(number, StepState.DONE)

    async def finish(self, entry: Entry) -> Entry:
        """Find out what became of a step without an end, and end it. Raises: MigRefused, InventoryUnavailable: it cannot be told."""
        there = await self._driver.partitions()
        state, why = await self._finish(entry, next((one for one in there if one.gpu == entry.gpu), None))
        await self._journal.end(entry.number, state, why)
        return replace(entry, state=state, why=why)

    async def _with_clients(self, error: MigRefused, entry: Entry) -> MigRefused:
        if error.code != IN_USE:
            return error
        return MigRefused(f"{error}; {await self._clients(entry.gpu, entry.instance)}", error.code)

    async def _do(self, step: Step) -> None:
        match step:
            case Destroy(gpu=gpu, instance=instance):
                await self._driver.destroy(gpu, instance.number)
            case Create(gpu=gpu, profile=profile, start=start):
                await self._driver.create(gpu, profile, start)
            case SetMode(gpu=gpu, enabled=enabled):
                async with self._quiesced():
                    await self._driver.set_mode(gpu, enabled=enabled)

    async def _finish(self, entry: Entry, partition: Partition | None) -> tuple[StepState, str]:
        if partition is None:
            return StepState.ABANDONED, "the GPU is not there"
        match entry.kind:
            case StepKind.DESTROY:
                return await self._finish_destroy(entry, partition)
            case StepKind.CREATE:
                made = next((item for item in partition.instances if item.start == entry.start), None)
                if made is None or made.profile != entry.profile:
                    return StepState.ABANDONED, "it had not begun"
                await self._driver.complete(entry.gpu, made.number)
                return StepState.DONE, "finished after a restart"
            case StepKind.SET_MODE:
                if partition.mig_pending is entry.enabled:
                    return StepState.DONE, "it had been done"
                return StepState.ABANDONED, "it had not begun"

    async def _finish_destroy(self, entry: Entry, partition: Partition) -> tuple[StepState, str]:
        """An instance without its devices is half destroyed; one with them was not begun, or is another by now."""
        left = next((item for item in partition.instances if item.number == entry.instance), None)
        if left is None:
            return StepState.DONE, "it had been done"
        if left.devices:
            return StepState.ABANDONED, "it had not begun"
        await self._driver.destroy(entry.gpu, left.number)
        return StepState.DONE, "finished after a restart"


def entry_of(step: Step, who: str) -> Entry:
    """What is written of a step before it is tried."""
    match step:
        case Destroy(gpu=gpu, instance=instance):
            return Entry(
                kind=StepKind.DESTROY,
                gpu=gpu,
                profile=instance.profile,
                instance=instance.number,
                start=instance.start,
                devices=instance.devices,
                who=who,
            )
        case Create(gpu=gpu, profile=profile, start=start):
            return Entry(kind=StepKind.CREATE, gpu=gpu, profile=profile.name, start=start, who=who)
        case SetMode(gpu=gpu, enabled=enabled):
            return Entry(kind=StepKind.SET_MODE, gpu=gpu, enabled=enabled, devices=(gpu,), who=who)
