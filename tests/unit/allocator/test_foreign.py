"""Containers that ds01 did not make: which devices they have, and what that does to leasing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.foreign import ForeignContainers, read_foreign
from allocator.held_devices import EVERYTHING, Held
from allocator.ledger import Ledger
from allocator.model import InventoryUnavailable, Lease, Problem, Refusal
from allocator.readings import GpuProcess
from allocator.service import Allocator, Timing
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.fake_nvml import FakeNvml, gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, foreign, service, want

if TYPE_CHECKING:
    from pathlib import Path

    from allocator.foreign import Foreign
    from policy.model import Json

ID = ContainerId("a" * 64)
MACHINE = snapshot(gpu(0, minor=3), gpu(1, minor=0), *split(2, "3g.20gb", "1g.5gb"))


def told(*containers: Foreign) -> ForeignContainers:
    made = ForeignContainers()
    made.tell(containers)
    return made


def test_before_anything_was_told_nobody_can_say_what_is_taken() -> None:
    """Not knowing of any is not knowing that there is none. What has no GPU takes none."""
    for ask in (ForeignContainers().by_device, ForeignContainers().taken):
        with pytest.raises(InventoryUnavailable, match="has not told yet") as raised:
            ask(MACHINE)
        assert raised.value.problem is Problem.NOT_TOLD
    assert not told(foreign()).by_device(MACHINE)
    assert (ForeignContainers().are_told, told().are_told) == (False, True)


async def test_a_new_allocator_leases_nothing_before_it_was_told(tmp_path: Path) -> None:
    """Whatever was leased before, and whoever waited: a container past ds01 may have any GPU. Then all goes on."""
    first = service(tmp_path / "ledger", FakeNvml(gpu(0), gpu(1)), Clock())
    held = await first.lease(want())
    assert isinstance(held, Lease)
    await first.close()
    again = Allocator(
        ledger=Ledger(tmp_path / "ledger"),
        inventory=FakeNvml(gpu(0), gpu(1)),
        now=Clock(),
        new_id=lambda: LeaseId("second"),
        timing=Timing(),
    )
    await again.sweep()
    with pytest.raises(InventoryUnavailable, match="has not told yet"):
        await again.lease(want(wait_seconds=5))
    await again.release(held.id, who="one", why="removed")  # what ends is not held up
    again.foreign.tell([foreign("0")])
    given = await again.lease(want())
    assert isinstance(given, Lease)
    assert given.devices == (gpu(1).uuid,)
    await again.close()


def test_each_device_has_those_that_have_it() -> None:
    """Running or stopped; only who runs takes it."""
    one, two = foreign("0"), foreign("0", "1", runs=False, name="two")
    known = told(one, two)
    assert known.by_device(MACHINE) == {gpu(0).uuid: (one, two), gpu(1).uuid: (two,)}
    assert known.taken(MACHINE) == {gpu(0).uuid}


def test_a_part_takes_its_gpu_and_a_gpu_its_parts() -> None:
    """But a part leaves the other parts."""
    assert told(foreign("2:1")).taken(MACHINE) == {gpu(2).uuid, mig(2, 1).uuid}
    assert told(foreign("2")).taken(MACHINE) == {gpu(2).uuid, mig(2, 0).uuid, mig(2, 1).uuid}


def test_nodes_are_told_by_their_minor() -> None:
    """Which is not the index; a node that nobody knows takes everything."""
    for minor, expected in ((3, {gpu(0).uuid}), (7, set(MACHINE.devices))):
        inspect: dict[str, Json] = {"HostConfig": {"Devices": [{"PathOnHost": f"/dev/nvidia{minor}"}]}}
        one = read_foreign(ID, "old", inspect, runs=True)
        assert one.held == Held(minors=frozenset({minor}))
        assert told(one).taken(MACHINE) == expected


def test_a_new_look_and_a_new_telling_count_at_once() -> None:
    """What was found for an earlier snapshot, or of other containers, is forgotten."""
    known = told(foreign("1"))
    assert known.taken(snapshot(gpu(0))) == frozenset()
    assert known.taken(MACHINE) == {gpu(1).uuid}
    known.tell([])
    assert known.taken(MACHINE) == frozenset()


def test_what_cannot_be_read_is_everything() -> None:
    """Unknown is never free."""
    wrongs: tuple[dict[str, Json] | None, ...] = (None, {"HostConfig": []}, {"Mounts": {}})
    for wrong in wrongs:
        assert read_foreign(ID, "old", wrong, runs=True).held == EVERYTHING


def test_what_tells_of_owners_is_kept_of_all() -> None:
    """With a GPU or without one; an inspect that cannot be read tells of nobody."""
    labels: dict[str, Json] = {"Config": {"Labels": {"aime.mlc": "alice"}}}
    one = read_foreign(ID, "cpu", labels, runs=True, adopted_by=Uid(7))
    known = told(one, read_foreign(ContainerId("b" * 64), "x", None, runs=True))
    (found,) = known.inspected()
    assert (found.id, found.name, found.labels) == (ID, "cpu", {"aime.mlc": "alice"})
    assert known.find(ID) is one
    assert known.find(ContainerId("c" * 64)) is None
    assert [(each.name, each.adopted_by) for each in known.all()] == [("cpu", 7), ("x", None)]


async def test_nobody_gets_what_a_foreign_container_has(tmp_path: Path) -> None:
    """Until it stops; by number another device is given."""
    one = service(tmp_path / "ledger", FakeNvml(gpu(0), gpu(1)), Clock())
    await one.sweep()
    one.foreign.tell([foreign("0")])
    first = want(count=None, device_ids=("0",))
    refusal = await one.lease(first)
    assert isinstance(refusal, Refusal)
    assert "a container that ds01 did not make" in refusal.message
    other = await one.lease(want())
    assert isinstance(other, Lease)
    assert other.devices == (gpu(1).uuid,)
    one.foreign.tell([foreign("0", runs=False)])
    assert isinstance(await one.lease(first), Lease)
    await one.close()


async def test_a_monitor_takes_nothing_but_what_it_computes_on(tmp_path: Path) -> None:
    """Its devices are leased; one with a process of it, or whose processes or memory nobody can account for, is not."""
    nvml = FakeNvml(gpu(0), gpu(1, processes=(GpuProcess(pid=7, memory_mib=500),)), gpu(2, pids=None), gpu(3))
    one = service(tmp_path / "ledger", nvml, Clock())
    await one.sweep()
    one.watch.ghosts = frozenset({gpu(3).uuid})
    one.foreign.tell([foreign("0", "1", "2", "3")])
    assert isinstance(await one.lease(want()), Refusal)
    one.foreign.tell([foreign("0", "1", "2", "3", monitor=True)])
    given = await one.lease(want())
    assert isinstance(given, Lease)
    assert given.devices == (gpu(0).uuid,)
    for index, words in (("1", "process 7"), ("2", "cannot be read"), ("3", "cannot be seen")):
        refusal = await one.lease(want(count=None, device_ids=(index,)))
        assert isinstance(refusal, Refusal)
        assert words in refusal.message
    await one.close()


def test_a_monitor_beside_another_leaves_that_ones_devices_taken() -> None:
    """It frees nothing that somebody else has; and one that cannot be read is none."""
    assert told(foreign("0", monitor=True), foreign("0")).taken(MACHINE) == {gpu(0).uuid}
    unread = read_foreign(ID, "dcgm", None, runs=True, monitor=True)
    assert told(unread).taken(MACHINE) == set(MACHINE.devices)
