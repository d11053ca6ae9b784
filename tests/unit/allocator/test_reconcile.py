"""Ledger against evidence: what is released, what is kept, what is only reported."""

from __future__ import annotations

from dataclasses import replace

import pytest

from allocator.model import DeviceState, Lease, LeaseState
from allocator.reconcile import Carrier, Change, Contradiction, lost, settle
from policy.model import ContainerId, LeaseId, Uid
from tests.fakes.fake_nvml import gpu, mig, snapshot
from tests.fakes.leasing import Clock, evidence, lease

GRACE = 20
ONE, TWO = ContainerId("1" * 64), ContainerId("2" * 64)
PENDING = lease("a", gpu(0).uuid)
ACTIVE = replace(PENDING, state=LeaseState.ACTIVE, container=ONE)
RELEASED = replace(ACTIVE, state=LeaseState.RELEASED)
LOST = replace(ACTIVE, state=LeaseState.LOST)
HELD = replace(ACTIVE, state=LeaseState.HELD)


def carrier(container: ContainerId = ONE, *, owner: int = 1000, name: str = "a") -> Carrier:
    return Carrier(container=container, lease=LeaseId(name), owner_uid=Uid(owner))


def settled(
    *leases: Lease,
    carriers: tuple[Carrier, ...] = (),
    session: str = "two",
    later: float = 60,
    **more: object,
) -> list[Change | Contradiction]:
    clock = Clock()
    clock.seconds += later
    told = evidence(clock(), *carriers, session=session, **more)
    return list(settle(leases, told, now=clock(), grace_seconds=GRACE))


@pytest.mark.parametrize(
    ("item", "session", "later", "pending", "released"),
    [
        pytest.param(PENDING, "two", 60, None, True, id="pending of a session that is over"),
        pytest.param(PENDING, "one", 9999, None, False, id="pending of the session that speaks"),
        pytest.param(PENDING, "two", 19, None, False, id="pending, its stamp may still hold"),
        pytest.param(
            PENDING, "one", 60, frozenset(), True, id="pending, and its session no longer works on it"
        ),
        pytest.param(PENDING, "one", 60, frozenset({"a"}), False, id="pending, and its session works on it"),
        pytest.param(PENDING, "one", 19, frozenset(), False, id="young, and its session did not list it yet"),
        pytest.param(ACTIVE, "one", 60, None, True, id="active, container gone"),
        pytest.param(ACTIVE, "one", 19, None, False, id="active, younger than the evidence may be"),
        pytest.param(LOST, "one", 60, None, True, id="lost, container gone"),
        pytest.param(RELEASED, "one", 60, None, False, id="released stays so"),
    ],
)
def test_a_lease_no_container_carries(
    *, item: Lease, session: str, later: float, pending: frozenset[LeaseId] | None, released: bool
) -> None:
    """It is released only when nothing can still come of it."""
    done = settled(item, session=session, later=later, pending=pending)
    assert [change.state for change in done if isinstance(change, Change)] == [LeaseState.RELEASED] * released


CONFIRMED = replace(PENDING, container=ONE)


@pytest.mark.parametrize(
    ("item", "carriers"),
    [
        pytest.param(replace(CONFIRMED, state=LeaseState.BOUND), (), id="confirmed meanwhile"),
        pytest.param(ACTIVE, (), id="started meanwhile"),
        pytest.param(ACTIVE, (replace(carrier(), state="exited"),), id="started again meanwhile"),
        pytest.param(PENDING, (), id="granted meanwhile"),
        pytest.param(RELEASED, (replace(carrier(), state="running"),), id="released meanwhile"),
        pytest.param(HELD, (replace(carrier(), state="running"),), id="stopped meanwhile"),
    ],
)
@pytest.mark.parametrize("asked_before", [0, 1, 3600])
def test_what_changed_after_dockerd_was_asked_is_left_alone(
    item: Lease, carriers: tuple[Carrier, ...], asked_before: int
) -> None:
    """However long its answer takes to arrive: it says nothing of the lease as it is now."""
    asked_ms = item.changed.boottime_ms - asked_before
    assert settled(item, carriers=carriers, later=3600, asked_ms=asked_ms, pending=frozenset()) == []
    assert settled(item, carriers=carriers, later=3600, pending=frozenset()) != []


def test_a_grace_ends_when_dockerd_was_asked() -> None:
    """What was young then is not older for an answer that came late."""
    young = ACTIVE.changed.boottime_ms + 19_000
    assert settled(ACTIVE, later=3600, asked_ms=young) == []
    assert len(settled(ACTIVE, later=3600, asked_ms=young + 1000)) == 1


def test_a_reboot_ends_every_grace() -> None:
    """Times of another boot are long ago, whatever their numbers say."""
    clock = Clock()
    clock.boot, clock.seconds = "boot-2", 1.0
    (done,) = settle([PENDING], evidence(clock(), session="two"), now=clock(), grace_seconds=GRACE)
    assert isinstance(done, Change)


@pytest.mark.parametrize(
    ("item", "state"),
    [
        pytest.param(PENDING, LeaseState.BOUND, id="pending becomes bound"),
        pytest.param(RELEASED, LeaseState.ACTIVE, id="released comes back"),
        pytest.param(
            replace(LOST, container=None), LeaseState.LOST, id="lost stays lost, with its container"
        ),
    ],
)
def test_a_lease_its_owner_carries(item: Lease, state: LeaseState) -> None:
    """The container that carries a lease is written into it."""
    (done,) = settled(item, carriers=(carrier(),))
    assert isinstance(done, Change)
    assert (done.state, done.container) == (state, ONE)


@pytest.mark.parametrize(
    ("before", "seen", "later", "after"),
    [
        pytest.param("pending", "created", 60, "bound", id="created"),
        pytest.param("pending", "running", 0.001, "active", id="already running"),
        pytest.param("bound", "created", 60, None, id="not started yet"),
        pytest.param("bound", "running", 0.001, "active", id="started"),
        pytest.param("bound", "exited", 60, "held", id="started and stopped between two looks"),
        pytest.param("active", "paused", 60, None, id="paused still runs"),
        pytest.param("active", "exited", 60, "held", id="stopped"),
        pytest.param("active", "exited", 19, None, id="evidence may be older than the start"),
        pytest.param("held", "exited", 60, None, id="still stopped"),
        pytest.param("held", "running", 0.001, "active", id="started again"),
        pytest.param("lost", "running", 60, None, id="lost stays lost while it runs"),
        pytest.param("lost", "paused", 60, None, id="paused still has what it was handed"),
        pytest.param("lost", "exited", 19, None, id="evidence may be older than the loss"),
        pytest.param("lost", "exited", 60, "released", id="lost and stopped for good"),
        pytest.param("lost", "created", 60, "released", id="lost and never started"),
        pytest.param("lost", "asleep", 60, None, id="lost, and nobody knows whether it runs"),
        pytest.param("released", "exited", 60, None, id="a stopped container brings nothing back"),
        pytest.param("released", "running", 60, "active", id="a running one does"),
        pytest.param("active", "asleep", 60, None, id="a word that nobody knows changes nothing"),
    ],
)
def test_a_lease_follows_its_container(before: str, seen: str, later: float, after: str | None) -> None:
    """dockerd's word for the container is the lease's state, unless it may be older than the last change."""
    item = replace(ACTIVE, state=LeaseState(before))
    done = settled(item, carriers=(replace(carrier(), state=seen),), later=later)
    assert [change.state for change in done if isinstance(change, Change)] == ([after] if after else [])


@pytest.mark.parametrize(
    ("item", "seen", "later", "released"),
    [
        pytest.param(replace(HELD, seconds=50), "exited", 60, True, id="time over, stopped"),
        pytest.param(replace(HELD, seconds=90), "exited", 60, False, id="time not over"),
        pytest.param(
            replace(ACTIVE, seconds=50), "running", 60, False, id="time over, running: not ours to stop"
        ),
        pytest.param(replace(HELD, seconds=5), "exited", 19, False, id="stopped only just now"),
        pytest.param(replace(HELD, hold_seconds=40), "exited", 60, True, id="stopped for too long"),
        pytest.param(replace(HELD, hold_seconds=90), "exited", 60, False, id="may stay stopped"),
        pytest.param(replace(HELD, hold_seconds=0), "exited", 19, False, id="never within the grace"),
        pytest.param(
            replace(HELD, state=LeaseState.BOUND, seconds=50),
            "created",
            60,
            True,
            id="never started, time over",
        ),
        pytest.param(
            replace(HELD, state=LeaseState.BOUND, hold_seconds=40),
            "created",
            60,
            True,
            id="never started for too long",
        ),
        pytest.param(
            replace(HELD, state=LeaseState.BOUND, hold_seconds=90), "created", 60, False, id="may yet start"
        ),
    ],
)
def test_a_stopped_container_keeps_its_lease_for_a_time(
    *, item: Lease, seen: str, later: float, released: bool
) -> None:
    """The lease of a container that does not run ends with its time, or when it has been stopped for too long."""
    done = settled(item, carriers=(replace(carrier(), state=seen),), later=later)
    assert [change.state for change in done if isinstance(change, Change)] == [LeaseState.RELEASED] * released


@pytest.mark.parametrize(("minutes", "released"), [(2, False), (61, True)])
def test_a_reboot_does_not_end_what_a_stopped_container_may_keep(*, minutes: int, released: bool) -> None:
    """Across it the time of day counts."""
    clock = Clock()
    clock.seconds += 60 * minutes
    after = replace(clock(), boot_id="boot-2", boottime_ms=5000)
    told = evidence(after, replace(carrier(), state="exited"), session="two")
    done = list(settle([replace(HELD, hold_seconds=3600)], told, now=after, grace_seconds=GRACE))
    assert [change.state for change in done if isinstance(change, Change)] == [LeaseState.RELEASED] * released


def test_a_lost_lease_lasts_where_nobody_checks_starts() -> None:
    """A restart policy may bring such a container back, with the file of its GPU."""
    clock = Clock()
    clock.seconds += 60
    stopped = evidence(clock(), replace(carrier(), state="exited"))
    for unguarded, states in (({ONE}, []), (None, []), (set(), [LeaseState.RELEASED])):
        done = settle([LOST], stopped, now=clock(), grace_seconds=GRACE, unguarded=unguarded)
        assert [item.state for item in done if isinstance(item, Change)] == states


def test_a_lost_lease_lasts_while_any_container_that_carries_it_runs() -> None:
    """Which of them has what the lease was of, nobody can say."""
    both = (replace(carrier(), state="exited"), replace(carrier(TWO), state="running"))
    (problem,) = settled(LOST, carriers=both)
    assert isinstance(problem, Contradiction)


def test_another_generation_is_another_device() -> None:
    """A MIG device that was made anew in the same place is not the one that was leased."""
    item = replace(ACTIVE, generations=(1,))
    assert list(lost([item], snapshot(gpu(0, generation=1)))) == []
    (done,) = lost([item], snapshot(gpu(0, generation=2)))
    assert done.state is LeaseState.LOST


def test_agreement_changes_nothing() -> None:
    """An active lease carried by its container stays as it is."""
    assert settled(ACTIVE, carriers=(carrier(),)) == []


def test_copied_labels_keep_no_lease() -> None:
    """Once the container that it was for is gone, whatever else carries its labels: a person is told, and it ends."""
    other = replace(carrier(TWO), state="running")
    problem, over = settled(ACTIVE, carriers=(other,))
    assert isinstance(problem, Contradiction)
    assert isinstance(over, Change)
    assert (problem.container, over.state) == (TWO, LeaseState.RELEASED)


@pytest.mark.parametrize(
    ("leases", "carriers", "problem"),
    [
        pytest.param((), (carrier(),), "the ledger does not have", id="unknown lease"),
        pytest.param((ACTIVE,), (carrier(owner=7),), "another user's", id="foreign owner"),
        pytest.param((ACTIVE,), (carrier(TWO), carrier()), "another container's", id="second container"),
        pytest.param(
            (RELEASED,), (carrier(TWO),), "another container's", id="labels of one that was removed"
        ),
    ],
)
def test_contradictions_are_reported_and_release_nothing(
    leases: tuple[Lease, ...], carriers: tuple[Carrier, ...], problem: str
) -> None:
    """What its own container carries is never released, whatever is wrong; a person is told."""
    (done,) = settled(*leases, carriers=carriers)
    assert isinstance(done, Contradiction)
    assert problem in done.problem


@pytest.mark.parametrize(
    ("item", "present", "expected"),
    [
        pytest.param(ACTIVE, (gpu(0),), 0, id="there"),
        pytest.param(ACTIVE, (), 1, id="gone"),
        pytest.param(PENDING, (gpu(0, state=DeviceState.LOST),), 1, id="off the bus"),
        pytest.param(LOST, (), 0, id="known already"),
        pytest.param(RELEASED, (), 0, id="released"),
    ],
)
def test_a_lease_whose_device_has_gone_is_lost(
    item: Lease, present: tuple[object, ...], expected: int
) -> None:
    """Live leases of devices that went away are marked once."""
    done = list(lost([item], snapshot(*present)))  # type: ignore[arg-type]  # parametrised
    assert [change.state for change in done] == [LeaseState.LOST] * expected


def test_what_a_look_could_not_see_is_not_lost() -> None:
    """While a GPU did not answer at all, a missing device may be its; one that is told as lost is lost all the same."""
    silent = replace(snapshot(gpu(1, state=DeviceState.LOST)), complete=False)
    assert list(lost([lease("a", gpu(0).uuid)], silent)) == []
    assert len(list(lost([lease("a", gpu(1).uuid)], silent))) == 1


def test_what_is_made_again_after_a_reboot_is_not_lost() -> None:
    """While it is awaited; what else is missing is."""
    item = lease("a", mig(0, 0).uuid, mig(0, 1).uuid)
    one, both = frozenset(item.devices[:1]), frozenset(item.devices)
    assert list(lost([item], replace(snapshot(), awaited=both))) == []
    (change,) = lost([item], replace(snapshot(), awaited=one))
    assert change.why == f"device lost: {item.devices[1]}"
