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
    from allocator.carried import Carried
    from allocator.finishing import Finishing
    from allocator.foreign import Foreign, ForeignContainers
    from allocator.host_grants import HostGrant
    from allocator.ledger import Ledger
    from allocator.mig_journal import Entry, MigJournal, Place, StepState
    from allocator.mig_record import PastPartition
    from allocator.model import Device, Lease, Moment
    from allocator.reconcile import Carrier
    from allocator.watch import Watch
    from policy.model import DeviceUuid


_NOT_TOLD = "waits for the proxy, which has not told yet what containers there are"
_Said = tuple["DeviceUuid", str]


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
        carried: Carried,
        granted: Callable[[], Awaitable[Collection[HostGrant]]],
    ) -> None:
        """Args: granted: live grants outside containers, each of its devices held by it. Is asked under the lock, and waits for no other."""
        self._lock = lock
        self._ledger = ledger
        self._finishing = finishing
        self._care = care
        self._watch = watch
        self._foreign = foreign
        self._carried = carried
        self._granted = granted

    async def holders(self) -> Mapping[DeviceUuid, tuple[str, ...]]:
        """Sentences for each device that a lease, a container, a grant or a process refers to. Raises: InventoryUnavailable, LedgerUnavailable."""
        async with self._lock:
            return await self._held()

    async def withhold(self, devices: Collection[DeviceUuid], place: Place | None = None) -> tuple[str, ...]:
        """Let nobody lease them, nor what is made at a place, from now on. Returns: who holds one of them; then nothing is withheld.

        Raises: InventoryUnavailable, LedgerUnavailable.
        """
        if devices:
            await self.refresh()  # at the start nobody has looked yet
        async with self._lock:
            held = await self._held() if devices else {}
            said = tuple(one for device in self._with_parts(devices) for one in held.get(device, ()))
            if not said:
                self._care.underway.withhold(devices, place)
                await self._mark()
            return said

    async def give_back(self, devices: Collection[DeviceUuid], places: Collection[Place] = ()) -> None:
        """They may be leased again once a look has found them."""
        async with self._lock:
            self._care.underway.give_back(devices, places)
        with suppress(InventoryUnavailable):  # the next look finds them
            await self._watch.look()

    def before_reboot(self) -> tuple[PastPartition, ...]:
        """The GPUs that are not settled since the machine has booted, as they were before."""
        return self._care.underway.before_reboot()

    async def settle(self, gpu: DeviceUuid, restored: Collection[DeviceUuid]) -> None:
        """What is missing of a GPU has gone, from now on; its parts may be leased again.

        Raises: InventoryUnavailable: no look has found all that were restored yet. LedgerUnavailable.
        """
        # INVARIANT: this look begins after they were made, and every later one after it: none that saw too little is taken in below.
        found = await self._watch.look()
        if not found.devices.keys() >= set(restored):
            raise InventoryUnavailable("MIG devices that were made again are not seen yet")
        async with self._lock:
            await self._finishing.durably(partial(self._care.settle, gpu))
        with suppress(InventoryUnavailable):  # the next look judges them
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
            obstacle = self._care.underway.obstacle
            yield replace(snapshot, devices={uuid: one for uuid, one in devices if obstacle(one) is None})

    async def _held(self) -> dict[DeviceUuid, tuple[str, ...]]:
        found: dict[DeviceUuid, tuple[str, ...]] = {}
        snapshot = self._watch.current()
        for uuid, said in await self._of_record(snapshot):
            found[uuid] = (*found.get(uuid, ()), said)
        foreign = self._foreign.by_device(snapshot)
        for device in snapshot.devices.values():
            others = (_had(one) for one in foreign.get(device.uuid, ()) if not one.monitor)
            found[device.uuid] = (*found.get(device.uuid, ()), *others, *_used(device))
        return {uuid: holders for uuid, holders in found.items() if holders}

    async def _of_record(self, snapshot: Snapshot) -> list[_Said]:
        """By live leases, by containers whose lease is over, by grants; and while containers are not told, by any."""
        live = await self._finishing.durably(self._ledger.live)
        found = [one for lease in live for one in _of_lease(lease, snapshot)]
        for carrier in self._carried.without({lease.id for lease in live}):
            found += await self._of_carrier(carrier, snapshot)
        found += [(one.uuid, _access(grant)) for grant in await self._granted() for one in grant.devices]
        if not self._carried.is_known:
            found += [(uuid, _NOT_TOLD) for uuid in snapshot.devices]
        return found

    async def _of_carrier(self, carrier: Carrier, snapshot: Snapshot) -> list[_Said]:
        """What a container names whose lease is over: its devices; of a lease that nobody knows, any."""
        lease = await self._finishing.durably(partial(self._ledger.find, carrier.lease))
        state = "stopped " if carrier.stands_still else ""
        named = f"{state}container {carrier.container[:12]}"
        if lease is None:
            return [(uuid, f"{named}, with a lease that is not on record") for uuid in snapshot.devices]
        text = f"{named} of {lease.owner_name}, whose lease is over"
        left = frozenset() if carrier.stands_still else left_with(lease, snapshot)
        return [(uuid, text) for uuid in (*lease.devices, *left)]

    def _with_parts(self, devices: Collection[DeviceUuid]) -> Iterator[DeviceUuid]:
        """Who withholds a GPU withholds its parts, so that their holders are in the way too."""
        yield from devices
        for uuid, device in self._watch.current().devices.items() if devices else ():
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

    async def unwritten(self) -> tuple[Entry, ...]:
        return await self._finishing.durably(self._journal.unwritten)

    async def wrote_spec(self) -> None:
        await self._finishing.durably(self._journal.wrote_spec)


def _of_lease(lease: Lease, snapshot: Snapshot) -> Iterator[_Said]:
    text = _leased(lease)
    yield from ((uuid, text) for uuid in lease.devices)
    yield from ((uuid, f"{text}, whose MIG device is gone") for uuid in left_with(lease, snapshot))


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
