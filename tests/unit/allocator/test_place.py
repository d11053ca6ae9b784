"""Placement: which devices, and why not."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

import pytest

from allocator import place as placing
from allocator.board import Board
from allocator.model import DeviceState, Link, Placement, Refusal, RefusalKind, Snapshot
from policy.model import DeviceUuid
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, lease, want

if TYPE_CHECKING:
    from allocator.model import Device, GpuRequest, Lease

TWO_GPUS = snapshot(gpu(0), gpu(1))
SHARED = snapshot(gpu(0), *split(1, "3g.20gb", "1g.5gb", "1g.5gb"), *split(2, "1g.5gb", "1g.5gb"))


def placed(*uuids: str, worth: Fraction | int = 1) -> Placement:
    return Placement(devices=tuple(DeviceUuid(uuid) for uuid in uuids), equivalents=Fraction(worth))


def place(machine: Snapshot, leases: tuple[Lease, ...], asked: GpuRequest) -> Placement | Refusal:
    return placing.place(Board(machine, leases, Clock()()), asked)


def ids(*texts: str) -> dict[str, object]:
    return {"count": None, "device_ids": texts}


def refused(outcome: Placement | Refusal, kind: RefusalKind) -> str:
    assert isinstance(outcome, Refusal)
    assert outcome.kind is kind
    return outcome.message


@pytest.mark.parametrize(
    ("text", "uuid", "sevenths"),
    [
        pytest.param("0", gpu(0).uuid, 7, id="index"),
        pytest.param("1:2", mig(1, 2).uuid, 1, id="MIG notation"),
        pytest.param(gpu(0).uuid.upper(), gpu(0).uuid, 7, id="UUID in any case"),
        pytest.param("mig-00000002-0001", mig(2, 1).uuid, 1, id="unambiguous prefix"),
        pytest.param(f"MIG-{gpu(1).uuid}/7/0", mig(1, 0).uuid, 3, id="MIG form before driver 470"),
    ],
)
def test_each_spelling_names_its_device(text: str, uuid: DeviceUuid, sevenths: int) -> None:
    """A device can be asked for by index, MIG notation, UUID, legacy name or an unambiguous prefix."""
    assert place(SHARED, (), want(**ids(text))) == placed(uuid, worth=Fraction(sevenths, 7))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        pytest.param("7", RefusalKind.UNKNOWN_DEVICE, id="no such index"),
        pytest.param("MIG-0000", RefusalKind.AMBIGUOUS_DEVICE, id="ambiguous prefix"),
        pytest.param("GPU", RefusalKind.UNKNOWN_DEVICE, id="prefix too short"),
        pytest.param("", RefusalKind.UNKNOWN_DEVICE, id="empty"),
        pytest.param("all", RefusalKind.UNKNOWN_DEVICE, id="a word"),
        pytest.param("1", RefusalKind.NOT_USABLE, id="GPU split into MIG devices"),
    ],
)
def test_what_names_no_single_device_is_refused(text: str, kind: RefusalKind) -> None:
    """An id that names none, several, or a GPU in MIG mode is refused, and waiting is not offered."""
    outcome = place(SHARED, (), want(**ids(text)))
    assert "rule gpu_lease" in refused(outcome, kind)
    assert not outcome.waiting_helps  # type: ignore[union-attr]  # refused() checked it


def test_a_device_named_twice_counts_once() -> None:
    """Two spellings of one device are one device, in the grant and against the limit."""
    assert place(TWO_GPUS, (), want(limit=1, **ids("0", gpu(0).uuid))) == placed(gpu(0).uuid)


def test_an_empty_machine_says_there_is_none() -> None:
    """Without devices a named one is unknown and a count is too much."""
    assert "there are none" in refused(place(Snapshot(), (), want(**ids("0"))), RefusalKind.UNKNOWN_DEVICE)
    assert "this server has 0" in refused(place(Snapshot(), (), want()), RefusalKind.TOO_FEW)


def test_a_count_prefers_whole_gpus_and_never_mixes() -> None:
    """One device is the whole GPU; two are two MIG devices and not a GPU and a MIG device."""
    assert place(SHARED, (), want()) == placed(gpu(0).uuid)
    outcome = place(SHARED, (), want(count=2))
    assert isinstance(outcome, Placement)
    assert all(uuid.startswith("MIG-") for uuid in outcome.devices)


def test_classes_decide_what_a_count_takes() -> None:
    """With MIG devices asked for, the smallest on the fullest shared GPU is taken first."""
    only_mig = want(classes=("mig",))
    assert place(SHARED, (), only_mig) == placed(mig(2, 0).uuid, worth=Fraction(1, 7))
    held = (lease("a", mig(1, 0, "3g.20gb").uuid, owner=1),)
    assert place(SHARED, held, only_mig) == placed(mig(1, 1).uuid, worth=Fraction(1, 7))
    assert "0 of one kind" in refused(place(SHARED, (), want(classes=())), RefusalKind.TOO_FEW)


def test_unknown_memory_is_not_small() -> None:
    """A MIG device of unknown size is taken after those of known size."""
    machine = snapshot(gpu(0, state=DeviceState.UNUSABLE), mig(0, 0, memory_mib=None), mig(0, 1, "3g.20gb"))
    assert place(machine, (), want()) == placed(mig(0, 1).uuid, worth=Fraction(3, 7))


def test_the_limit_counts_what_the_owner_holds() -> None:
    """The owner's live leases and the request together may not pass the limit; others' do not count."""
    mine = (lease("a", gpu(0).uuid), lease("gone", "GPU-gone"))
    for wish in (want(limit=2), want(limit=2, **ids("1"))):
        text = refused(place(TWO_GPUS, mine, wish), RefusalKind.LIMIT)
        assert text.startswith("1 GPU asked, alice holds 2, limit is 2 (rule gpu_limit)")
    assert isinstance(place(TWO_GPUS, (lease("a", gpu(0).uuid, owner=1),), want(limit=1)), Placement)


@pytest.mark.parametrize(
    ("device", "why"),
    [
        pytest.param(gpu(0, pids=(77,)), "used by process 77", id="foreign process"),
        pytest.param(gpu(0, pids=None), "cannot be read", id="unknown processes"),
        pytest.param(gpu(0, state=DeviceState.LOST), "is lost", id="lost"),
        pytest.param(gpu(0, state=DeviceState.QUARANTINED), "is quarantined", id="quarantined"),
        pytest.param(gpu(0, state=DeviceState.UNUSABLE), "without MIG devices", id="MIG mode, no instances"),
    ],
)
def test_what_is_not_known_to_be_idle_is_not_free(device: object, why: str) -> None:
    """A process without a lease, an unread process list and every state but ok keep a device back."""
    machine = snapshot(device)  # type: ignore[arg-type]  # parametrised
    by_name, by_count = place(machine, (), want(**ids("0"))), place(machine, (), want())
    assert isinstance(by_count, Refusal)
    assert isinstance(by_name, Refusal)
    assert why in by_name.message
    assert Board(machine, ()).free == frozenset()


def test_a_full_machine_names_the_holders() -> None:
    """When all is held, the refusal says by whom, and that waiting helps."""
    held = (lease("a", gpu(0).uuid, owner=1), lease("b", gpu(1).uuid, owner=2))
    outcome = place(TWO_GPUS, held, want())
    assert "user1 (1 GPU), user2 (1 GPU)" in refused(outcome, RefusalKind.IN_USE)
    assert outcome.waiting_helps  # type: ignore[union-attr]  # refused() checked it
    assert "processes that hold no lease" in place(snapshot(gpu(0, pids=(1,))), (), want()).message  # type: ignore[union-attr]  # a refusal


def test_the_incurable_obstacle_is_said_first() -> None:
    """Of a held and a lost device, the lost one is named: waiting for the held one would be in vain."""
    machine = snapshot(gpu(0), gpu(1, state=DeviceState.LOST))
    refused(
        place(machine, (lease("a", gpu(0).uuid, owner=1),), want(**ids("0", "1"))), RefusalKind.NOT_USABLE
    )


def test_a_lease_reaches_parent_and_parts() -> None:
    """While a GPU is leased its MIG devices are not free, and while a MIG device is, its GPU is not."""
    machine = snapshot(gpu(0), mig(0, 0))
    by_parent, by_part = (lease("a", gpu(0).uuid, owner=1),), (lease("a", mig(0, 0).uuid, owner=1),)
    refused(place(machine, by_parent, want(**ids("0:0"))), RefusalKind.IN_USE)
    refused(place(machine, by_part, want(**ids("0"))), RefusalKind.IN_USE)


def part(parent: int, place_: int, profile: str, instance: int) -> Device:
    return mig(parent, place_, profile, gpu_instance_id=instance)


def mode(number: int) -> Device:
    return gpu(number, state=DeviceState.UNUSABLE)


@pytest.mark.parametrize(
    ("asked", "taken"),
    [
        pytest.param({"profile": "1g.5gb"}, "1:2", id="the half that is broken already"),
        pytest.param({"profile": "2g.10gb"}, "1:1", id="a shared GPU before an unshared one"),
        pytest.param(
            {"profile": "3g.20gb"}, "2:1", id="the upper half, since a 4g fits in the lower one alone"
        ),
        pytest.param({"profile": "any"}, "1:2", id="any is the smallest"),
        pytest.param({"memory_mib": 9000}, "1:1", id="the smallest that is large enough"),
        pytest.param({"memory_mib": 30000}, "0", id="a whole GPU if nothing smaller will do"),
        pytest.param({"profile": "full"}, "0", id="a whole GPU"),
        pytest.param({"classes": ("gpu", "mig")}, "0", id="the class that policy prefers"),
        pytest.param({"classes": ("2g.10gb", "gpu")}, "1:1", id="a profile as a class"),
    ],
)
def test_what_is_taken_leaves_most_whole(asked: dict[str, object], taken: str) -> None:
    """Shared before unshared, broken halves before whole ones, upper before lower, MIG devices before GPUs for a size."""
    machine = snapshot(
        gpu(0),
        *(mode(1), part(1, 0, "1g.5gb", 7), part(1, 1, "2g.10gb", 5), part(1, 2, "1g.5gb", 8)),
        *(part(1, 3, "1g.5gb", 14), mode(2), part(2, 0, "3g.20gb", 1), part(2, 1, "3g.20gb", 2)),
        *(mode(3), part(3, 0, "2g.10gb", 3), part(3, 1, "1g.5gb", 12)),
    )
    held = (lease("a", mig(1, 0).uuid, owner=1),)
    outcome = place(machine, held, want(**asked))
    assert isinstance(outcome, Placement)
    assert machine.devices[outcome.devices[0]].index == taken


LINKS = {
    (gpu(0).uuid, gpu(1).uuid): Link.NODE,
    (gpu(0).uuid, gpu(2).uuid): Link.SYSTEM,
    (gpu(0).uuid, gpu(3).uuid): Link.SYSTEM,
    (gpu(1).uuid, gpu(2).uuid): Link.SYSTEM,
    (gpu(1).uuid, gpu(3).uuid): Link.SYSTEM,
    (gpu(2).uuid, gpu(3).uuid): Link.NVLINK,
}
FOUR = tuple(gpu(number) for number in range(4))


@pytest.mark.parametrize(("count", "taken"), [(1, "0"), (2, "23"), (3, "023"), (4, "0123")])
def test_several_gpus_are_near_each_other(count: int, taken: str) -> None:
    """Two take the pair with NVLink; one leaves it alone."""
    machine = replace(snapshot(*FOUR), links=LINKS)
    outcome = place(machine, (), want(count=count))
    assert isinstance(outcome, Placement)
    assert "".join(machine.devices[uuid].index for uuid in outcome.devices) == taken


def test_unknown_links_are_far_and_without_any_the_index_decides() -> None:
    """A pair of which nothing is known is not taken for near."""
    known = {(gpu(1).uuid, gpu(3).uuid): Link.SINGLE}
    outcome = place(replace(snapshot(*FOUR), links=known), (), want(count=2))
    assert outcome == placed(gpu(1).uuid, gpu(3).uuid, worth=2)
    assert place(snapshot(*FOUR), (), want(count=2)) == placed(gpu(0).uuid, gpu(1).uuid, worth=2)


def test_near_sets_are_found_on_large_machines() -> None:
    """Where all sets cannot be compared, one is grown from each GPU."""
    gpus = [gpu(number) for number in range(16)]
    links = {
        (one.uuid, other.uuid): Link.NVLINK if int(one.index) % 2 == int(other.index) % 2 else Link.SYSTEM
        for at, one in enumerate(gpus)
        for other in gpus[at + 1 :]
    }
    outcome = place(replace(snapshot(*gpus), links=links), (), want(count=8))
    assert outcome == placed(*sorted(one.uuid for one in gpus[::2]), worth=8)


def test_equivalents_bound_what_is_chosen() -> None:
    """Whole GPUs pass the limit, so MIG devices are taken; of those the smallest, where larger ones would pass it."""
    machine = snapshot(gpu(0), *split(1, "3g.20gb", "2g.10gb", "1g.5gb"))
    outcome = place(machine, (), want(count=2, equivalents=Fraction(3, 7)))
    assert outcome == placed(mig(1, 1).uuid, mig(1, 2).uuid, worth=Fraction(3, 7))
    mine = (replace(lease("a", mig(1, 0, "3g.20gb").uuid), equivalents=Fraction(3, 7)),)
    refused(place(machine, mine, want(equivalents=Fraction(3, 7))), RefusalKind.LIMIT)
    other = (replace(lease("a", mig(1, 2).uuid, owner=1), equivalents=Fraction(1, 7)),)
    refused(place(machine, (*other, *mine), want(equivalents=Fraction(4, 7))), RefusalKind.IN_USE)


@pytest.mark.parametrize(
    ("asked", "kind"),
    [
        pytest.param(
            want(count=2, classes=("1g.5gb", "2g.10gb")), RefusalKind.TOO_FEW, id="two of two classes"
        ),
        pytest.param(
            want(count=2, profile="3g.20gb", equivalents=Fraction(4, 7)), RefusalKind.LIMIT, id="worth more"
        ),
        pytest.param(want(**ids("0", "9")), RefusalKind.UNKNOWN_DEVICE, id="no such"),
        pytest.param(want(**ids("0", "2")), RefusalKind.NOT_USABLE, id="lost"),
        pytest.param(want(limit=1, **ids("0", "1:0")), RefusalKind.LIMIT, id="named more than the limit"),
        pytest.param(want(), None, id="held"),
        pytest.param(want(**ids("1:0")), None, id="in use"),
    ],
)
def test_what_nothing_that_comes_back_can_cure(asked: GpuRequest, kind: RefusalKind | None) -> None:
    """Judged as if nobody had anything; in words for all who ask for it."""
    parts = (gpu(1, state=DeviceState.UNUSABLE), mig(1, 0, pids=(7,)), mig(1, 1, "2g.10gb"))
    machine = snapshot(gpu(0), *parts, gpu(2, state=DeviceState.LOST), *split(3, "3g.20gb", "3g.20gb"))
    board = Board(machine, (lease("a", gpu(0).uuid),))
    found = placing.hopeless(board, asked)
    assert (None if found is None else found.kind) == kind
    assert found is None or "alice" not in found.message
    assert placing.hopeless(board, replace(asked, request_id="another")) is found
