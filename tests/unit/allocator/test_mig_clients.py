"""Who is in the way of a change of MIG: named, and with what to do."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.attribution import Attribution, Identity, Kind, ProcessFacts
from allocator.attributor import OpenElsewhere
from allocator.holders import DeviceFile
from allocator.mig_clients import Clients
from allocator.model import InventoryUnavailable
from policy.model import ContainerId
from tests.fakes.fake_nvml import gpu, snapshot
from tests.fakes.host_access import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.model import Snapshot

GPU = gpu(1, minor=1)
OWN = 99
SERVICE = Attribution(kind=Kind.SERVICE, unit="nvidia-dcgm.service")
CONTAINER = Attribution(kind=Kind.CONTAINER, container=ContainerId("4f3a" * 16))
WHOLE, OTHER = (DeviceFile(driver="nvidia", major=195, minor=minor) for minor in (1, 0))


def capability(instance: int) -> DeviceFile:
    """That of an instance of GPU 1."""
    first, _ = Table().of(gpu_minor=1, gpu_instance=instance, compute_instance=0)
    return DeviceFile(driver="nvidia-caps", major=237, minor=first)


def has(pid: int, *files: DeviceFile, whose: Attribution = SERVICE, name: str = "prog") -> OpenElsewhere:
    facts = ProcessFacts(
        identity=Identity(boot_id="b", pid=pid, start_ticks=1),
        cgroup=None,
        login_uid=None,
        real_uid=None,
        uid_map=None,
        own_pid_namespace=None,
        name=name,
    )
    return OpenElsewhere(facts=facts, attribution=whose, files=frozenset(files))


class Machine:
    """What has been found open, and the last look."""

    def __init__(self, *found: OpenElsewhere) -> None:
        self.found: Sequence[OpenElsewhere] = found
        self.problem: Exception | None = None
        self.looked = True

    async def scan(self) -> Sequence[OpenElsewhere]:
        if self.problem is not None:
            raise self.problem
        return self.found

    def current(self) -> Snapshot:
        if not self.looked:
            raise InventoryUnavailable("NVML was not read yet")
        return snapshot(GPU)

    async def told(self, instance: int | None = None, *, missing: Sequence[int] = ()) -> str:
        table = Table()
        table.missing |= set(missing)
        clients = Clients(scan=self.scan, current=self.current, own=lambda: OWN, capabilities=table)
        return await clients.of(GPU.uuid, instance)


async def test_who_has_the_instance_open_is_named() -> None:
    """With what it calls itself and where it runs; not the tenants of other instances of the GPU."""
    machine = Machine(
        has(5, WHOLE, capability(2), whose=CONTAINER, name="python3"), has(6, WHOLE, capability(3))
    )
    said = await machine.told(2)
    assert said == (
        "process 5 (python3, container 4f3a4f3a4f3a) has the instance open: end that, then apply again"
    )


@pytest.mark.parametrize(
    ("instance", "missing"),
    [
        pytest.param(None, [], id="mode"),
        pytest.param(2, [], id="nobody-has-the-instance"),
        pytest.param(2, [2], id="the-driver-does-not-tell-its-capability"),
    ],
)
async def test_else_who_has_the_gpu_open_is_named(instance: int | None, missing: list[int]) -> None:
    """Of this GPU alone, and not our own session."""
    machine = Machine(has(5, WHOLE), has(6, OTHER), has(OWN, WHOLE))
    said = await machine.told(instance, missing=missing)
    assert "process 5 (prog, nvidia-dcgm.service), end" in said
    assert "process 6" not in said
    assert f"process {OWN}" not in said


async def test_of_a_gpu_whose_file_is_not_known_all_are_named() -> None:
    """Some of many, with how many more there are."""
    machine = Machine(*(has(pid, OTHER, whose=replace(SERVICE, unit=""), name="") for pid in range(1, 9)))
    machine.looked = False
    said = await machine.told(2)
    assert "process 1, process 2, process 3, process 4, process 5, 3 more, end" in said


async def test_where_nobody_can_be_named_the_next_step_is() -> None:
    """A handle that the driver has kept, and files that cannot be read."""
    machine = Machine(has(OWN, WHOLE))
    assert "while ds01-allocator is stopped" in await machine.told(2)
    for problem in (OSError("no /proc"), TimeoutError()):
        machine.problem = problem
        assert "cannot be told; see sudo fuser" in await machine.told(2)
