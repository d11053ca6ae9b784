"""Laws of placement, on machines of any shape."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from allocator import place as placing
from allocator.board import Board
from allocator.model import (
    Device,
    DeviceKind,
    DeviceState,
    GpuRequest,
    Lease,
    Placement,
    Refusal,
    RefusalKind,
    Snapshot,
)
from tests.fakes.fake_nvml import A100_40, gpu, mig, snapshot
from tests.fakes.free_devices import free_by_hand
from tests.fakes.leasing import lease, want


def place(machine: Snapshot, leases: tuple[Lease, ...], asked: GpuRequest) -> Placement | Refusal:
    return placing.place(Board(machine, leases), asked)


PIDS = st.sampled_from([(), (), (), (7,), None])
OWNERS = st.integers(1, 4)


@st.composite
def machines(draw: st.DrawFn) -> Snapshot:
    devices: list[Device] = []
    for number in range(draw(st.integers(0, 4))):
        parts = draw(st.lists(st.sampled_from(sorted(A100_40)), max_size=4))
        mode = DeviceState.UNUSABLE if parts else draw(st.sampled_from([DeviceState.OK, *DeviceState]))
        devices.append(gpu(number, state=mode, pids=draw(PIDS)))
        devices += [mig(number, place_, name, pids=draw(PIDS)) for place_, name in enumerate(parts)]
    return snapshot(*devices)


@st.composite
def situations(draw: st.DrawFn) -> tuple[Snapshot, tuple[Lease, ...], GpuRequest]:
    machine = draw(machines())
    names = sorted(machine.devices)
    held = draw(st.sets(st.sampled_from(names), max_size=5)) if names else set()
    leases = tuple(lease(f"l{index}", uuid, owner=draw(OWNERS)) for index, uuid in enumerate(sorted(held)))
    spellings = st.sampled_from(
        [*names, *(device.index for device in machine.devices.values()), "9", "MIG-0000"]
    )
    asked: dict[str, object] = draw(
        st.one_of(
            st.builds(dict, count=st.integers(1, 5)),
            st.builds(
                dict, count=st.none(), device_ids=st.lists(spellings, min_size=1, max_size=3).map(tuple)
            ),
        )
    )
    return machine, leases, want(owner_uid=draw(OWNERS), limit=draw(st.integers(0, 6)), **asked)


@given(situations())
def test_a_placement_takes_free_devices_within_the_limit(
    case: tuple[Snapshot, tuple[Lease, ...], GpuRequest],
) -> None:
    """What is placed is distinct, sorted, free, usable, of one kind for a count, and within the owner's limit."""
    machine, leases, asked = case
    outcome = place(machine, leases, asked)
    if not isinstance(outcome, Placement):
        return
    chosen = [machine.devices[uuid] for uuid in outcome.devices]
    held = {uuid for item in leases for uuid in item.devices}
    assert list(outcome.devices) == sorted(set(outcome.devices))
    assert not held & set(outcome.devices)
    assert all(device.pids == () and device.state is DeviceState.OK for device in chosen)
    assert not held & {device.parent for device in chosen}
    mine = sum(len(item.devices) for item in leases if item.owner_uid == asked.owner_uid)
    assert mine + len(chosen) <= asked.limit
    if asked.count:
        assert len(chosen) == asked.count
        assert len({device.kind for device in chosen}) == 1


@given(situations())
def test_a_count_is_refused_only_for_a_reason(case: tuple[Snapshot, tuple[Lease, ...], GpuRequest]) -> None:
    """If one kind has enough free devices and the limit allows, a count is placed."""
    machine, leases, asked = case
    if not asked.count:
        return
    held = [uuid for item in leases for uuid in item.devices]
    free = [machine.devices[uuid] for uuid in free_by_hand(machine, held)]
    most = max(sum(device.kind is kind for device in free) for kind in DeviceKind)
    outcome = place(machine, leases, asked)
    if not isinstance(outcome, Placement) and outcome.kind is not RefusalKind.LIMIT:
        assert most < asked.count


@given(situations())
def test_order_does_not_matter(case: tuple[Snapshot, tuple[Lease, ...], GpuRequest]) -> None:
    """The same devices and leases in another order give the same devices."""
    machine, leases, asked = case
    backwards = snapshot(*list(machine.devices.values())[::-1])
    first, second = place(machine, leases, asked), place(backwards, leases[::-1], asked)
    assert isinstance(first, Placement) == isinstance(second, Placement)
    if isinstance(first, Placement):
        assert first == second


@given(situations(), st.integers(0, 6))
def test_a_tighter_limit_never_allows_more(
    case: tuple[Snapshot, tuple[Lease, ...], GpuRequest], less: int
) -> None:
    """What a limit refuses, a lower one refuses too."""
    machine, leases, asked = case
    tighter = want(
        owner_uid=asked.owner_uid,
        count=asked.count,
        device_ids=asked.device_ids,
        limit=max(0, asked.limit - less),
    )
    if isinstance(place(machine, leases, tighter), Placement):
        assert isinstance(place(machine, leases, asked), Placement)
