"""A simulated machine under the allocator: the real NVML child, a service over a real ledger, and attribution."""

from __future__ import annotations

import asyncio
import itertools
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from allocator import api_devices
from allocator.attributor import Attributor
from allocator.board import Board
from allocator.holders import Holdings
from allocator.host_control import HostControl
from allocator.intruders import Intruders
from allocator.kernel_log import LogEar
from allocator.ledger import Ledger
from allocator.mig_apply import Repartition
from allocator.mig_driver import MigDriver
from allocator.model import Lease
from allocator.processes import Processes
from allocator.service import Allocator, Timing
from allocator.tracking import Round, Told, Tracking
from allocator.worker import NvmlWorker
from host.clock import boot_id
from lab import simulate
from policy.model import DeviceUuid, LeaseId, Uid
from tests.fakes.leasing import Clock, want

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from allocator.model import Device, Refusal

_MOST_SWEEPS = 200  # of a wait for what a thread or another process does
_PATIENCE_SECONDS = 30


async def _nothing() -> None:
    return None


async def _nobody(_gpu: DeviceUuid, _instance: int | None) -> str:
    return "nobody is"


class WatchedMachine:
    """One allocator on the machine that the environment names. `sweep` is one look and its round, five seconds later."""

    def __init__(self, ledger: Path, *, deadline_seconds: float = 20, gpu_seconds: float = 10) -> None:
        self.clock = Clock()
        self._ledger = ledger
        self._numbers = itertools.count()
        self._child = partial(NvmlWorker, deadline_seconds=deadline_seconds, gpu_seconds=gpu_seconds)
        self._start()

    def _start(self) -> None:
        self.worker = self._child()
        self.allocator = Allocator(
            ledger=Ledger(self._ledger),
            inventory=self.worker,
            now=self.clock,
            new_id=lambda: LeaseId(f"lease{next(self._numbers)}"),
            timing=Timing(patience_seconds=_PATIENCE_SECONDS),
        )
        self.allocator.foreign.tell(())
        kernel_log = Path(os.environ["DS01_SIM_NVML"]) / simulate.KERNEL_LOG
        self.log_ear = LogEar(kernel_log, heard=self.allocator.hearing.logged)
        self.log_ear.listen()
        self.watch = self.allocator.watch
        self.told = Told()
        self._processes = Processes(boot_id=boot_id())
        attributor = Attributor(
            processes=self._processes, containers=self.told, now=self.clock, first_uid=1000
        )
        control = HostControl(
            processes=self._processes,
            account=lambda _uid: None,
            tell=lambda _uid, _text: None,
            now=self.clock,
            utc_seconds=lambda: 0.0,
        )
        self.tracking = Tracking(
            watch=self.watch,
            attributor=attributor,
            control=control,
            intruders=Intruders(
                leases=partial(self.allocator.leases, None),
                tell_holder=self.allocator.upkeep.tell_of_intruder,
                containers=self.told,
                foreign=self.allocator.foreign,
                now=self.clock,
            ),
            granted=_granted,
            scan=Holdings,
            now=self.clock,
        )

    async def close(self) -> None:
        self.log_ear.close()
        await self.worker.close()
        await self.allocator.close()
        self._processes.close()

    async def start_again(self, *, boot: str | None = None) -> None:
        """The service ends and starts, in another boot if one is named."""
        await self.close()
        self.clock.boot = boot or self.clock.boot
        self._start()

    async def sweep(self) -> None:
        self.clock.seconds += 5
        await self.allocator.sweep()
        await self.tracking._round_if_new()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Sweep until it holds: for what is told by another thread or process."""
        for _ in range(_MOST_SWEEPS):
            await self.sweep()
            if holds():
                return
            await asyncio.sleep(0.05)
        raise AssertionError("it never held")

    @property
    def child(self) -> int | None:
        """The pid of the NVML child."""
        return None if self.worker._process is None else self.worker._process.pid

    @property
    def inventory(self) -> str:
        """What `GET /v1/health` says of the devices."""
        told: str = api_devices.health(self.watch, reconciled=True, log_problem=None)["inventory"]
        return told

    @property
    def round(self) -> Round:
        assert self.tracking.last is not None
        return self.tracking.last

    @property
    def devices(self) -> dict[str, Device]:
        """By index, as the last look that succeeded had them."""
        snapshot = self.watch.snapshot
        return {} if snapshot is None else {device.index: device for device in snapshot.devices.values()}

    async def free(self) -> set[str]:
        """The indices of all that could be leased now. Raises: InventoryUnavailable."""
        snapshot = self.watch.current()
        board = Board(snapshot, await self.allocator.leases(None), unattributed=self.watch.unattributed())
        return {snapshot.devices[uuid].index for uuid in board.free}

    async def ask(self, **changes: Any) -> Lease | Refusal:
        """What a create gets. Raises: InventoryUnavailable."""
        return await self.allocator.lease(want(limit=64, **changes))

    async def name(self, index: str) -> Lease | Refusal:
        """What a create that names one device gets. Raises: InventoryUnavailable."""
        return await self.ask(count=None, device_ids=(index,))

    async def take(self, index: str) -> Lease:
        """A lease of that device."""
        found = await self.name(index)
        assert isinstance(found, Lease), found
        return found

    async def now(self, lease: Lease) -> Lease:
        """The lease as the ledger has it."""
        found = await self.allocator.find(lease.id)
        assert found is not None
        return found

    def repartition(self, regenerate: Callable[[], Awaitable[str | None]] = _nothing) -> Repartition:
        """What plans and changes the machine's MIG devices."""
        return Repartition(
            driver=MigDriver(deadline_seconds=20),
            journal=self.allocator.mig_journal,
            devices=self.allocator.withheld,
            past=self.allocator.withheld,
            quiesced=partial(self.watch.closed, self.worker.close),
            clients=_nobody,
            regenerate=regenerate,
        )

    def uuid(self, index: str) -> DeviceUuid:
        return self.devices[index].uuid


async def _granted() -> frozenset[Uid]:
    return frozenset()
