"""What NVML said of a device beside its identity. Every value may be None: unknown, which is never 0, free or idle."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policy.model import DeviceUuid


class ProcessType(StrEnum):
    """Which of NVML's lists a process stands in."""

    COMPUTE = "C"
    GRAPHICS = "G"
    MPS = "M"


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """One process on a device, in NVML's pid namespace; pid 0 is one that this namespace cannot see.

    gpu_instance_id, compute_instance_id: None outside MIG.
    """

    pid: int
    memory_mib: int | None = None
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    type: ProcessType = ProcessType.COMPUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class MigMode:
    """MIG mode now and after the next reset of the GPU."""

    current: bool
    pending: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Where a GPU instance lies, in the GPU's memory slices (8 on A100 and H100)."""

    start: int
    size: int


class Throttle(StrEnum):
    """Why clocks are lower than asked for. SOURCE: nvml.h, nvmlClocksEventReason*; the value is the name there."""

    IDLE = "idle"
    APPLICATION_CLOCKS = "application_clocks"
    POWER_CAP = "sw_power_cap"
    HARDWARE = "hw_slowdown"
    SYNC_BOOST = "sync_boost"
    THERMAL = "sw_thermal"
    HARDWARE_THERMAL = "hw_thermal"
    POWER_BRAKE = "hw_power_brake"


class RecoveryAction(StrEnum):
    """What the driver advises. SOURCE: nvml.h, nvmlDeviceGpuRecoveryAction_t, field 230."""

    NONE = "none"
    RESET = "reset"
    REBOOT = "reboot"
    DRAIN_P2P = "drain_p2p"
    DRAIN_AND_RESET = "drain_and_reset"
    OTHER = "other"  # newer than this ds01


@dataclass(frozen=True, slots=True, kw_only=True)
class EccErrors:
    """Memory errors since the driver was loaded."""

    corrected: int
    uncorrected: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemappedRows:
    """Rows of memory replaced by spare ones, for the life of the board.

    pending: more are to be replaced, by a reset. failed: no spare was left.
    """

    correctable: int
    uncorrectable: int
    pending: bool
    failed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    """Numbers of one device. MIG devices have memory only: the rest is measured for whole GPUs.

    utilisation_percent, utilisation_max_percent: mean and highest of the driver's samples since the last look;
        None while MIG is on.
    energy_mj: since the driver was loaded: a decrease means that it was loaded again.
    Age: memory and utilisation are of this look, power to energy at most 10 s older, the rest at most 60 s.
    """

    memory_used_mib: int | None = None
    utilisation_percent: float | None = None
    utilisation_max_percent: float | None = None
    power_mw: int | None = None
    temperature_celsius: int | None = None
    sm_clock_mhz: int | None = None
    energy_mj: int | None = None
    throttles: tuple[Throttle, ...] | None = None
    ecc: EccErrors | None = None
    remapped: RemappedRows | None = None
    recovery: RecoveryAction | None = None


class XidSource(StrEnum):
    """Who told of an error. NVML goes before the log where both did."""

    NVML = "nvml"
    KERNEL_LOG = "kernel_log"


@dataclass(frozen=True, slots=True, kw_only=True)
class XidEvent:
    """An error the driver reported since the last look.

    gpu: the whole GPU, also when the error is of one instance of it.
    gpu_instance_id, compute_instance_id: None: the error is not of one instance.
    """

    gpu: DeviceUuid
    xid: int
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None
    source: XidSource = XidSource.NVML
