"""Devices that fail, through the service and a real ledger: who loses them, who is told, and how they come back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator.model import Device, DeviceState, Lease, LeaseState, LedgerUnavailable, Problem, Refusal
from allocator.readings import EccErrors, Measures, RecoveryAction, RemappedRows, Throttle
from allocator.usage import UsageRecords
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from tests.fakes.fake_nvml import FakeNvml, gpu, logged, mig, split
from tests.fakes.leasing import Clock, service, want

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.service import Allocator

WHOLE = gpu(0)
PART, OTHER = mig(1, 0, "3g.20gb"), mig(1, 1, "3g.20gb")
PENDING = Measures(remapped=RemappedRows(correctable=0, uncorrectable=1, pending=True, failed=False))


class Lab:
    """A machine with a whole GPU and two MIG devices, and a service that tests restart."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nvml = FakeNvml(WHOLE, *split(1, "3g.20gb", "3g.20gb"))
        self.clock = Clock()
        self.starts = 0
        self.service = self._service()

    def _service(self) -> Allocator:
        self.starts += 1
        return service(self.path, self.nvml, self.clock, start=100 * self.starts)

    async def restart(self) -> None:
        await self.service.close()
        self.service = self._service()

    async def look(self, seconds: float = 5) -> None:
        self.clock.seconds += seconds
        await self.service.sweep()

    async def leased(self, device: Device, owner: int = 1000) -> Lease:
        found = await self.service.lease(
            want(count=None, device_ids=(device.uuid,), owner_uid=Uid(owner), owner_name=f"user{owner}")
        )
        assert isinstance(found, Lease)
        await self.service.confirm(found.id, ContainerId(f"{owner:064x}"), who="x")
        return found

    async def is_lost(self, lease: Lease) -> bool:
        found = await self.service.find(lease.id)
        assert found is not None
        assert found.live
        return found.state is LeaseState.LOST

    def seen(self, device: Device) -> Device:
        return self.service.watch.current().devices[device.uuid]

    def is_noted(self, lease: Lease, *texts: str) -> bool:
        note = self.service.upkeep.note(lease.id) or ""
        return all(text in note for text in texts)


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    one = Lab(tmp_path / "ledger")
    await one.look()
    yield one
    await one.service.close()


async def test_a_gpu_off_the_bus_is_kept_from_everybody(lab: Lab) -> None:
    """Its lease is lost, its holder told; it stays in quarantine when it is back, over restarts, until a person acts."""
    held = await lab.leased(WHOLE)
    lab.nvml.put(gpu(0, state=DeviceState.LOST, error=15, pids=None))
    await lab.look()
    assert await lab.is_lost(held)
    assert lab.is_noted(held, "GPU 0 is out of service", "fallen off the bus", "it is lost to you")
    await lab.service.release(held.id, who="x", why="removed")
    lab.nvml.put(WHOLE)
    for _ in range(2):
        await lab.look()
        assert lab.seen(WHOLE).state is DeviceState.QUARANTINED
        assert "fallen off the bus" in (lab.seen(WHOLE).remark or "")
        assert isinstance(await lab.service.lease(want(device_ids=(WHOLE.uuid,), count=None)), Refusal)
        await lab.restart()
    await lab.look()
    assert await lab.service.upkeep.release(WHOLE.uuid, who="root", why="reseated")
    assert lab.seen(WHOLE).state is DeviceState.OK
    await lab.leased(WHOLE)


@pytest.mark.parametrize("code", [48, 64, 95, 140, 62, 74, 79, 119, 120, 143])
async def test_a_bad_device_is_taken_away(lab: Lab, code: int) -> None:
    """XIDs of bad memory and of the device or driver quarantine it, its holder loses it and is told the code."""
    held = await lab.leased(WHOLE)
    lab.nvml.xid(WHOLE, code)
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.QUARANTINED
    assert await lab.is_lost(held)
    assert lab.is_noted(held, f"XID {code}", "lost to you")


@pytest.mark.parametrize("code", [63, 92, 94])
async def test_contained_memory_errors_drain(lab: Lab, code: int) -> None:
    """Who holds the device goes on, and is told; nobody gets it after that."""
    held = await lab.leased(WHOLE)
    lab.nvml.xid(WHOLE, code)
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.DRAINING
    assert not await lab.is_lost(held)
    assert lab.is_noted(held, f"XID {code}", "yours until you remove the container", "reset")
    await lab.service.release(held.id, who="x", why="removed")
    assert isinstance(await lab.service.lease(want(device_ids=(WHOLE.uuid,), count=None)), Refusal)


@pytest.mark.parametrize("code", [13, 31, 43, 45, 68, 69, 109])
async def test_a_programs_error_is_told_to_its_owner(lab: Lab, code: int) -> None:
    """The device is as usable as before."""
    held = await lab.leased(WHOLE)
    lab.nvml.xid(WHOLE, code)
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.OK
    assert not await lab.is_lost(held)
    assert lab.is_noted(held, f"XID {code}", "error of the program")
    await lab.restart()
    assert lab.is_noted(held, f"XID {code}")


async def test_an_error_of_one_instance_hits_its_tenant_alone(lab: Lab) -> None:
    """On a GPU with MIG devices the other tenant keeps its device and hears nothing."""
    mine, others = await lab.leased(PART, 1), await lab.leased(OTHER, 2)
    lab.nvml.xid(PART, 48)
    lab.nvml.xid(PART, 31)
    await lab.look()
    assert (lab.seen(PART).state, lab.seen(OTHER).state) == (DeviceState.QUARANTINED, DeviceState.OK)
    assert (await lab.is_lost(mine), await lab.is_lost(others)) == (True, False)
    assert lab.service.upkeep.note(others.id) is None


async def test_an_error_of_the_device_hits_all_its_tenants(lab: Lab) -> None:
    """Also when the driver names an instance with it, or none."""
    mine, others = await lab.leased(PART, 1), await lab.leased(OTHER, 2)
    lab.nvml.xid(PART, 79)
    await lab.look()
    assert {lab.seen(one).state for one in (PART, OTHER, gpu(1))} == {DeviceState.QUARANTINED}
    for lease in (mine, others):
        assert await lab.is_lost(lease)


async def test_a_programs_error_without_an_instance_accuses_nobody(lab: Lab) -> None:
    """Where several share the GPU it is not known whose it was."""
    mine, others = await lab.leased(PART, 1), await lab.leased(OTHER, 2)
    lab.nvml.xid(gpu(1), 31)
    await lab.look()
    assert lab.service.upkeep.note(mine.id) is lab.service.upkeep.note(others.id) is None


async def test_the_drivers_advice_is_followed(lab: Lab) -> None:
    """XID 154 says nothing by itself; what the driver advises with it does."""
    lab.nvml.put(gpu(0, measures=Measures(recovery=RecoveryAction.DRAIN_AND_RESET)))
    lab.nvml.xid(WHOLE, 154)
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.DRAINING
    assert "drain_and_reset" in (lab.seen(WHOLE).remark or "")


async def test_errors_of_different_users_make_a_suspect(lab: Lab) -> None:
    """Five within ten minutes are told to the admin; the device is leased on. One user's five are not."""
    for turn in range(6):
        held = await lab.leased(PART, 1 + turn % 2)
        lab.nvml.xid(PART, 31)
        lab.nvml.xid(OTHER, 31)
        await lab.look(60)
        await lab.service.release(held.id, who="x", why="done")
    assert "different users" in (lab.seen(PART).remark or "")
    assert lab.seen(OTHER).remark is None
    assert lab.seen(PART).state is DeviceState.OK
    assert await lab.service.upkeep.release(PART.uuid, who="root", why="a course")
    await lab.look()
    assert lab.seen(PART).remark is None


async def test_errors_far_apart_make_no_suspect(lab: Lab) -> None:
    """What is older than ten minutes does not count."""
    for turn in range(8):
        held = await lab.leased(WHOLE, 1 + turn % 2)
        lab.nvml.xid(WHOLE, 31)
        await lab.look(200)
        await lab.service.release(held.id, who="x", why="done")
    assert lab.seen(WHOLE).remark is None


async def test_a_reading_is_carried_out_once(lab: Lab) -> None:
    """An admin who lets a device go on with rows pending is not overruled while it stays so, nor by a restart."""
    lab.nvml.put(gpu(0, measures=PENDING))
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.DRAINING
    assert await lab.service.upkeep.release(WHOLE.uuid, who="root", why="next week")
    for _ in range(2):
        await lab.look()
        assert lab.seen(WHOLE).state is DeviceState.OK
        await lab.restart()
    await lab.look()
    lab.nvml.put(gpu(0, state=DeviceState.UNRESPONSIVE, silent_seconds=3.0, pids=None))
    await lab.look()
    lab.nvml.put(gpu(0, measures=PENDING))
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.OK  # it was silent for a moment, not mended
    lab.nvml.put(WHOLE)
    await lab.look()
    lab.nvml.put(gpu(0, measures=PENDING))
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.DRAINING  # it was mended, and came again


async def test_more_errors_than_an_admin_let_pass_count_anew(lab: Lab) -> None:
    """A count that grows after the release is another reason."""
    lab.nvml.put(gpu(0, measures=Measures(ecc=EccErrors(corrected=0, uncorrected=1))))
    await lab.look()
    await lab.service.upkeep.release(WHOLE.uuid, who="root", why="one is none")
    lab.nvml.put(gpu(0, measures=Measures(ecc=EccErrors(corrected=0, uncorrected=2))))
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.DRAINING


async def test_a_slowed_gpu_is_remarked_while_it_is_slow(lab: Lab) -> None:
    """For an admin to look at; it stays usable."""
    lab.nvml.put(gpu(0, measures=Measures(throttles=(Throttle.HARDWARE_THERMAL,))))
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.OK
    assert "hw_thermal" in (lab.seen(WHOLE).remark or "")
    lab.nvml.put(WHOLE)
    await lab.look()
    assert lab.seen(WHOLE).remark is None


async def test_a_hung_gpu_is_quarantined_after_a_while(lab: Lab) -> None:
    """A slow one is only not leased; one that hangs for half a minute is lost to its holder."""
    held = await lab.leased(WHOLE)
    for silent, state, lost, remark in (
        (2.0, DeviceState.UNRESPONSIVE, False, None),
        (7.0, DeviceState.UNRESPONSIVE, False, "it has not answered for 5 seconds or more"),
        (
            31.0,
            DeviceState.QUARANTINED,
            True,
            "it has not answered for 30 seconds or more; reboot the server",
        ),
    ):
        lab.nvml.put(gpu(0, state=DeviceState.UNRESPONSIVE, silent_seconds=silent, pids=None))
        await lab.look()
        assert (lab.seen(WHOLE).state, lab.seen(WHOLE).remark) == (state, remark)
        assert lab.seen(WHOLE).recovers is (state is DeviceState.UNRESPONSIVE)
        assert await lab.is_lost(held) is lost


async def test_an_error_that_stays_is_a_quarantine(lab: Lab) -> None:
    """Two looks with an unknown error are not, three are; they must be in a row."""
    failing = gpu(0, state=DeviceState.QUARANTINED, error=999, pids=None)
    for device in (failing, failing, WHOLE, failing, failing):
        lab.nvml.put(device)
        await lab.look()
        assert lab.seen(WHOLE).recovers is (device is failing)
    lab.nvml.put(WHOLE)
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.OK
    lab.nvml.put(failing)
    for _ in range(3):
        await lab.look()
    lab.nvml.put(WHOLE)
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.QUARANTINED


@pytest.mark.parametrize("code", [4, 2, 16])
async def test_an_error_that_has_another_cause_is_not_counted(lab: Lab, code: int) -> None:
    """A process that may not ask says nothing of the board: when it may again, the GPU is as it was."""
    lab.nvml.put(gpu(0, state=DeviceState.QUARANTINED, error=code, pids=None))
    for _ in range(9):
        await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.QUARANTINED
    lab.nvml.put(WHOLE)
    await lab.look()
    assert lab.seen(WHOLE).state is DeviceState.OK


@pytest.mark.parametrize("failing", ["observe", "quarantine", "note_error"])
async def test_an_error_outlasts_a_ledger_that_cannot_be_written(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """NVML tells it once; it is carried out as soon as there is room on the disk."""

    def full(*_: object, **__: object) -> None:
        raise LedgerUnavailable("disk full")

    lab.nvml.xid(WHOLE, 79)
    lab.nvml.put(gpu(1, state=DeviceState.LOST, pids=None))
    with monkeypatch.context() as patch:
        patch.setattr(lab.service.upkeep._care._records, failing, full)
        with pytest.raises(LedgerUnavailable):
            await lab.look()
    lab.nvml.put(gpu(1, state=DeviceState.LOST, pids=None))
    await lab.look()
    assert "XID 79" in (lab.seen(WHOLE).remark or "")
    assert "off the bus" in (lab.seen(gpu(1)).remark or "")


def errors(lab: Lab) -> list[tuple[str, int]]:
    """Device and code of each error in the ledger."""
    found = lab.service._ledger.read("SELECT device, xid FROM device_errors ORDER BY number")
    return [(str(device), int(xid)) for device, xid in found]


async def test_the_kernel_log_is_heard_while_nvml_is_not(lab: Lab) -> None:
    """Its errors take the same way: quarantine, loss, note and record, with who told them; NVML's later word adds none."""
    held, others = await lab.leased(PART, 1), await lab.leased(OTHER, 2)
    lab.nvml.problem, lab.nvml.kind = "it hangs", Problem.UNRESPONSIVE
    await lab.look()
    with structlog.testing.capture_logs() as lines:
        lab.service.hearing.logged(logged(PART, 95))
        await lab.look()
        await lab.look()
    snapshot = lab.service.watch.snapshot
    assert snapshot is not None
    assert snapshot.devices[PART.uuid].state is DeviceState.QUARANTINED
    assert "told by the kernel log alone" in (snapshot.devices[PART.uuid].remark or "")
    assert snapshot.devices[OTHER.uuid].state is DeviceState.UNRESPONSIVE
    assert (await lab.is_lost(held), await lab.is_lost(others)) == (True, False)
    assert lab.is_noted(held, "XID 95", "told by the kernel log alone", "lost to you")
    (line,) = [line for line in lines if line["event"] == "gpu.xid"]
    assert (line["device"], line["xid"], line["source"]) == (PART.uuid, 95, "kernel_log")
    lab.nvml.problem = None
    lab.nvml.xid(PART, 95)
    await lab.look()
    assert errors(lab) == [(PART.uuid, 95)]
    assert lab.seen(PART).state is DeviceState.QUARANTINED


async def test_the_kernel_log_is_heard_of_a_gpu_that_is_gone(lab: Lab) -> None:
    """NVML names it no more, and the log still does."""
    lab.nvml.take(WHOLE.uuid)
    await lab.look()
    lab.service.hearing.logged(logged(WHOLE, 79))
    await lab.look()
    lab.nvml.put(WHOLE)
    await lab.look()
    assert "XID 79" in (lab.seen(WHOLE).remark or "")


async def test_a_programs_error_in_the_log_is_told_to_its_owner(lab: Lab) -> None:
    """In the name of the log, where NVML had its chance; two users' errors with three lines each are no five."""
    for owner in (1, 2):
        held = await lab.leased(WHOLE, owner)
        for _ in range(3):
            lab.service.hearing.logged(logged(WHOLE, 13))
        await lab.look()
        assert lab.is_noted(
            held, "XID 13 (engine exception; told by the kernel log alone) on GPU 0: an error of"
        )
        await lab.service.release(held.id, who="x", why="done")
    assert errors(lab) == [(WHOLE.uuid, 13)] * 2
    assert lab.seen(WHOLE).remark is None


async def test_what_the_log_told_outlasts_a_ledger_that_cannot_be_written(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is carried out as soon as there is room on the disk, whether NVML answers by then or not."""

    def full(*_: object, **__: object) -> None:
        raise LedgerUnavailable("disk full")

    lab.nvml.problem = "it hangs"
    lab.service.hearing.logged(logged(WHOLE, 79))
    with monkeypatch.context() as patch:
        patch.setattr(lab.service.upkeep._care._records, "note_error", full)
        with pytest.raises(LedgerUnavailable):
            await lab.look()
    await lab.look()
    assert errors(lab) == [(WHOLE.uuid, 79)]


async def test_an_admin_takes_a_device_out_and_puts_it_back(lab: Lab) -> None:
    """At once, without a look; who holds it goes on and is told both."""
    held = await lab.leased(WHOLE)
    assert await lab.service.upkeep.quarantine(WHOLE.uuid, who="root", why="a new cooler on Friday")
    assert lab.seen(WHOLE).state is DeviceState.QUARANTINED
    await lab.look()
    assert not await lab.is_lost(held)
    assert lab.is_noted(held, "a new cooler on Friday", "yours until you remove", "not start again before")
    assert await lab.service.upkeep.release(WHOLE.uuid, who="root", why="done")
    assert lab.is_noted(held, "in service again")
    assert lab.seen(WHOLE).state is DeviceState.OK
    assert not await lab.service.upkeep.release(WHOLE.uuid, who="root", why="twice")
    assert not await lab.service.upkeep.quarantine(DeviceUuid("GPU-never"), who="root", why="no such")


async def test_a_quarantined_gpu_takes_its_parts_along(lab: Lab) -> None:
    """No MIG device of it is leased; one whole device that is fit serves who waits."""
    await lab.service.upkeep.quarantine(gpu(1).uuid, who="root", why="fan")
    assert lab.seen(PART).state is DeviceState.QUARANTINED
    outcome = await lab.service.lease(want(count=None, device_ids=(PART.uuid,)))
    assert isinstance(outcome, Refusal)
    assert "quarantined" in outcome.message


async def test_notes_end_with_the_lease(lab: Lab) -> None:
    """The next holder hears nothing of the last one's errors."""
    held = await lab.leased(WHOLE)
    lab.nvml.xid(WHOLE, 31)
    await lab.look()
    await lab.service.release(held.id, who="x", why="removed")
    await lab.look()
    assert lab.service.upkeep.note(held.id) is None


async def test_what_a_silent_gpu_hides_is_not_lost(lab: Lab) -> None:
    """While a GPU that never answered may be the one, the lease of a missing device stays."""
    held = await lab.leased(WHOLE)
    await lab.restart()
    lab.nvml.take(WHOLE.uuid)
    lab.nvml.snapshot = replace(lab.nvml.snapshot, complete=False, unidentified={"0": "no answer"})
    await lab.look()
    assert not await lab.is_lost(held)
    lab.nvml.snapshot = replace(lab.nvml.snapshot, complete=True, unidentified={})
    await lab.look()
    assert await lab.is_lost(held)


async def test_who_holds_a_device_that_vanishes_is_told(lab: Lab) -> None:
    """Of a MIG device that was destroyed, and once more when one comes back in its place; a neighbour hears nothing."""
    held, beside = await lab.leased(PART, 1), await lab.leased(OTHER, 2)
    lab.nvml.take(PART.uuid)
    await lab.look()
    assert await lab.is_lost(held)
    assert lab.is_noted(held, f"device {PART.uuid} is gone", "lost to you")
    await lab.restart()
    assert lab.is_noted(held, "is gone")
    lab.nvml.put(PART)
    await lab.look()
    assert lab.is_noted(held, "MIG device 1:0 was gone, and has come back as another", "lost to you")
    assert lab.service.upkeep.note(beside.id) is None


async def test_who_holds_several_devices_is_told_of_all(lab: Lab) -> None:
    """In one note, which is not told anew by each look."""
    held = await lab.service.lease(want(count=None, device_ids=(PART.uuid, OTHER.uuid)))
    assert isinstance(held, Lease)
    lab.nvml.take(PART.uuid)
    await lab.service.upkeep.quarantine(OTHER.uuid, who="root", why="fan")
    with structlog.testing.capture_logs() as lines:
        for _ in range(3):
            await lab.look()
    assert lab.is_noted(held, f"device {PART.uuid} is gone", "MIG device 1:1 is out of service: fan")
    assert [line["event"] for line in lines].count("holder.told") == 1


async def test_who_holds_a_device_of_a_hung_driver_is_told(lab: Lab) -> None:
    """After half a minute, every holder, over a restart; the leases stay, and so is told that it answers again."""
    held, others = await lab.leased(WHOLE, 1), await lab.leased(OTHER, 2)
    lab.nvml.problem, lab.nvml.kind = "it hangs", Problem.UNRESPONSIVE
    await lab.look()
    for _ in range(5):
        await lab.look()
        assert lab.service.upkeep.note(held.id) is None
    await lab.look()
    for lease in (held, others):
        assert lab.is_noted(lease, "the NVIDIA driver has not answered", "30 seconds or more", "yours until")
        assert not await lab.is_lost(lease)
    await lab.restart()
    assert lab.is_noted(held, "has not answered")
    lab.nvml.problem = None
    await lab.look()
    for lease in (held, others):
        assert lab.is_noted(lease, "answers for your devices again")
        assert not await lab.is_lost(lease)


async def test_another_outage_is_no_silence(lab: Lab) -> None:
    """A driver that says at once that it is not loaded has answered."""
    held = await lab.leased(WHOLE)
    lab.nvml.problem, lab.nvml.kind = "not loaded", Problem.NO_DRIVER
    for _ in range(9):
        await lab.look()
    assert lab.service.upkeep.note(held.id) is None


async def test_who_holds_what_a_silent_gpu_hides_is_told(lab: Lab) -> None:
    """A GPU that has never answered since the restart has no name; its holders are told after half a minute."""
    held, others = await lab.leased(WHOLE, 1), await lab.leased(OTHER, 2)
    await lab.restart()
    whole = lab.nvml.snapshot.devices[WHOLE.uuid]
    rest = {uuid: device for uuid, device in lab.nvml.snapshot.devices.items() if uuid != WHOLE.uuid}
    lab.nvml.snapshot = replace(
        lab.nvml.snapshot, devices=rest, complete=False, unidentified={"0": "it has never answered"}
    )
    for _ in range(6):
        await lab.look()
        assert lab.service.upkeep.note(held.id) is None
    await lab.look()
    assert lab.is_noted(held, "has not answered", "30 seconds or more")
    lab.nvml.snapshot = replace(
        lab.nvml.snapshot, devices={**rest, WHOLE.uuid: whole}, complete=True, unidentified={}
    )
    await lab.look()
    assert lab.is_noted(held, "answers for your devices again")
    assert lab.service.upkeep.note(others.id) is None


async def test_what_leases_use_is_written_down(lab: Lab) -> None:
    """The service's own looks tick: time, utilisation, memory and energy of the lease, also over a restart."""
    held = await lab.leased(WHOLE)
    for number in range(4):
        measures = Measures(utilisation_percent=25.0, memory_used_mib=100 * number, energy_mj=1000 * number)
        lab.nvml.put(gpu(0, measures=measures))
        await lab.look()
        await lab.restart()
    await lab.look()
    (row,) = UsageRecords(lab.service._ledger).of_lease(held.id)
    assert row.gpu_seconds == 25
    assert (row.utilisation_percent, row.memory_max_mib, row.energy_mj) == (25, 300, 3000)


async def test_the_holder_is_told_of_an_intruder(lab: Lab) -> None:
    """By the device, over a restart too; whose the process is, is not said, and no other holder hears of it."""
    held, beside = await lab.leased(PART), await lab.leased(OTHER, owner=1001)
    await lab.service.upkeep.tell_of_intruder(held.id, PART.uuid)
    with structlog.testing.capture_logs() as logs:
        await lab.service.upkeep.tell_of_intruder(held.id, PART.uuid)
        await lab.service.upkeep.tell_of_intruder(LeaseId("no such lease"), PART.uuid)
    assert logs == []
    await lab.restart()
    await lab.look()
    assert lab.is_noted(held, "not yours was seen on MIG device 1:0", "tell the admin")
    assert lab.service.upkeep.note(beside.id) is None
