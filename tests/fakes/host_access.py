"""Access outside containers on a machine whose time, boots and systemctl a test decides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from allocator.attribution import Attribution, Kind, ProcessFacts
from allocator.attributor import OpenElsewhere
from allocator.device_policy import gpu_nodes
from allocator.host_access import AccessFailed, HostAccess
from allocator.host_grants import HostGrants
from allocator.model import Moment
from allocator.processes import Processes
from host.clock import boot_id
from policy.model import Uid

ALICE, BOB = Uid(1000), Uid(1001)
DEVICES = "Character devices:\n  1 mem\n195 nvidia\n234 nvidia-uvm\n"
HOUR = 3600


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
        self.processes = Processes(boot_id=boot_id())
        (directory / "devices").write_text(DEVICES)
        (directory / "closed").touch()
        self.grants = HostGrants(directory / "grants.sqlite")
        self.access = self.daemon()

    def daemon(self) -> HostAccess:
        return HostAccess(
            grants=self.grants,
            processes=self.processes,
            holders=self.holders,
            now=lambda: Moment(utc="now", boottime_ms=int(self.seconds * 1000), boot_id=self.boot),
            utc_seconds=lambda: self.utc,
            run=self.run,
            devices=self.directory / "devices",
            closed=self.directory / "closed",
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

    async def grant(self, uid: Uid = ALICE, **changes: Any) -> None:
        given: dict[str, Any] = {
            "name": "alice",
            "nodes": gpu_nodes([1]),
            "seconds": HOUR,
            "by": "root",
            "reason": "why",
        }
        await self.access.grant(uid=uid, **{**given, **changes})

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
