"""The process that changes MIG, with real pynvml against the simulated driver library."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from allocator.mig_driver import IN_USE, MigDriver, MigRefused
from allocator.model import InventoryUnavailable
from lab import simulate


@pytest.fixture
def state(driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LD_LIBRARY_PATH", str(driver.parent))
    monkeypatch.setenv("DS01_SIM_NVML", str(tmp_path))
    simulate.write_state(tmp_path, simulate.machine("a100-40,a100-80:3g.40gb+1g.10gb,a100-40:empty"))
    return tmp_path


@pytest.fixture
def changer() -> MigDriver:
    return MigDriver(deadline_seconds=10)


async def test_partitions_are_read_whole(state: Path, changer: MigDriver) -> None:
    """Mode, profiles with the places they fit, instances with their MIG devices."""
    whole, mixed, empty = await changer.partitions()
    assert (whole.mig_now, whole.profiles, whole.instances) == (False, (), ())
    names = {profile.name: profile for profile in mixed.profiles}
    assert names["3g.40gb"].starts == (0, 4)
    assert (names["3g.40gb"].size, names["3g.40gb"].compute_slices, names["3g.40gb"].most) == (4, 3, 2)
    assert names["1g.10gb+me"].most == 1
    placed = {item.profile: item for item in mixed.instances}
    assert (placed["3g.40gb"].start, placed["1g.10gb"].start) == (0, 4)
    assert placed["3g.40gb"].devices == (simulate.mig_uuid(mixed.gpu, placed["3g.40gb"].number, 0),)
    assert (empty.mig_now, empty.instances, empty.compute_slices) == (True, (), 7)


async def test_an_instance_is_made_with_its_device_and_destroyed(state: Path, changer: MigDriver) -> None:
    """At the place asked for; destroying it twice is no error, since the first may have been cut short."""
    empty = (await changer.partitions())[2]
    profile = next(item for item in empty.profiles if item.name == "2g.10gb")
    number = await changer.create(empty.gpu, profile, 2)
    (made,) = (await changer.partitions())[2].instances
    assert (made.number, made.start, made.size, len(made.devices)) == (number, 2, 2, 1)
    for _ in range(2):
        await changer.destroy(empty.gpu, number)
    assert (await changer.partitions())[2].instances == ()


async def test_what_nvml_refuses_has_its_code(state: Path, changer: MigDriver) -> None:
    """A place that is taken, and an instance that a process uses."""
    mixed = (await changer.partitions())[1]
    profile = next(item for item in mixed.profiles if item.name == "3g.40gb")
    with pytest.raises(MigRefused, match="Insufficient Resources"):
        await changer.create(mixed.gpu, profile, 0)
    used = next(item for item in mixed.instances if item.profile == "3g.40gb")
    simulate.add_process(state, 1, mixed.gpu, gi=used.number, ci=0)
    with pytest.raises(MigRefused) as refused:
        await changer.destroy(mixed.gpu, used.number)
    assert refused.value.code == IN_USE
    assert used in (await changer.partitions())[1].instances


async def test_a_gpu_instance_without_its_device_is_completed(state: Path, changer: MigDriver) -> None:
    """What a kill between the two leaves."""
    with simulate.changed(state) as document:
        for instance in document["gpus"][1]["gis"]:
            instance["cis"] = []
    mixed = (await changer.partitions())[1]
    assert [item.devices for item in mixed.instances] == [(), ()]
    for item in mixed.instances:
        await changer.complete(mixed.gpu, item.number)
        await changer.complete(mixed.gpu, item.number)
    assert [len(item.devices) for item in (await changer.partitions())[1].instances] == [1, 1]


async def test_the_mode_is_switched(state: Path, changer: MigDriver) -> None:
    """Or waits for a reset; the partition says what it will be."""
    whole = (await changer.partitions())[0]
    await changer.set_mode(whole.gpu, enabled=True)
    assert (await changer.partitions())[0].mig_pending


async def test_a_hung_driver_is_given_up(state: Path) -> None:
    """In time, and told as no answer: whether the step was done is unknown."""
    simulate.hang(state, "nvmlDeviceGetMigMode", milliseconds=3_000)
    with pytest.raises(InventoryUnavailable, match="did not answer within 1 seconds"):
        await MigDriver(deadline_seconds=1).partitions()


@pytest.mark.parametrize("said", ["", "{}", "[]", '{"result": [{"gpu": 1}]}'])
async def test_an_unreadable_answer_is_none(said: str) -> None:
    """Whatever the child wrote."""
    command = (sys.executable, "-c", f"print({said!r})")
    with pytest.raises(InventoryUnavailable):
        await MigDriver(deadline_seconds=5, command=command).partitions()


async def test_nothing_is_asked_beside_a_step_that_hangs(state: Path) -> None:
    """It may be carried out yet, and what became of it is told wrongly before; when it has ended, all goes on."""
    changer = MigDriver(deadline_seconds=1)
    with simulate.changed(state) as document:
        fault = {"symbol": "nvmlDeviceGetMigMode", "hang_ms": 4_000, "sigterm_proof": True}
        document["faults"].append(fault)
    with pytest.raises(InventoryUnavailable, match="did not answer within 1 seconds"):
        await changer.partitions()
    simulate.heal(state)
    with pytest.raises(InventoryUnavailable, match="still hangs in the NVIDIA driver"):
        await changer.partitions()
    await changer._left[0].wait()
    assert len(await changer.partitions()) == 3


async def test_a_gpu_that_has_fallen_off_the_bus_is_left_out(state: Path, changer: MigDriver) -> None:
    """The others can be split all the same."""
    every = await changer.partitions()
    simulate.lose_gpu(state, every[1].gpu)
    assert [one.gpu for one in await changer.partitions()] == [every[0].gpu, every[2].gpu]
