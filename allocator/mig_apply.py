"""Carrying out plans for MIG: one GPU at a time, every step written before it is tried, devices out of reach meanwhile.

A crash leaves at most one step half done; `resume` finishes it or finds that it had not begun.
INVARIANT: a device is destroyed only between `withhold`, which fails if anybody holds it, and `give_back`. What was made, or
destroyed, is given back only when the CDI spec was written after it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from allocator.finishing import Finishing
from allocator.mig import SetMode
from allocator.mig_driver import MigRefused
from allocator.mig_journal import StepState
from allocator.mig_plan import plan
from allocator.mig_restore import Restoration
from allocator.mig_steps import Steps, entry_of
from allocator.model import InventoryUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
    from contextlib import AbstractAsyncContextManager

    from allocator.mig import Layout, Partition, Plan, Step
    from allocator.mig_journal import Entry, Place
    from allocator.mig_restore import Past
    from allocator.mig_steps import Driver, Journal
    from policy.model import DeviceUuid


class Devices(Protocol):
    """Who holds what, and keeping devices from being leased: `allocator.withheld.WithheldDevices`."""

    async def holders(self) -> Mapping[DeviceUuid, tuple[str, ...]]:
        """Sentences for each device that a lease, a container (stopped ones too) or a process refers to."""

    async def withhold(self, devices: Collection[DeviceUuid], place: Place | None = None) -> tuple[str, ...]:
        """Let nobody lease them, nor what is made at a place, from now on. Returns: who holds one of them; then nothing is withheld."""

    async def give_back(self, devices: Collection[DeviceUuid], places: Collection[Place] = ()) -> None:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What became of each GPU's plan. `cdi_problem`: why the CDI spec does not show it yet; None: it does."""

    outcomes: tuple[Outcome, ...]
    cdi_problem: str | None


class Repartition:
    """Plans and changes the partitions of the machine's GPUs."""

    def __init__(
        self,
        *,
        driver: Driver,
        journal: Journal,
        devices: Devices,
        past: Past,
        quiesced: Callable[[], AbstractAsyncContextManager[None]],
        clients: Callable[[DeviceUuid, int | None], Awaitable[str]],
        regenerate: Callable[[], Awaitable[str | None]],
    ) -> None:
        """Change nothing yet.

        Args:
            quiesced, clients: as in `Steps`.
            regenerate: have the CDI spec written again, and say what went wrong. NVIDIA's own refresh does not watch MIG.
        """
        self._driver = driver
        self._journal = journal
        self._devices = devices
        self._steps = Steps(driver=driver, journal=journal, quiesced=quiesced, clients=clients)
        self._restoration = Restoration(driver=driver, steps=self._steps, past=past)
        self._regenerate = regenerate
        self._one = asyncio.Lock()
        self._work = Finishing()
        self._ends = False

    async def partitions(self) -> tuple[Partition, ...]:
        """Every GPU that can do MIG, with who holds what. Raises: as `plans`."""
        holders = await self._devices.holders()
        return tuple(_held(item, holders) for item in await self._driver.partitions())

    async def plans(self, layouts: Mapping[DeviceUuid, Layout]) -> tuple[Plan, ...]:
        """What `apply` would do now. Raises: LayoutInvalid, MigRefused, InventoryUnavailable, LedgerUnavailable."""
        found = await self.partitions()
        return tuple(plan(item, layouts[item.gpu]) for item in found if item.gpu in layouts)

    async def apply(self, layouts: Mapping[DeviceUuid, Layout], *, who: str) -> Applied:
        """Plan anew and do it; what stands in the way on one GPU does not stop another's. Raises: as `plans`.

        Once begun it goes on, whatever becomes of the caller.
        """
        return await self._work.finish(self._apply(layouts, who))

    async def resume(self) -> tuple[Entry, ...]:
        """Go on with what was cut short, by a crash or a driver that did not answer, and with what a reboot took.

        To be called at the start and now and then; where nothing is left it asks the ledger alone.
        Returns: the steps that were cut short, as they ended. Raises: as `plans`; the next call tries again.
        """
        return await self._work.finish(self._resume())

    async def close(self) -> None:
        """End after the step that is under way; `resume` goes on after the next start."""
        self._ends = True
        await self._work.wait()

    async def _apply(self, layouts: Mapping[DeviceUuid, Layout], who: str) -> Applied:
        async with self._turn():
            await self._catch_up()
            outcomes = [await self._carry_out(item, who) for item in await self.plans(layouts)]
            return Applied(outcomes=tuple(outcomes), cdi_problem=await self._write_spec())

    async def _resume(self) -> tuple[Entry, ...]:
        async with self._turn():
            try:
                return await self._catch_up()
            finally:  # what was done on one GPU does not wait for another that does not answer
                await self._write_spec()

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """One change at a time. Raises: InventoryUnavailable: none begins any more."""
        async with self._one:
            if self._ends:
                raise InventoryUnavailable("ds01-allocator is being stopped")
            yield

    async def _catch_up(self) -> tuple[Entry, ...]:
        ended = [await self._finish(entry) for entry in await self._journal.unfinished()]
        await self._restoration.run()
        return tuple(ended)

    async def _write_spec(self) -> str | None:
        """Have the CDI spec show what was done, and give that back. Returns: what went wrong; then it stays withheld."""
        steps = await self._journal.unwritten()
        if not steps or self._ends:
            return None
        problem = await self._regenerate()
        if problem is None:
            await self._journal.wrote_spec()
            places = [step.place for step in steps if step.place is not None]
            await self._devices.give_back([device for step in steps for device in step.devices], places)
        return problem

    async def _carry_out(self, item: Plan, who: str) -> Outcome:
        outcome = Outcome(plan=item)
        for step in item.steps:
            if self._ends:
                return replace(outcome, problem="ds01-allocator is being stopped; apply again when it runs")
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
        """Withhold, write, do, write. Returns: who is in the way."""
        entry = entry_of(step, who)
        held = await self._devices.withhold(entry.devices, entry.place)
        if held:
            return f"{held[0]} came in between; plan again"
        try:
            await self._steps.take(step, entry)
        except MigRefused:
            await self._give_back(entry)
            raise
        # Without an answer in time nobody knows whether it was done: it stays INTENDED, and its devices out of reach.
        return None

    async def _finish(self, entry: Entry) -> Entry:
        await self._devices.withhold(
            entry.devices, entry.place
        )  # a holder is told here: it is not begun again
        ended = await self._steps.finish(entry)
        if ended.state is not StepState.DONE:
            await self._give_back(ended)
        return ended

    async def _give_back(self, entry: Entry) -> None:
        await self._devices.give_back(entry.devices, () if entry.place is None else (entry.place,))


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
