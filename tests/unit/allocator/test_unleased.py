"""Whether a process is on a device of its container's lease: tables of leases, devices and attributions."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.attribution import Attribution, Kind, Seen
from allocator.model import DeviceState
from allocator.readings import MigMode
from allocator.unleased import Books, holder, is_leased, is_ours
from policy.model import ContainerId, Uid
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import foreign, lease

if TYPE_CHECKING:
    from allocator.foreign import Foreign
    from allocator.model import Device, Lease

WEB, OTHER, OLD = ContainerId("a" * 64), ContainerId("b" * 64), ContainerId("f" * 64)
ALICE, BOB = Uid(1000), Uid(1001)
IN_WEB = Attribution(kind=Kind.CONTAINER, owner=ALICE, container=WEB)
IN_OLD = Attribution(kind=Kind.CONTAINER, container=OLD)
ADOPTED = replace(IN_OLD, owner=ALICE)
ELSEWHERE = Attribution(kind=Kind.OTHER_CONTAINER, container=WEB)
WHOLE, SECOND, SPLIT, PART, BESIDE = gpu(0), gpu(1), gpu(2), mig(2, 0), mig(2, 1)
EMPTY = gpu(3, mig_mode=MigMode(current=True, pending=True), state=DeviceState.UNUSABLE)
LOOK = snapshot(WHOLE, SECOND, *split(2, "1g.5gb", "1g.5gb"), EMPTY)


def seen(device: Device, instance: int | None = None) -> Seen:
    return Seen(pid=5, device=device.uuid, gpu_instance_id=instance)


def webs(*devices: Device) -> Lease:
    return lease("web", *(one.uuid for one in devices), container=WEB)


def others(*devices: Device) -> Lease:
    return lease("other", *(one.uuid for one in devices), owner=BOB, container=OTHER)


def books(*leases: Lease, old: Foreign | None = None) -> Books:
    return Books(snapshot=LOOK, leases=leases, foreign={} if old is None else {OLD: old})


@pytest.mark.parametrize(
    ("on", "leases", "expected"),
    [
        pytest.param(seen(WHOLE), [webs(WHOLE)], True, id="its own"),
        pytest.param(seen(SECOND), [webs(WHOLE, SECOND)], True, id="the second of its own"),
        pytest.param(seen(WHOLE), [others(WHOLE)], False, id="another's"),
        pytest.param(seen(WHOLE), [webs(SECOND), others(WHOLE)], False, id="another's beside its own"),
        pytest.param(seen(WHOLE), [], False, id="a free one"),
        pytest.param(seen(WHOLE), [lease("new", WHOLE.uuid)], False, id="a lease without a container"),
        pytest.param(seen(PART), [webs(PART)], True, id="its own part"),
        pytest.param(seen(PART, 7), [webs(BESIDE), others(PART)], False, id="another's part of one GPU"),
        pytest.param(seen(PART), [webs(SPLIT)], True, id="a part of its whole GPU"),
        pytest.param(seen(SPLIT), [webs(PART)], None, id="on a split GPU, on which part is not said"),
        pytest.param(seen(SPLIT), [webs(PART, BESIDE)], True, id="whichever part it is on"),
        pytest.param(seen(SPLIT), [webs(WHOLE), others(PART)], False, id="on no part of its own"),
        pytest.param(seen(SPLIT, 13), [webs(PART)], None, id="on an instance that the look has not"),
        pytest.param(seen(SPLIT, 13), [], False, id="on such an instance, without any lease"),
        pytest.param(seen(EMPTY), [webs(WHOLE)], None, id="in MIG mode, without parts"),
        pytest.param(seen(gpu(9)), [webs(WHOLE)], None, id="a device that the look has not"),
    ],
)
def test_a_container_of_ds01s_is_held_to_its_lease(
    on: Seen, leases: list[Lease], expected: bool | None
) -> None:
    """By the device itself or its GPU; what cannot be told is neither yes nor no."""
    assert is_leased(on, IN_WEB, books(*leases)) is expected


@pytest.mark.parametrize(
    ("found", "leases", "old", "expected"),
    [
        pytest.param(IN_OLD, [], foreign("0"), None, id="free: it takes what nobody leases"),
        pytest.param(IN_OLD, [others(WHOLE)], foreign("0"), False, id="leased to another"),
        pytest.param(IN_OLD, [others(SECOND)], foreign("0"), None, id="another device is leased"),
        pytest.param(IN_OLD, [others(WHOLE)], foreign("0", monitor=True), None, id="a monitor"),
        pytest.param(IN_OLD, [others(WHOLE)], None, False, id="nobody's, and not told as foreign"),
        pytest.param(ADOPTED, [lease("x", WHOLE.uuid, container=OLD)], foreign("0"), True, id="adopted"),
        pytest.param(
            ADOPTED, [lease("x", SECOND.uuid, container=OLD)], foreign("0"), False, id="adopted, elsewhere"
        ),
        pytest.param(ADOPTED, [], foreign("0"), None, id="adopted without a lease"),
        pytest.param(ADOPTED, [others(WHOLE)], foreign("0"), False, id="adopted, on another's"),
    ],
)
def test_a_container_that_ds01_did_not_make_may_have_what_nobody_leases(
    found: Attribution, leases: list[Lease], old: Foreign | None, expected: bool | None
) -> None:
    """With a lease, by adoption, it is held to that; a monitor of the policy to nothing."""
    assert is_leased(seen(WHOLE), found, books(*leases, old=old)) is expected


@pytest.mark.parametrize(
    ("found", "leases", "expected"),
    [
        pytest.param(Attribution(kind=Kind.BUILD_STEP, step="x" * 25), [], False, id="a build step"),
        pytest.param(ELSEWHERE, [], False, id="another engine's"),
        pytest.param(ELSEWHERE, [webs(WHOLE)], None, id="one that may not be told yet"),
        pytest.param(replace(ELSEWHERE, container=None), [others(WHOLE)], False, id="of no name"),
        pytest.param(Attribution(kind=Kind.USER, owner=BOB), [others(WHOLE)], None, id="a person's"),
        pytest.param(
            Attribution(kind=Kind.SERVICE), [others(WHOLE)], None, id="the system's, as an MPS server"
        ),
        pytest.param(Attribution(kind=Kind.UNKNOWN), [others(WHOLE)], None, id="unattributed"),
    ],
)
def test_what_is_in_no_known_container(
    found: Attribution, leases: list[Lease], expected: bool | None
) -> None:
    """Builds and other engines lease nothing; processes outside containers and unattributed ones are not judged."""
    assert is_leased(seen(WHOLE), found, books(*leases)) is expected


def test_the_holder_is_who_leases_all_that_it_may_be_on() -> None:
    """Of two who share a GPU neither, as long as it is not said on whose part the process is."""
    one, other = webs(PART), others(BESIDE)
    assert holder(seen(PART), books(one, other)) == one
    assert holder(seen(SPLIT), books(one, other)) is None
    assert holder(seen(WHOLE), books(one, other)) is None
    assert holder(seen(PART), books(others(SPLIT))) == others(SPLIT)


def test_ours_is_what_ds01_made_and_sealed() -> None:
    """Not what was adopted, nor what is nobody's."""
    assert is_ours(IN_WEB, books())
    assert not is_ours(ADOPTED, books(old=foreign("0")))
    assert not is_ours(IN_OLD, books())
    assert not is_ours(replace(ELSEWHERE, owner=ALICE), books())
