"""Devices of grants: which can be named, which files they come to, and when a grant of them is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from allocator.device_policy import gpu_nodes
from allocator.granted_devices import GrantedDevice, choose, files, why_over
from allocator.mig_capabilities import FilesUnknown
from allocator.model import Device, DeviceState, Refusal, Snapshot
from allocator.readings import MigMode
from tests.fakes.fake_nvml import gpu, mig, snapshot
from tests.fakes.host_access import Table, machine

MACHINE = snapshot(*machine())
SPLIT, FIRST, SECOND = MACHINE.devices[gpu(2).uuid], mig(2, 0).uuid, mig(2, 1).uuid
OF_FIRST = (GrantedDevice(uuid=FIRST, generation=1),)
# Of GPU instances 7 and 8 of the GPU whose file is /dev/nvidia2.
CAPABILITIES = {FIRST: (336, 337), SECOND: (345, 346)}


def with_(device: Device, **changes: object) -> Snapshot:
    changed = replace(device, **changes)  # type: ignore[arg-type]  # tests pass fields by name
    return replace(MACHINE, devices={**MACHINE.devices, device.uuid: changed})


def chosen(names: Sequence[str], told: Snapshot = MACHINE) -> tuple[GrantedDevice, ...]:
    found = choose(names, told)
    assert not isinstance(found, Refusal), found
    return found


@pytest.mark.parametrize("name", ["2:0", FIRST, FIRST.casefold(), FIRST[:18], f"MIG-{gpu(2).uuid}/7/0"])
def test_a_mig_device_is_its_gpus_file_and_its_two_capabilities(name: str) -> None:
    """However it is named; of its neighbour on the GPU there is nothing."""
    assert chosen([name]) == OF_FIRST
    nodes = files(OF_FIRST, MACHINE, Table())
    assert nodes == gpu_nodes([2], CAPABILITIES[FIRST])
    assert [str(node) for node in nodes if "cap" in node.name] == [
        "/dev/nvidia-caps/nvidia-cap336 r",
        "/dev/nvidia-caps/nvidia-cap337 r",
    ]


def test_several_devices_are_the_files_of_each() -> None:
    """A GPU has no capabilities; each device is granted once."""
    both = chosen(["2:1", "2:0", "2:1"])
    assert files(both, MACHINE, Table()) == gpu_nodes([2], [*CAPABILITIES[FIRST], *CAPABILITIES[SECOND]])
    assert files(chosen(["1"]), MACHINE, Table()) == gpu_nodes([1])
    assert files(chosen(["0", "2:1"]), MACHINE, Table()) == gpu_nodes([0, 2], CAPABILITIES[SECOND])


MODES = [MigMode(current=now, pending=later) for now, later in ((True, True), (True, False), (False, True))]


@pytest.mark.parametrize("mode", MODES, ids=["in it", "leaves it", "will be in it"])
def test_a_whole_gpu_in_mig_mode_is_refused(mode: MigMode) -> None:
    """Its file opens nothing as long as it is split, and everything afterwards: neither is what was asked for."""
    told = choose(["2"], with_(SPLIT, mig_mode=mode))
    assert isinstance(told, Refusal)
    assert "name its MIG devices: 2:0, 2:1" in told.message
    out = choose(["2"], with_(SPLIT, mig_mode=mode, state=DeviceState.QUARANTINED))
    assert isinstance(out, Refusal)
    alone = choose(["2"], snapshot(replace(SPLIT, mig_mode=mode)))
    assert isinstance(alone, Refusal)
    assert "it has no MIG device" in alone.message


@pytest.mark.parametrize("mode", [*MODES[1:], None], ids=["leaves it", "will be in it", "unknown"])
def test_a_mig_device_whose_gpu_may_be_whole_is_refused(mode: MigMode | None) -> None:
    """Its GPU's file would be that of the whole GPU; unknown counts as that."""
    told = with_(SPLIT, mig_mode=mode)
    assert isinstance(choose(["2:0"], told), Refusal)
    with pytest.raises(FilesUnknown):
        files(OF_FIRST, told, Table())


def test_a_device_that_is_out_of_service_can_be_granted_and_a_lost_one_cannot() -> None:
    """To look at what is wrong with it is a reason for a grant."""
    first = MACHINE.devices[gpu(1).uuid]
    assert chosen(["1"], with_(first, state=DeviceState.QUARANTINED))
    assert isinstance(choose(["1"], with_(first, state=DeviceState.LOST)), Refusal)
    assert isinstance(choose(["7"], MACHINE), Refusal)


GONE = snapshot(*(device for device in machine() if device.uuid != FIRST))
FIRST_DEVICE = MACHINE.devices[FIRST]
OVER: dict[str, tuple[Snapshot, str | None]] = {
    "as it was": (MACHINE, None),
    "gone": (GONE, "has gone"),
    "not seen by a look that is not complete": (replace(GONE, complete=False), None),
    "came back as another": (with_(FIRST_DEVICE, generation=2), "has gone"),
    "lost": (with_(FIRST_DEVICE, state=DeviceState.LOST), "has gone"),
    "out of service": (with_(FIRST_DEVICE, state=DeviceState.QUARANTINED), None),
    "the mode is off": (with_(SPLIT, mig_mode=MigMode(current=False, pending=False)), "leaves MIG mode"),
    "the mode goes off with a reset": (with_(SPLIT, mig_mode=MODES[1]), "leaves MIG mode"),
    "the mode cannot be told": (with_(SPLIT, mig_mode=None), None),
}


@pytest.mark.parametrize(("told", "why"), OVER.values(), ids=OVER.keys())
def test_when_a_grant_of_a_mig_device_is_over(told: Snapshot, why: str | None) -> None:
    """What is not known for certain ends nothing, and gives nothing either."""
    said = why_over(OF_FIRST, told)
    assert (said is None) == (why is None)
    assert why is None or why in (said or "")


def test_a_whole_gpu_that_is_split_later_stays_granted() -> None:
    """Its file opens no MIG device, and it is what was granted once it is whole again."""
    of_gpu = (GrantedDevice(uuid=SPLIT.uuid, generation=1),)
    assert why_over(of_gpu, MACHINE) is None
    assert files(of_gpu, MACHINE, Table()) == gpu_nodes([2])


UNKNOWN: dict[str, Callable[[], Snapshot]] = {
    "no number of its file": lambda: with_(FIRST_DEVICE, minor=None),
    "no GPU instance": lambda: with_(FIRST_DEVICE, gpu_instance_id=None),
    "no compute instance": lambda: with_(FIRST_DEVICE, compute_instance_id=None),
    "gone": lambda: replace(GONE, complete=False),
    "another": lambda: with_(FIRST_DEVICE, generation=2),
}


@pytest.mark.parametrize("told", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_files_that_are_not_known_are_none(told: Callable[[], Snapshot]) -> None:
    """Nothing is guessed, and nothing is given of the rest."""
    with pytest.raises(FilesUnknown):
        files((*OF_FIRST, GrantedDevice(uuid=gpu(0).uuid, generation=1)), told(), Table())
