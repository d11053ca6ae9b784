"""What errors and readings say of a device: pure. What becomes of the device is `allocator.care`'s.

SOURCE: NVIDIA, XID errors; nvml.h, nvmlDeviceGpuRecoveryAction_t; gpu.md 7. What NVIDIA asks for each code on
one GPU model stands in its catalogue: the driver's own advice (field 230) goes before the table here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from allocator import nvml_codes
from allocator.model import DeviceState
from allocator.nvml_codes import Action
from allocator.readings import RecoveryAction, Throttle, XidSource

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from allocator.model import Device
    from allocator.readings import Measures
    from policy.model import Uid

SUSPECT_FAULTS: Final = 5
SUSPECT_SECONDS: Final = 600
LATE_SECONDS: Final = 5  # a GPU that has not answered for so long is worth a line in the log
SILENT_SECONDS: Final = 30  # a GPU that has not answered for so long is hung, not slow
ERRORS_IN_ROW: Final = 3  # looks that end in an unknown error before it is more than a hiccup,
ERRORS_SECONDS: Final = 10  # and for how long: looks may follow each other closely


class XidClass(StrEnum):
    """What kind of error an XID is."""

    USER_JOB = "user_job"  # of the program on it
    CONTAINED = "contained"  # of memory, and kept to one program
    BAD_MEMORY = "bad_memory"
    DEVICE = "device"  # of the device or the driver
    ADVICE = "advice"  # the driver's advice has changed
    UNKNOWN = "unknown"


class Fitness(StrEnum):
    """What may be done with a device, best first."""

    FIT = "fit"
    SUSPECT = "suspect"  # an admin should look; it is leased as ever
    DRAIN = "drain"  # nobody new; who holds it goes on
    QUARANTINE = "quarantine"  # nobody new; who holds it has lost it


class Remedy(StrEnum):
    """What makes a device whole."""

    RESET = "reset the GPU"
    REBOOT = "reboot the server"
    REPLACE = "have the board replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one error or reading amounts to; `reason` is a sentence without names of users."""

    fitness: Fitness
    reason: str
    remedy: Remedy | None = None

    @property
    def text(self) -> str:
        """The reason and, where there is one, the remedy."""
        return self.reason if self.remedy is None else f"{self.reason}; {self.remedy}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """One row of the table."""

    kind: XidClass
    meaning: str


XIDS: Final[Mapping[int, Xid]] = MappingProxyType(
    {
        13: Xid(kind=XidClass.USER_JOB, meaning="engine exception"),
        31: Xid(kind=XidClass.USER_JOB, meaning="page fault"),
        43: Xid(kind=XidClass.USER_JOB, meaning="channel reset"),
        45: Xid(kind=XidClass.USER_JOB, meaning="cleanup after another error"),
        68: Xid(kind=XidClass.USER_JOB, meaning="video engine exception"),
        69: Xid(kind=XidClass.USER_JOB, meaning="graphics engine class error"),
        109: Xid(kind=XidClass.USER_JOB, meaning="context switch timeout"),
        63: Xid(kind=XidClass.CONTAINED, meaning="a row of memory is to be remapped"),
        92: Xid(kind=XidClass.CONTAINED, meaning="many corrected memory errors"),
        94: Xid(kind=XidClass.CONTAINED, meaning="contained uncorrectable memory error"),
        48: Xid(kind=XidClass.BAD_MEMORY, meaning="double bit memory error"),
        64: Xid(kind=XidClass.BAD_MEMORY, meaning="a row of memory could not be remapped"),
        95: Xid(kind=XidClass.BAD_MEMORY, meaning="uncontained memory error"),
        140: Xid(kind=XidClass.BAD_MEMORY, meaning="unrecovered memory error"),
        62: Xid(kind=XidClass.DEVICE, meaning="internal microcontroller halted"),
        74: Xid(kind=XidClass.DEVICE, meaning="NVLink error"),
        79: Xid(kind=XidClass.DEVICE, meaning="fell off the bus"),
        119: Xid(kind=XidClass.DEVICE, meaning="GSP does not answer"),
        120: Xid(kind=XidClass.DEVICE, meaning="GSP error"),
        143: Xid(kind=XidClass.DEVICE, meaning="initialisation failed"),
        154: Xid(kind=XidClass.ADVICE, meaning="the driver's advice changed"),
    }
)
_ROW_REMAP_FAILED: Final = 64
_BY_CLASS: Final[Mapping[XidClass, tuple[Fitness, Remedy | None]]] = MappingProxyType(
    {
        XidClass.USER_JOB: (Fitness.FIT, None),
        XidClass.CONTAINED: (Fitness.DRAIN, Remedy.RESET),
        XidClass.BAD_MEMORY: (Fitness.QUARANTINE, Remedy.RESET),
        XidClass.DEVICE: (Fitness.QUARANTINE, Remedy.REBOOT),
        XidClass.ADVICE: (Fitness.FIT, None),
        XidClass.UNKNOWN: (Fitness.SUSPECT, None),
    }
)
_BY_ADVICE: Final[Mapping[RecoveryAction, tuple[Fitness, Remedy]]] = MappingProxyType(
    {
        RecoveryAction.RESET: (Fitness.QUARANTINE, Remedy.RESET),
        RecoveryAction.REBOOT: (Fitness.QUARANTINE, Remedy.REBOOT),
        RecoveryAction.DRAIN_P2P: (Fitness.DRAIN, Remedy.RESET),
        RecoveryAction.DRAIN_AND_RESET: (Fitness.DRAIN, Remedy.RESET),
        RecoveryAction.OTHER: (Fitness.QUARANTINE, Remedy.REBOOT),
    }
)
_SLOWED: Final = (Throttle.HARDWARE, Throttle.HARDWARE_THERMAL, Throttle.POWER_BRAKE)
_ORDER: Final = tuple(Fitness)


def xid_class(code: int) -> XidClass:
    """What kind of error; a code that is not in the table is none of the user's."""
    return XIDS[code].kind if code in XIDS else XidClass.UNKNOWN


def of_xid(code: int, advice: RecoveryAction | None, source: XidSource = XidSource.NVML) -> Verdict:
    """What an XID says of the device it happened on.

    Args:
        advice: of the GPU, read after the error; None where the driver gives none. `none` acquits nothing, since
            the driver may not have come to it yet; any other is followed, milder or harsher than the table.
        source: is told where it is not NVML, and changes nothing else: the driver wrote the line.
    """
    meaning = XIDS[code].meaning if code in XIDS else "not known to ds01"
    told = "; told by the kernel log alone" if source is XidSource.KERNEL_LOG else ""
    reason = f"XID {code} ({meaning}{told})"
    if advice is not None and advice in _BY_ADVICE and xid_class(code) is not XidClass.USER_JOB:
        fitness, remedy = _BY_ADVICE[advice]
        return Verdict(fitness=fitness, reason=f"{reason}, the driver advises {advice}", remedy=remedy)
    fitness, by_table = _BY_CLASS[xid_class(code)]
    remedy_of_row = Remedy.REPLACE if code == _ROW_REMAP_FAILED else by_table
    return Verdict(fitness=fitness, reason=reason, remedy=remedy_of_row)


def of_device(device: Device) -> Verdict:
    """The worst that the last look says of a device by itself. `Device.error` is told by `of_errors`."""
    if device.state is DeviceState.LOST:
        return Verdict(fitness=Fitness.QUARANTINE, reason="it has fallen off the bus", remedy=Remedy.REBOOT)
    if device.silent_seconds is not None and device.silent_seconds >= SILENT_SECONDS:
        reason = f"it has not answered for {SILENT_SECONDS} seconds or more"
        return Verdict(fitness=Fitness.QUARANTINE, reason=reason, remedy=Remedy.REBOOT)
    if device.silent_seconds is not None and device.silent_seconds >= LATE_SECONDS:
        reason = f"it has not answered for {LATE_SECONDS} seconds or more"
        return Verdict(fitness=Fitness.SUSPECT, reason=reason)
    if device.state is DeviceState.DRAINING:
        return Verdict(fitness=Fitness.DRAIN, reason="the driver wants it reset", remedy=Remedy.RESET)
    return max(_of_measures(device.measures), key=rank, default=FIT)


FIT: Final = Verdict(fitness=Fitness.FIT, reason="nothing is known against it")


def _of_measures(measures: Measures) -> Iterator[Verdict]:
    """Unknown values say nothing, neither good nor bad."""
    if measures.recovery is not None and measures.recovery in _BY_ADVICE:
        fitness, remedy = _BY_ADVICE[measures.recovery]
        yield Verdict(fitness=fitness, reason=f"the driver advises {measures.recovery}", remedy=remedy)
    rows, ecc = measures.remapped, measures.ecc
    if rows is not None and rows.failed:
        reason = "a row of memory could not be remapped"
        yield Verdict(fitness=Fitness.QUARANTINE, reason=reason, remedy=Remedy.REPLACE)
    if rows is not None and rows.pending:
        reason = "rows of memory are to be remapped"
        yield Verdict(fitness=Fitness.DRAIN, reason=reason, remedy=Remedy.RESET)
    if ecc is not None and ecc.uncorrected:
        reason = f"{ecc.uncorrected} uncorrected memory errors since the driver was loaded"
        yield Verdict(fitness=Fitness.DRAIN, reason=reason, remedy=Remedy.RESET)
    slowed = [one for one in _SLOWED if one in (measures.throttles or ())]
    if slowed:
        yield Verdict(fitness=Fitness.SUSPECT, reason=f"slowed down by the hardware: {', '.join(slowed)}")


def rank(verdict: Verdict) -> int:
    """For comparing: the worse, the higher."""
    return _ORDER.index(verdict.fitness)


def worse(one: Fitness, than: Fitness) -> bool:
    """Whether a fitness is worse than another."""
    return _ORDER.index(one) > _ORDER.index(than)


def of_errors(code: int, *, in_row: int, seconds: float) -> Verdict:
    """What it means that a device answered with an unknown error instead of its processes, looks in a row."""
    if in_row < ERRORS_IN_ROW or seconds < ERRORS_SECONDS:
        return FIT
    reason = f"NVML error {code} for {ERRORS_SECONDS} seconds or more"
    return Verdict(fitness=Fitness.QUARANTINE, reason=reason, remedy=Remedy.REBOOT)


def is_hiccup(device: Device) -> bool:
    """Whether what keeps a device from service may be over at the next look; what lasts is told by the others here."""
    if device.state is DeviceState.UNRESPONSIVE:
        return True
    return device.error is not None and nvml_codes.action(device.error) is Action.COUNT


def of_faults(owners: Collection[Uid | None]) -> Verdict:
    """What errors of users' programs on one device within `SUSPECT_SECONDS` say of the device itself.

    Args: owners: of the lease at each error; None: nobody held it.
    Many errors of one user are that user's program; several users' point at the device. It is leased on: programs
    with errors are far more common than such devices, and a course would take its own GPUs away.
    """
    if len(owners) < SUSPECT_FAULTS or len({one for one in owners if one is not None}) < 2:
        return FIT
    reason = f"{SUSPECT_FAULTS} or more errors of programs of different users within {SUSPECT_SECONDS // 60} minutes"
    return Verdict(fitness=Fitness.SUSPECT, reason=reason)
