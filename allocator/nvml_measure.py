"""Asking NVML for one value, or for one GPU's numbers: what cannot be told is None.

Apart from `supported`, an error of a value is never one of the GPU, unless the GPU itself is gone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pynvml

from allocator import nvml_codes
from allocator.nvml_codes import Action

if TYPE_CHECKING:
    from collections.abc import Callable

_GONE: Final = frozenset({Action.RESTART, Action.FREEZE, Action.LOST, Action.DRAIN})
_RECOVERY: Final = pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION
_ADVICE: Final = ("none", "reset", "reboot", "drain_p2p", "drain_and_reset")
_THROTTLES: Final = (
    (0x1, "idle"),
    (0x2, "application_clocks"),
    (0x4, "sw_power_cap"),
    (0x8, "hw_slowdown"),
    (0x10, "sync_boost"),
    (0x20, "sw_thermal"),
    (0x40, "hw_thermal"),
    (0x80, "hw_power_brake"),
)
_NUMBERS: Final = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}
_NODES: Final = 1  # words of 64 NUMA nodes


def supported(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None where device or driver does not know the question. Raises: pynvml.NVMLError."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if nvml_codes.action(error.value) is Action.UNKNOWN_VALUE:
            return None
        raise


def known(ask: Callable[..., Any], *arguments: Any) -> Any:
    """The answer, or None whatever hinders it. Raises: pynvml.NVMLError: the GPU or the session is gone."""
    try:
        return ask(*arguments)
    except pynvml.NVMLError as error:
        if nvml_codes.action(error.value) in _GONE:
            raise
        return None


def vitals(handle: Any) -> dict[str, Any]:
    """Power, temperature, clock, throttle reasons and the energy counter of a whole GPU."""
    reasons = known(pynvml.nvmlDeviceGetCurrentClocksEventReasons, handle)
    if reasons is None:  # the name it had before driver 535
        reasons = known(pynvml.nvmlDeviceGetCurrentClocksThrottleReasons, handle)
    return {
        "power_mw": known(pynvml.nvmlDeviceGetPowerUsage, handle),
        "temperature_celsius": known(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU),
        "sm_clock_mhz": known(pynvml.nvmlDeviceGetClockInfo, handle, pynvml.NVML_CLOCK_SM),
        "energy_mj": known(pynvml.nvmlDeviceGetTotalEnergyConsumption, handle),
        "throttles": None if reasons is None else [name for bit, name in _THROTTLES if int(reasons) & bit],
    }


def checkup(handle: Any) -> dict[str, Any]:
    """ECC counts since the driver was loaded, remapped rows, and what the driver advises."""
    errors = [
        known(pynvml.nvmlDeviceGetTotalEccErrors, handle, kind, pynvml.NVML_VOLATILE_ECC)
        for kind in (pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED, pynvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED)
    ]
    rows = known(pynvml.nvmlDeviceGetRemappedRows, handle)
    return {
        "ecc": None if None in errors else [int(number) for number in errors],
        "remapped": None if rows is None else [int(number) for number in rows],
        "recovery": _recovery(handle),
    }


def _recovery(handle: Any) -> str | None:
    fields = known(pynvml.nvmlDeviceGetFieldValues, handle, [_RECOVERY])
    if fields is None or fields[0].nvmlReturn != 0:
        return None
    advice = int(_number(fields[0].valueType, fields[0].value))
    return _ADVICE[advice] if 0 <= advice < len(_ADVICE) else "other"


def utilisation(handle: Any, since_us: int) -> tuple[float | None, float | None, int]:
    """Mean and highest per cent of the samples after `since_us`, and the time of the last; None without samples."""
    answer = known(pynvml.nvmlDeviceGetSamples, handle, pynvml.NVML_GPU_UTILIZATION_SAMPLES, since_us)
    kind, samples = answer or (0, ())
    values = [float(_number(kind, one.sampleValue)) for one in samples if int(one.timeStamp) > since_us]
    if not values:
        return None, None, since_us
    return sum(values) / len(values), max(values), max(int(one.timeStamp) for one in samples)


def _number(kind: int, value: Any) -> float:
    """One value of a union, by NVML's type of it; a type that is newer than this ds01 is read as its widest."""
    found: float = getattr(value, _NUMBERS.get(kind, "ullVal"), value.ullVal)
    return found


def numa_node(handle: Any) -> int | None:
    """The node whose memory is nearest; None when there are several, or NVML does not say."""
    words = known(pynvml.nvmlDeviceGetMemoryAffinity, handle, _NODES, pynvml.NVML_AFFINITY_SCOPE_NODE)
    nodes = [bit for bit in range(64) if words is not None and int(words[0]) >> bit & 1]
    return nodes[0] if len(nodes) == 1 else None
