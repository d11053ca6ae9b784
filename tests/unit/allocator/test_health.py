"""What errors and readings amount to: the table of gpu.md 7, row by row."""

from __future__ import annotations

import pytest

from allocator import health
from allocator.health import Fitness, Remedy, XidClass
from allocator.model import DeviceState
from allocator.readings import EccErrors, Measures, RecoveryAction, RemappedRows, Throttle, XidSource
from policy.model import Uid
from tests.fakes.fake_nvml import gpu

CLASSES = {
    XidClass.USER_JOB: (13, 31, 43, 45, 68, 69, 109),
    XidClass.CONTAINED: (63, 92, 94),
    XidClass.BAD_MEMORY: (48, 64, 95, 140),
    XidClass.DEVICE: (62, 74, 79, 119, 120, 143),
    XidClass.ADVICE: (154,),
}
FITNESS = {
    XidClass.USER_JOB: Fitness.FIT,
    XidClass.CONTAINED: Fitness.DRAIN,
    XidClass.BAD_MEMORY: Fitness.QUARANTINE,
    XidClass.DEVICE: Fitness.QUARANTINE,
    XidClass.ADVICE: Fitness.FIT,
}


@pytest.mark.parametrize(
    ("kind", "code"), [(kind, code) for kind, codes in CLASSES.items() for code in codes]
)
def test_each_xid_is_of_its_class(kind: XidClass, code: int) -> None:
    """And without the driver's advice its class says what becomes of the device."""
    assert health.xid_class(code) is kind
    verdict = health.of_xid(code, None)
    assert verdict.fitness is FITNESS[kind]
    assert verdict.reason.startswith(f"XID {code} (")


def test_the_table_has_no_other_rows() -> None:
    """A code that was added to it has its place in this test."""
    assert set(health.XIDS) == {code for codes in CLASSES.values() for code in codes}


def test_an_unknown_xid_is_for_an_admin_to_look_at() -> None:
    """It is neither the user's error nor taken for a broken device."""
    assert health.xid_class(999) is XidClass.UNKNOWN
    assert health.of_xid(999, None).fitness is Fitness.SUSPECT


def test_the_kernel_log_is_named_and_weighs_as_much() -> None:
    """The reason says who told it; the verdict is the same."""
    by_log, by_nvml = health.of_xid(79, None, XidSource.KERNEL_LOG), health.of_xid(79, None)
    assert by_log.reason == "XID 79 (fell off the bus; told by the kernel log alone)"
    assert (by_log.fitness, by_log.remedy) == (by_nvml.fitness, by_nvml.remedy)
    assert "kernel log" not in by_nvml.text


def test_a_row_that_could_not_be_remapped_is_for_replacement() -> None:
    """XID 64 and the reading ask for another board, other memory errors for a reset, the bus for a reboot."""
    failed = Measures(remapped=RemappedRows(correctable=0, uncorrectable=1, pending=True, failed=True))
    assert health.of_xid(64, None).remedy is Remedy.REPLACE
    assert health.of_device(gpu(0, measures=failed)).remedy is Remedy.REPLACE
    assert health.of_xid(48, None).remedy is Remedy.RESET
    assert health.of_xid(79, None).remedy is Remedy.REBOOT


@pytest.mark.parametrize(
    ("code", "advice", "fitness"),
    [
        pytest.param(48, RecoveryAction.DRAIN_AND_RESET, Fitness.DRAIN, id="milder than the table"),
        pytest.param(94, RecoveryAction.RESET, Fitness.QUARANTINE, id="harsher than the table"),
        pytest.param(154, RecoveryAction.REBOOT, Fitness.QUARANTINE, id="advice alone"),
        pytest.param(154, RecoveryAction.DRAIN_P2P, Fitness.DRAIN, id="peers first"),
        pytest.param(999, RecoveryAction.OTHER, Fitness.QUARANTINE, id="newer than ds01"),
        pytest.param(79, RecoveryAction.NONE, Fitness.QUARANTINE, id="none acquits nothing"),
        pytest.param(31, RecoveryAction.RESET, Fitness.FIT, id="a program's error is not the advice's cause"),
    ],
)
def test_the_drivers_advice_goes_before_the_table(
    code: int, advice: RecoveryAction, fitness: Fitness
) -> None:
    """Field 230 is followed, except that `none` never makes a device fit."""
    assert health.of_xid(code, advice).fitness is fitness


@pytest.mark.parametrize(
    ("measures", "fitness", "reason"),
    [
        pytest.param(Measures(), Fitness.FIT, "nothing", id="all unknown"),
        pytest.param(Measures(recovery=RecoveryAction.NONE), Fitness.FIT, "nothing", id="no advice"),
        pytest.param(
            Measures(recovery=RecoveryAction.RESET), Fitness.QUARANTINE, "advises reset", id="advice"
        ),
        pytest.param(
            Measures(ecc=EccErrors(corrected=900, uncorrected=0)), Fitness.FIT, "nothing", id="corrected"
        ),
        pytest.param(
            Measures(ecc=EccErrors(corrected=0, uncorrected=3)),
            Fitness.DRAIN,
            "3 uncorrected",
            id="uncorrected",
        ),
        pytest.param(
            Measures(remapped=RemappedRows(correctable=2, uncorrectable=2, pending=False, failed=False)),
            Fitness.FIT,
            "nothing",
            id="rows remapped long ago",
        ),
        pytest.param(
            Measures(remapped=RemappedRows(correctable=0, uncorrectable=1, pending=True, failed=False)),
            Fitness.DRAIN,
            "to be remapped",
            id="rows pending",
        ),
        pytest.param(
            Measures(throttles=(Throttle.IDLE, Throttle.POWER_CAP, Throttle.THERMAL)),
            Fitness.FIT,
            "nothing",
            id="slowed as meant",
        ),
        pytest.param(
            Measures(throttles=(Throttle.HARDWARE, Throttle.HARDWARE_THERMAL)),
            Fitness.SUSPECT,
            "hw_slowdown, hw_thermal",
            id="slowed by the hardware",
        ),
        pytest.param(
            Measures(
                throttles=(Throttle.POWER_BRAKE,),
                remapped=RemappedRows(correctable=0, uncorrectable=1, pending=True, failed=True),
            ),
            Fitness.QUARANTINE,
            "could not be remapped",
            id="the worst counts",
        ),
    ],
)
def test_readings_are_judged(measures: Measures, fitness: Fitness, reason: str) -> None:
    """ECC, rows, advice and throttling each have their verdict; unknown says nothing."""
    verdict = health.of_device(gpu(0, measures=measures))
    assert verdict.fitness is fitness
    assert reason in verdict.reason


@pytest.mark.parametrize(
    ("changes", "fitness"),
    [
        ({"state": DeviceState.LOST}, Fitness.QUARANTINE),
        ({"state": DeviceState.DRAINING}, Fitness.DRAIN),
        ({"state": DeviceState.UNRESPONSIVE, "silent_seconds": 4.9}, Fitness.FIT),
        ({"state": DeviceState.UNRESPONSIVE, "silent_seconds": 29.0}, Fitness.SUSPECT),
        ({"state": DeviceState.UNRESPONSIVE, "silent_seconds": 30.0}, Fitness.QUARANTINE),
    ],
)
def test_how_it_answered_is_judged(changes: dict[str, object], fitness: Fitness) -> None:
    """Lost at once, hung after half a minute; slow is not hung."""
    assert health.of_device(gpu(0, **changes)).fitness is fitness


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"state": DeviceState.UNRESPONSIVE}, True),
        ({"state": DeviceState.QUARANTINED, "error": 999}, True),
        ({"state": DeviceState.LOST, "error": 15}, False),
        ({"state": DeviceState.DRAINING, "error": 16}, False),
        ({"state": DeviceState.UNUSABLE}, False),
        ({}, False),
    ],
)
def test_what_may_be_over_at_the_next_look(changes: dict[str, object], passes: object) -> None:
    """Silence and unknown errors may; what is lost, wants a reset or is split does not by itself."""
    assert health.is_hiccup(gpu(0, **changes)) is passes


@pytest.mark.parametrize(
    ("in_row", "seconds", "fitness"),
    [(2, 60.0, Fitness.FIT), (60, 2.0, Fitness.FIT), (3, 10.0, Fitness.QUARANTINE)],
)
def test_an_unknown_error_counts_when_it_stays(in_row: int, seconds: float, fitness: Fitness) -> None:
    """Neither two looks far apart nor many at once are more than a hiccup."""
    assert health.of_errors(999, in_row=in_row, seconds=seconds).fitness is fitness


@pytest.mark.parametrize(
    ("owners", "fitness"),
    [
        pytest.param((1, 2, 1, 2), Fitness.FIT, id="four"),
        pytest.param((1, 2, 1, 2, 1), Fitness.SUSPECT, id="five of two users"),
        pytest.param((1,) * 50, Fitness.FIT, id="one user's program"),
        pytest.param((1, None, None, None, None), Fitness.FIT, id="nobody is not a second user"),
    ],
)
def test_errors_of_different_users_point_at_the_device(
    owners: tuple[int | None, ...], fitness: Fitness
) -> None:
    """Five within ten minutes, of at least two users."""
    assert health.of_faults([None if uid is None else Uid(uid) for uid in owners]).fitness is fitness
