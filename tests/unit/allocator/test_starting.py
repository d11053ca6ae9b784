"""Which start may have its devices, which may not, and of which nobody can say."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.model import DeviceState, InventoryUnavailable, Lease, LeaseState
from allocator.readings import MigMode
from allocator.starting import is_gone, is_over
from policy.model import ContainerId
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, lease

if TYPE_CHECKING:
    from allocator.model import Device

ONE, TWO = ContainerId("1" * 64), ContainerId("2" * 64)
NOW = Clock()()
HELD = replace(lease("a", gpu(0).uuid), state=LeaseState.HELD, container=ONE)
PART = replace(lease("a", mig(2, 0).uuid), generations=(1,))
WHOLE = replace(lease("a", gpu(0).uuid), generations=(1,))


def whole(**changes: object) -> Device:
    return gpu(0, generation=1, **changes)


def part(**changes: object) -> Device:
    return mig(2, 0, "1g.5gb", generation=1, **changes)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        pytest.param(HELD, None, id="held"),
        pytest.param(replace(HELD, state=LeaseState.BOUND), None, id="never started"),
        pytest.param(replace(HELD, state=LeaseState.ACTIVE, seconds=1), None, id="with time left"),
        pytest.param(
            replace(HELD, state=LeaseState.PENDING, container=ContainerId("d" * 64)),
            "has ended",
            id="another's, not confirmed",
        ),
        pytest.param(replace(HELD, state=LeaseState.RELEASED), "has ended", id="released"),
        pytest.param(replace(HELD, state=LeaseState.LOST), "has lost a device", id="lost"),
        pytest.param(replace(HELD, seconds=0), "has ended", id="its time is over"),
        pytest.param(replace(HELD, container=TWO), "has ended", id="another container's"),
    ],
)
def test_a_lease_that_is_over_starts_nothing(item: Lease, said: str | None) -> None:
    """Whatever has become of its devices, and with the next step."""
    found = is_over(item, ONE, NOW)
    assert (found is None) is (said is None)
    if said is not None:
        assert found == (
            f"the GPU lease a of this container {said} (rule gpu_lease);"
            " create the container again to get a new one"
        )


@pytest.mark.parametrize(
    "device",
    [
        pytest.param(whole(), id="as it was"),
        pytest.param(whole(state=DeviceState.DRAINING), id="draining: who holds it goes on"),
        pytest.param(
            whole(state=DeviceState.UNUSABLE, mig_mode=MigMode(current=False, pending=True)),
            id="a mode that waits for a reset",
        ),
    ],
)
def test_what_is_there_starts(device: Device) -> None:
    """Also what nobody new would get."""
    assert is_gone(WHOLE, snapshot(device)) is None


def test_a_mig_device_as_it_was_starts() -> None:
    """Beside others of its GPU."""
    assert is_gone(PART, snapshot(*split(2, "1g.5gb", "1g.5gb"), part())) is None


@pytest.mark.parametrize(
    ("item", "devices", "said"),
    [
        pytest.param(PART, (gpu(2),), f"device {mig(2, 0).uuid} of this container is not there", id="gone"),
        pytest.param(
            PART, (mig(2, 0, generation=2),), "MIG device 2:0 of this container is another one", id="anew"
        ),
        pytest.param(WHOLE, (whole(state=DeviceState.LOST),), "GPU 0 of this container is lost", id="lost"),
        pytest.param(
            WHOLE,
            (whole(state=DeviceState.QUARANTINED, remark="a new cooler"),),
            "GPU 0 of this container is out of service: a new cooler",
            id="in quarantine",
        ),
        pytest.param(
            PART,
            (part(state=DeviceState.QUARANTINED),),
            "MIG device 2:0 of this container is out of service (rule",
            id="in quarantine, nobody knows why",
        ),
        pytest.param(
            WHOLE,
            (whole(state=DeviceState.UNUSABLE, mig_mode=MigMode(current=True, pending=True)),),
            "GPU 0 of this container was split into MIG devices",
            id="split",
        ),
        pytest.param(
            WHOLE, (whole(state=DeviceState.UNUSABLE),), "was split into MIG devices", id="in a mode not told"
        ),
    ],
)
def test_what_is_not_what_was_leased_does_not_start(
    item: Lease, devices: tuple[Device, ...], said: str
) -> None:
    """In words that name the device, the rule and the next step."""
    found = is_gone(item, snapshot(*devices)) or ""
    assert said in found
    assert "(rule gpu_lease); " in found
    assert found.endswith("create the container again to get another")


@pytest.mark.parametrize(
    ("item", "devices"),
    [
        pytest.param(WHOLE, (whole(state=DeviceState.UNRESPONSIVE),), id="does not answer"),
        pytest.param(PART, (part(state=DeviceState.UNUSABLE),), id="is being made anew"),
        pytest.param(PART, (), id="was not looked at"),
    ],
)
def test_of_what_nobody_can_say_nothing_is_said(item: Lease, devices: tuple[Device, ...]) -> None:
    """Unknown is neither yes nor no."""
    with pytest.raises(InventoryUnavailable):
        is_gone(item, replace(snapshot(*devices), complete=False))


def test_what_a_reboot_took_is_waited_for() -> None:
    """It is being made again: neither there nor gone."""
    awaited = replace(snapshot(gpu(2)), awaited=frozenset(PART.devices))
    with pytest.raises(InventoryUnavailable, match="is being made again after the reboot"):
        is_gone(PART, awaited)
    assert is_gone(PART, replace(awaited, awaited=frozenset({gpu(0).uuid}))) is not None


def test_every_device_counts() -> None:
    """One that is another by now is enough."""
    both = replace(lease("a", gpu(0).uuid, gpu(1).uuid), generations=(1, 1))
    assert is_gone(both, snapshot(whole(), gpu(1, generation=1))) is None
    assert is_gone(both, snapshot(whole(), gpu(1, generation=2))) is not None
