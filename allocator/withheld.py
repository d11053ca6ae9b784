"""Devices that are kept from being leased while their GPU is split anew, and who holds what of it."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from allocator.model import InventoryUnavailable, Snapshot
from allocator.reach import left_with

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping

    from allocator.care import Care
    from allocator.finishing import Finishing
    from allocator.foreign import Foreign, ForeignContainers
    from allocator.host_grants import HostGrant
    from allocator.ledger import Ledger
    from allocator.mig_journal import Entry, MigJournal, StepState
    from allocator.model import Device, Lease, Moment
    from allocator.watch import Watch
    from policy.model import DeviceUuid


class WithheldDevices:
    """The `Devices` of `allocator.mig_apply`, and the `Inventory` of `allocator.host_access`, under the lock of all leasing."""

    def __init__(
        self,
        *,
        lock: asyncio.Lock,
        ledger: Ledger,
        finishing: Finishing,
        care: Care,
        watch: Watch,
        foreign: ForeignContainers,
        granted: Callable[[], Awaitable[Collection[HostGrant]]],
    ) -> None:
        """Args: granted: live grants outside containers, each of its devices held by it. Is asked under the lock, and waits for no other."""
        self._lock = lock
        self._ledger = ledger
        self._finishing = finishing
        self._care = care
        self._watch = watch
        self._foreign = foreign
        self._granted = granted

    async def holders(self) -> Mapping[DeviceUuid, tuple[str, ...]]:
        """Sentences for each device that a lease, a container, a grant or a process refers to. Raises: InventoryUnavailable, LedgerUnavailable."""
        async with self._lock:
            return await self._held()

    async def withhold(self, devices: Collection[DeviceUuid]) -> tuple[str, ...]:
        """Let nobody lease them from now on. Returns: who holds one of them; then nothing is withheld."""
        async with self._lock:
            held = await self._held()
            said = tuple(one for device in self._with_parts(devices) for one in held.get(device, ()))
            if not said:
                self._care.withhold(devices)
                await self._mark()
            return said

    async def give_back(self, devices: Collection[DeviceUuid]) -> None:
        """They may be leased again once a look has found them."""
        async with self._lock:
            self._care.give_back(devices)
        with suppress(InventoryUnavailable):  # the next look finds them
            await self._watch.look()

    def current(self) -> Snapshot:
        """The devices at the last look. Raises: InventoryUnavailable."""
        return self._watch.current()

    async def refresh(self) -> None:
        """Look at the devices, unless the last look will do for a decision. Raises: InventoryUnavailable."""
        if not self._watch.is_fresh():
            await self._watch.look()

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[Snapshot]:
        """The devices that are not withheld, at the last look; while it is open nobody withholds one. Raises: InventoryUnavailable."""
        async with self._lock:
            snapshot = self._watch.current()
            devices = snapshot.devices.items()
            yield replace(
                snapshot, devices={uuid: one for uuid, one in devices if not self._care.is_withheld(one)}
            )

    async def _held(self) -> dict[DeviceUuid, tuple[str, ...]]:
        found: dict[DeviceUuid, tuple[str, ...]] = {}
        snapshot = self._watch.current()
        for lease in await self._finishing.durably(self._ledger.live):
            for uuid in lease.devices:
                found[uuid] = (*found.get(uuid, ()), _leased(lease))
            for uuid in left_with(lease, snapshot):
                found[uuid] = (*found.get(uuid, ()), f"{_leased(lease)}, whose MIG device is gone")
        for grant in await self._granted():
            for one in grant.devices:
                found[one.uuid] = (*found.get(one.uuid, ()), _access(grant))
        foreign = self._foreign.by_device(snapshot)
        for device in snapshot.devices.values():
            others = (_had(one) for one in foreign.get(device.uuid, ()) if not one.monitor)
            found[device.uuid] = (*found.get(device.uuid, ()), *others, *_used(device))
        return {uuid: said for uuid, said in found.items() if said}

    def _with_parts(self, devices: Collection[DeviceUuid]) -> Iterator[DeviceUuid]:
        """Who withholds a GPU withholds its parts, so that their holders are in the way too."""
        yield from devices
        for uuid, device in self._watch.current().devices.items():
            if device.parent in devices and uuid not in devices:
                yield uuid

    async def _mark(self) -> None:
        if self._watch.snapshot is not None:
            marked = partial(self._care.marked, self._watch.snapshot)
            self._watch.snapshot = await self._finishing.durably(marked)


async def nobody() -> tuple[HostGrant, ...]:
    """The grants where nothing is granted outside containers."""
    return ()


class DurableJournal:
    """The `Journal` of `allocator.mig_apply`: each line in the ledger's writer thread, with the time."""

    def __init__(self, journal: MigJournal, *, finishing: Finishing, now: Callable[[], Moment]) -> None:
        self._journal = journal
        self._finishing = finishing
        self._now = now

    async def intend(self, entry: Entry) -> int:
        return await self._finishing.durably(partial(self._journal.intend, entry, self._now()))

    async def end(self, number: int, state: StepState, why: str = "") -> None:
        await self._finishing.durably(partial(self._journal.end, number, state, why))

    async def unfinished(self) -> tuple[Entry, ...]:
        return await self._finishing.durably(self._journal.unfinished)


def _leased(lease: Lease) -> str:
    where = f"container {lease.container[:12]}" if lease.container else "a create under way"
    return f"{where} of {lease.owner_name}"


def _access(grant: HostGrant) -> str:
    return f"access of {grant.name} outside containers until {grant.ends_utc} (ds01 gpu revoke {grant.name})"


def _had(container: Foreign) -> str:
    state = "" if container.runs else "stopped "
    return f"{state}container {container.name or container.id[:12]}, which ds01 did not make"


def _used(device: Device) -> Iterator[str]:
    """Processes, or that they cannot be told: unknown is never nobody. Those of a GPU's instances hold the instances."""
    if device.processes is None:
        yield "processes that cannot be read"
        return
    for process in device.processes:
        if device.mig_mode is None or process.gpu_instance_id is None or not device.mig_mode.current:
            yield f"process {process.pid}"
