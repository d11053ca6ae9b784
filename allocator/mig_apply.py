"""Carrying out plans for MIG: one GPU at a time, every step written before it is tried, devices out of reach meanwhile.

A crash leaves at most one step half done; `resume` finishes it or finds that it had not begun.
INVARIANT: a device is destroyed only between `withhold`, which fails if anybody holds it, and `give_back`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from allocator.mig import Create, Destroy, SetMode
from allocator.mig_driver import MigRefused
from allocator.mig_journal import Entry, StepKind, StepState
from allocator.mig_plan import plan
from allocator.model import InventoryUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from allocator.mig import Layout, MigProfile, Partition, Plan, Step
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


class Devices(Protocol):
    """Who holds what, and keeping devices from being leased."""

    async def holders(self) -> Mapping[DeviceUuid, tuple[str, ...]]:
        """Sentences for each device that a lease, a container (stopped ones too) or a process refers to."""

    async def withhold(self, devices: Collection[DeviceUuid]) -> tuple[str, ...]:
        """Let nobody lease them from now on. Returns: who holds one of them; then nothing is withheld."""

    async def give_back(self, devices: Collection[DeviceUuid]) -> None:
        """They may be leased again, if they are there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one GPU's plan.

    problem: why it stopped before its end; None when every step was done.
    waits_for_reset: the mode is switched, and in force only after a reset of the GPU.
    """

    plan: Plan
    done: int = 0
    problem: str | None = None
    waits_for_reset: bool = False


class Repartition:
    """Plans and changes the partitions of the machine's GPUs."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        devices: Devices,
        quiesce: Callable[[], Awaitable[None]],
        regenerate: Callable[[], Awaitable[None]],
    ) -> None:
        """Change nothing yet.

        Args:
            quiesce: end our own NVML session: an open one is in the way of a change of mode. The next look starts another.
            regenerate: have the CDI spec written again. NVIDIA's own refresh does not watch MIG.
        """
        self._driver = driver
        self._journal = journal
        self._devices = devices
        self._quiesce = quiesce
        self._regenerate = regenerate
        self._one = asyncio.Lock()  # one change at a time on this machine

    async def partitions(self) -> tuple[Partition, ...]:
        """Every GPU that can do MIG, with who holds what. Raises: as `plans`."""
        holders = await self._devices.holders()
        return tuple(_held(item, holders) for item in await self._driver.partitions())

    async def plans(self, layouts: Mapping[DeviceUuid, Layout]) -> tuple[Plan, ...]:
        """What `apply` would do now. Raises: LayoutInvalid, MigRefused, InventoryUnavailable, LedgerUnavailable."""
        found = await self.partitions()
        return tuple(plan(item, layouts[item.gpu]) for item in found if item.gpu in layouts)

    async def apply(self, layouts: Mapping[DeviceUuid, Layout], *, who: str) -> tuple[Outcome, ...]:
        """Plan anew and do it; what stands in the way on one GPU does not stop another's. Raises: as `plans`."""
        async with self._one:
            await self._finish_unfinished()
            outcomes = [await self._carry_out(item, who) for item in await self.plans(layouts)]
            if any(outcome.done for outcome in outcomes):
                await self._regenerate()
            return tuple(outcomes)

    async def resume(self) -> tuple[Entry, ...]:
        """After a start: finish what was cut short. Returns: the steps, as they ended. Raises: as `plans`."""
        async with self._one:
            ended = await self._finish_unfinished()
            if ended:
                await self._regenerate()
            return ended

    async def _carry_out(self, item: Plan, who: str) -> Outcome:
        outcome = Outcome(plan=item)
        for step in item.steps:
            try:
                problem = await self._step(step, who)
            except (MigRefused, InventoryUnavailable) as error:
                problem = str(error)
            if problem is not None:
                return replace(outcome, problem=problem)
            outcome = replace(outcome, done=outcome.done + 1)
        waits = bool(item.steps) and isinstance(item.steps[-1], SetMode) and await self._waits(item)
        return replace(outcome, waits_for_reset=waits)

    async def _waits(self, item: Plan) -> bool:
        found = {each.gpu: each for each in await self._driver.partitions()}
        return item.gpu in found and found[item.gpu].mig_now is not found[item.gpu].mig_pending

    async def _step(self, step: Step, who: str) -> str | None:
        """Withhold, write, do, write, give back. Returns: who is in the way."""
        entry = _entry(step, who)
        held = await self._devices.withhold(entry.devices)
        if held:
            return f"{held[0]} came in between; plan again"
        number = await self._journal.intend(entry)
        try:
            await self._do(step)
        except MigRefused as error:
            await self._journal.end(number, StepState.FAILED, str(error))
            await self._devices.give_back(entry.devices)
            raise
        # Without an answer in time nobody knows whether it was done: it stays INTENDED, and its devices out of reach.
        await self._journal.end(number, StepState.DONE)
        await self._devices.give_back(entry.devices)
        return None

    async def _do(self, step: Step) -> None:
        match step:
            case Destroy(gpu=gpu, instance=instance):
                await self._driver.destroy(gpu, instance.number)
            case Create(gpu=gpu, profile=profile, start=start):
                await self._driver.create(gpu, profile, start)
            case SetMode(gpu=gpu, enabled=enabled):
                await self._quiesce()
                await self._driver.set_mode(gpu, enabled=enabled)

    async def _finish_unfinished(self) -> tuple[Entry, ...]:
        unfinished = await self._journal.unfinished()
        if not unfinished:
            return ()
        ended = []
        for entry in unfinished:
            await self._devices.withhold(entry.devices)  # a holder is told below: the step is not begun again
            partition = next(
                (item for item in await self._driver.partitions() if item.gpu == entry.gpu), None
            )
            state, why = await self._finish(entry, partition)
            await self._journal.end(entry.number, state, why)
            await self._devices.give_back(entry.devices)
            ended.append(replace(entry, state=state, why=why))
        return tuple(ended)

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


def _held(partition: Partition, holders: Mapping[DeviceUuid, tuple[str, ...]]) -> Partition:
    """The partition with who holds what; a holder of the GPU itself holds every instance of it."""
    whole = holders.get(partition.gpu, ())
    instances = tuple(
        replace(
            item, holders=(*whole, *(said for device in item.devices for said in holders.get(device, ())))
        )
        for item in partition.instances
    )
    everyone = (*whole, *(said for item in instances for said in item.holders if said not in whole))
    return replace(partition, instances=instances, holders=everyone)


def _entry(step: Step, who: str) -> Entry:
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
