"""Access outside containers on a machine whose time, boots and systemctl a test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from allocator.attribution import Attribution, Kind, ProcessFacts
from allocator.attributor import OpenElsewhere
from allocator.granted_devices import CapabilityNumbers
from allocator.host_access import AccessFailed, HostAccess
from allocator.host_grants import HostGrants
from allocator.mig_capabilities import FilesUnknown
from allocator.model import Device, DeviceState, InventoryUnavailable, Moment, Refusal, Snapshot
from allocator.processes import Processes
from allocator.readings import MigMode
from host.clock import boot_id
from policy.model import Uid
from tests.fakes.fake_nvml import gpu, mig, snapshot

ALICE, BOB = Uid(1000), Uid(1001)
DEVICES = "Character devices:\n  1 mem\n195 nvidia\n234 nvidia-uvm\n"
HOUR = 3600
IN_MIG_MODE = MigMode(current=True, pending=True)


def machine() -> tuple[Device, ...]:
    """Two whole GPUs, and one that is split in two; each GPU's file has the number of its index."""
    whole = (gpu(number, minor=number, generation=1) for number in (0, 1))
    split = gpu(2, minor=2, generation=1, state=DeviceState.UNUSABLE, mig_mode=IN_MIG_MODE)
    parts = (mig(2, place, "3g.20gb", minor=2, generation=1) for place in (0, 1))
    return (*whole, split, *parts)


class Table:
    """Capabilities as current drivers number them; `missing` ones are not told. SOURCE: open-gpu-kernel-modules, nv-caps.c."""

    def __init__(self) -> None:
        self.missing: set[int] = set()

    def of(self, *, gpu_minor: int, gpu_instance: int, compute_instance: int) -> tuple[int, int]:
        first = 3 + 135 * gpu_minor + 9 * gpu_instance
        if gpu_instance in self.missing:
            raise FilesUnknown(f"no capability of instance {gpu_instance}")
        return first, first + 1 + compute_instance


class Devices:
    """What a look at the devices tells, as tests change it."""

    def __init__(self) -> None:
        self.snapshot = snapshot(*machine())
        self.problem: str | None = None
        self.refreshing = asyncio.Event()  # cleared: a driver that does not answer
        self.refreshing.set()

    async def refresh(self) -> None:
        await self.refreshing.wait()

    def current(self) -> Snapshot:
        if self.problem is not None:
            raise InventoryUnavailable(self.problem)
        return self.snapshot

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[Snapshot]:
        yield self.current()

    def put(self, device: Device) -> None:
        """Add or replace one."""
        self.snapshot = replace(self.snapshot, devices={**self.snapshot.devices, device.uuid: device})

    def take(self, device: Device, *, complete: bool = True) -> None:
        """Make one vanish."""
        rest = {uuid: one for uuid, one in self.snapshot.devices.items() if uuid != device.uuid}
        self.snapshot = replace(self.snapshot, devices=rest, complete=complete)


class World:
    """A daemon that can be started again, on a machine that can be booted again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.seconds = 100.0
        self.utc = 1_000_000.0
        self.boot = "one"
        self.ran: list[tuple[str, ...]] = []
        self.fails = False
        self.carry_out: Callable[[Sequence[str]], object] = list  # nothing, unless a test has a systemd
        self.open: list[OpenElsewhere] = []
        self.devices = Devices()
        self.table = Table()
        self.capabilities: CapabilityNumbers = self.table
        self.processes = Processes(boot_id=boot_id())
        (directory / "devices").write_text(DEVICES)
        (directory / "closed").touch()
        self.grants = HostGrants(directory / "grants.sqlite")
        self.access = self.daemon()

    def daemon(self) -> HostAccess:
        return HostAccess(
            grants=self.grants,
            inventory=self.devices,
            processes=self.processes,
            holders=self.holders,
            now=lambda: Moment(utc="now", boottime_ms=int(self.seconds * 1000), boot_id=self.boot),
            utc_seconds=lambda: self.utc,
            run=self.run,
            devices=self.directory / "devices",
            closed=self.directory / "closed",
            capabilities=self.capabilities,
        )

    async def run(self, command: Sequence[str]) -> None:
        if self.fails:
            raise AccessFailed("no systemd")
        self.ran.append(tuple(command))
        self.carry_out(command)

    async def holders(self) -> list[OpenElsewhere]:
        return self.open

    def pass_time(self, seconds: float) -> None:
        self.seconds += seconds
        self.utc += seconds

    def reboot(self, *, off_seconds: float) -> None:
        self.boot += "+"
        self.seconds = 5
        self.utc += off_seconds
        self.access = self.daemon()

    async def grant(self, uid: Uid = ALICE, **changes: Any) -> Refusal | None:
        """Of GPU 1 for an hour, unless changed. Returns: why there is none."""
        given: dict[str, Any] = {
            "name": "alice",
            "devices": ["1"],
            "seconds": HOUR,
            "by": "root",
            "reason": "why",
        }
        made = await self.access.grant(uid=uid, **{**given, **changes})
        return made if isinstance(made, Refusal) else None

    def told(self) -> list[tuple[str, tuple[str, ...]]]:
        """The slices that systemctl was told of since the last time, and what they may open."""
        said = [(command[3], command[5:]) for command in self.ran]
        self.ran.clear()
        return said

    def holds(self, pid: int, **found: Any) -> None:
        facts = self.processes.look(pid)
        assert isinstance(facts, ProcessFacts)
        attribution = Attribution(**{"kind": Kind.USER, "owner": ALICE, "slice_uid": ALICE, **found})
        self.open.append(OpenElsewhere(facts=facts, attribution=attribution, files=frozenset()))
