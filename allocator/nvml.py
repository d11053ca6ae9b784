"""NVML, in a process of its own: `python -m allocator.nvml` answers each line on stdin with one JSON line.

A hung driver call can neither be cancelled nor, at times, killed; here it stops nobody but this process.
The only module that imports pynvml. SOURCE: NVML API reference; nvml.h 13.5.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NO_GPUS = 1  # NVML_INIT_FLAG_NO_GPUS: start even with every GPU gone
_GONE = (pynvml.NVML_ERROR_GPU_IS_LOST, pynvml.NVML_ERROR_RESET_REQUIRED)
_GAPS = (pynvml.NVML_ERROR_NOT_FOUND, pynvml.NVML_ERROR_INVALID_ARGUMENT)
_PROCESS_LISTS = (
    "nvmlDeviceGetComputeRunningProcesses",
    "nvmlDeviceGetGraphicsRunningProcesses",
    "nvmlDeviceGetMPSComputeRunningProcesses",
)


def sweep() -> list[dict[str, Any]]:
    """Every GPU and MIG device, as `allocator.worker` reads them. Raises: pynvml.NVMLError."""
    return [device for index in range(pynvml.nvmlDeviceGetCount()) for device in _gpu(index)]


def _gpu(index: int) -> Iterator[dict[str, Any]]:
    """One GPU and its MIG devices. A GPU that cannot even say its UUID is left out: its leases become lost."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
    except pynvml.NVMLError as error:
        if error.value in (*_GONE, pynvml.NVML_ERROR_UNKNOWN):
            return
        raise
    described = {
        "uuid": uuid,
        "kind": "gpu",
        "index": str(index),
        "profile": "",
        "memory_mib": None,
        "pids": None,
    }
    try:
        mode = _known(pynvml.nvmlDeviceGetMigMode, handle)
        described["profile"] = _known(pynvml.nvmlDeviceGetName, handle) or "unknown"
        described["memory_mib"] = _memory_mib(handle)
        described["pids"] = _pids(handle)
        # SECURITY: a GPU that is in MIG mode, or will be or stop being after a reset, is never leased whole.
        in_mig_mode = mode is not None and any(mode)
        described["state"] = "unusable" if in_mig_mode else "ok"
        parts = list(_mig_devices(handle, index, uuid)) if mode is not None and mode[0] else []
    except pynvml.NVMLError as error:
        yield described | {"state": "lost" if error.value in _GONE else "quarantined"}
        return
    yield described
    yield from parts


def _mig_devices(gpu: Any, index: int, parent: str) -> Iterator[dict[str, Any]]:
    for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
        try:
            handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
        except pynvml.NVMLError as error:
            if error.value in _GAPS:
                continue  # a gap in the numbering: devices behind it exist
            raise
        yield {
            "uuid": pynvml.nvmlDeviceGetUUID(handle),
            "kind": "mig",
            "index": f"{index}:{place}",
            "parent": parent,
            "profile": _profile(handle),
            "memory_mib": _memory_mib(handle),
            "gpu_instance_id": _known(pynvml.nvmlDeviceGetGpuInstanceId, handle),
            "compute_instance_id": _known(pynvml.nvmlDeviceGetComputeInstanceId, handle),
            "pids": _pids(handle),
            "state": "ok",
        }


def _profile(handle: Any) -> str:
    """`1g.5gb`, from the end of NVML's name `NVIDIA A100-SXM4-40GB MIG 1g.5gb`."""
    name = _known(pynvml.nvmlDeviceGetName, handle) or ""
    return name.rsplit("MIG ", 1)[-1] if "MIG " in name else "unknown"


def _memory_mib(handle: Any) -> int | None:
    memory = _known(pynvml.nvmlDeviceGetMemoryInfo, handle)
    return None if memory is None else int(memory.total) // 2**20


def _pids(handle: Any) -> list[int] | None:
    """Processes on a device; None as soon as the compute list is not known: unknown is never empty."""
    found: set[int] = set()
    for name in _PROCESS_LISTS:
        processes = _known(getattr(pynvml, name), handle)
        if processes is None and name == _PROCESS_LISTS[0]:
            return None
        found.update(int(process.pid) for process in processes or ())
    return sorted(found)


def _known(ask: Callable[[Any], Any], handle: Any) -> Any:
    """The answer, or None where device or driver does not support the question."""
    try:
        return ask(handle)
    except pynvml.NVMLError as error:
        if error.value in (pynvml.NVML_ERROR_NOT_SUPPORTED, pynvml.NVML_ERROR_FUNCTION_NOT_FOUND):
            return None
        raise


def answer() -> dict[str, Any]:
    """One sweep, or why there is none. A session that has failed is started again by the next line."""
    try:
        return {"devices": sweep()}
    except pynvml.NVMLError as error:
        return {"problem": str(error)}


def main() -> None:
    """Serve until stdin ends. NVML is started before the first answer and kept."""
    started = False
    for _line in sys.stdin:
        try:
            if not started:
                pynvml.nvmlInitWithFlags(_NO_GPUS)
                started = True
            said = answer()
        except pynvml.NVMLError as error:
            said = {"problem": str(error)}
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        if "problem" in said and started:
            pynvml.nvmlShutdown()
            started = False


if __name__ == "__main__":
    main()
