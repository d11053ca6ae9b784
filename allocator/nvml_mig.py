"""NVML for changing MIG, in a process of its own: `python -m allocator.nvml_mig` carries out one JSON line from stdin and ends.

Beside the sweeping process, so that a step that hangs blinds nobody, and short-lived, so that no session of it is in the way of the
next one: a client that has the GPU open stops a change of its mode. SOURCE: NVML API reference, Multi-Instance GPU; nvml.h 13.5.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from ctypes import byref, c_uint
from typing import TYPE_CHECKING, Any, Final

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable

_NOT_OFFERED = (
    pynvml.NVML_ERROR_NOT_SUPPORTED,
    pynvml.NVML_ERROR_INVALID_ARGUMENT,
    pynvml.NVML_ERROR_NOT_FOUND,
)
_IN_EIGHTHS = 8  # memory slices of a GPU, after which a profile is named


class _CannotDoMig(Exception):  # noqa: N818  the name says what is wrong
    """A GPU without MIG."""


def describe() -> list[dict[str, Any]]:
    """Every GPU that is there and can do MIG, as `allocator.mig_driver` reads it. Raises: pynvml.NVMLError."""
    found = []
    for index in range(pynvml.nvmlDeviceGetCount()):
        # One that has fallen off the bus does not keep the others from being split.
        with suppress(pynvml.NVMLError_GpuIsLost, _CannotDoMig):
            found.append(_partition(index))
    return found


def create(gpu: str, profile: int, start: int, size: int) -> int:
    """A GPU instance with one compute instance over the whole of it. Returns: its id. Raises: pynvml.NVMLError.

    If no compute instance can be made, the GPU instance goes again: nobody could use it.
    """
    handle = pynvml.nvmlDeviceGetHandleByUUID(gpu)
    placement = pynvml.c_nvmlGpuInstancePlacement_t(start, size)
    instance = pynvml.nvmlDeviceCreateGpuInstanceWithPlacement(handle, profile, byref(placement))
    try:
        _fill(instance, _slices(handle, profile))
    except pynvml.NVMLError:
        pynvml.nvmlGpuInstanceDestroy(instance)
        raise
    return int(pynvml.nvmlGpuInstanceGetInfo(instance).id)


def destroy(gpu: str, number: int) -> None:
    """Every compute instance of a GPU instance, then itself; one that is gone already is no error. Raises: pynvml.NVMLError."""
    handle = pynvml.nvmlDeviceGetHandleByUUID(gpu)
    try:
        instance = pynvml.nvmlDeviceGetGpuInstanceById(handle, number)
    except pynvml.NVMLError_NotFound:
        return
    for _, compute in _compute_instances(instance):
        pynvml.nvmlComputeInstanceDestroy(compute)
    pynvml.nvmlGpuInstanceDestroy(instance)


def complete(gpu: str, number: int) -> None:
    """Make the compute instance of a GPU instance whose maker was stopped before it. Raises: pynvml.NVMLError."""
    handle = pynvml.nvmlDeviceGetHandleByUUID(gpu)
    instance = pynvml.nvmlDeviceGetGpuInstanceById(handle, number)
    if not _compute_instances(instance):
        _fill(instance, _slices(handle, pynvml.nvmlGpuInstanceGetInfo(instance).profileId))


def set_mode(gpu: str, *, enabled: bool) -> int:
    """Returns: NVML's activation status: 0 switched, else why it waits for a reset. Raises: pynvml.NVMLError."""
    handle = pynvml.nvmlDeviceGetHandleByUUID(gpu)
    return int(pynvml.nvmlDeviceSetMigMode(handle, int(enabled)))


def _partition(index: int) -> dict[str, Any]:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        now, pending = pynvml.nvmlDeviceGetMigMode(handle)
    except pynvml.NVMLError_NotSupported as error:
        raise _CannotDoMig from error
    profiles = _profiles(handle) if now else []
    return {
        "gpu": pynvml.nvmlDeviceGetUUID(handle),
        "index": str(index),
        "mig_now": bool(now),
        "mig_pending": bool(pending),
        "profiles": profiles,
        "instances": _instances(handle, profiles),
    }


def _fill(instance: Any, slices: int) -> None:
    """One compute instance with all slices of a GPU instance."""
    whole = next((info for info in _compute_profiles(instance) if info.sliceCount == slices), None)
    if whole is None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
    pynvml.nvmlGpuInstanceCreateComputeInstance(instance, whole.id)


def _slices(handle: Any, profile: int) -> int:
    return next(int(info.sliceCount) for info in _gpu_profiles(handle) if info.id == profile)


def _gpu_profiles(handle: Any) -> list[Any]:
    return _offered(
        pynvml.NVML_GPU_INSTANCE_PROFILE_COUNT,
        lambda kind: pynvml.nvmlDeviceGetGpuInstanceProfileInfo(handle, kind),
    )


def _compute_profiles(instance: Any) -> list[Any]:
    return _offered(
        pynvml.NVML_COMPUTE_INSTANCE_PROFILE_COUNT,
        lambda kind: pynvml.nvmlGpuInstanceGetComputeInstanceProfileInfo(instance, kind, 0),
    )


def _offered(count: int, ask: Callable[[int], Any]) -> list[Any]:
    """The answers for 0 to `count` - 1, without those that this GPU does not have: the numbering has gaps."""
    found = []
    for number in range(count):
        try:
            found.append(ask(number))
        except pynvml.NVMLError as error:
            if error.value not in _NOT_OFFERED:
                raise
    return found


def _profiles(handle: Any) -> list[dict[str, Any]]:
    total_mib = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) >> 20
    return [
        {
            "name": _name(info, total_mib),
            "number": int(info.id),
            "compute_slices": int(info.sliceCount),
            "most": int(info.instanceCount),
            **_placements(handle, int(info.id)),
        }
        for info in _gpu_profiles(handle)
    ]


def _name(info: Any, total_mib: int) -> str:
    """`1g.5gb`: as NVML says it, else made as NVIDIA makes it, from eighths of the memory."""
    text = str(info.name).removeprefix("MIG ")
    if text:
        return text
    eighths = -(-int(info.memorySizeMB) * _IN_EIGHTHS // total_mib)
    return f"{info.sliceCount}g.{eighths * total_mib // _IN_EIGHTHS // 1024}gb"


def _placements(handle: Any, profile: int) -> dict[str, Any]:
    count = c_uint(0)
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, None, byref(count))
    found = (pynvml.c_nvmlGpuInstancePlacement_t * count.value)()
    pynvml.nvmlDeviceGetGpuInstancePossiblePlacements(handle, profile, found, byref(count))
    placed = found[: count.value]
    return {
        "starts": sorted(int(item.start) for item in placed),
        "size": max(int(item.size) for item in placed),
    }


def _instances(handle: Any, profiles: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for profile in profiles:
        count = c_uint(profile["most"])
        listed = (pynvml.c_nvmlGpuInstance_t * profile["most"])()
        pynvml.nvmlDeviceGetGpuInstances(handle, profile["number"], listed, byref(count))
        for instance in listed[: count.value]:
            info = pynvml.nvmlGpuInstanceGetInfo(instance)
            found.append(
                {
                    "number": int(info.id),
                    "profile": profile["name"],
                    "compute_slices": profile["compute_slices"],
                    "start": int(info.placement.start),
                    "size": int(info.placement.size),
                    "compute_instances": [number for number, _ in _compute_instances(instance)],
                }
            )
    devices = _devices(handle)
    return [item | {"devices": devices.get(item["number"], [])} for item in found]


def _compute_instances(instance: Any) -> list[tuple[int, Any]]:
    """Id and handle of each, whatever its profile."""
    found: list[tuple[int, Any]] = []
    for info in _compute_profiles(instance):
        count = c_uint(info.instanceCount)
        listed = (pynvml.c_nvmlComputeInstance_t * info.instanceCount)()
        pynvml.nvmlGpuInstanceGetComputeInstances(instance, info.id, listed, byref(count))
        found += [(int(pynvml.nvmlComputeInstanceGetInfo(each).id), each) for each in listed[: count.value]]
    return found


def _devices(handle: Any) -> dict[int, list[str]]:
    """UUIDs of the MIG devices of each GPU instance."""
    found: dict[int, list[str]] = {}
    for device in _offered(
        pynvml.nvmlDeviceGetMaxMigDeviceCount(handle),
        lambda place: pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place),
    ):
        number = int(pynvml.nvmlDeviceGetGpuInstanceId(device))
        found.setdefault(number, []).append(pynvml.nvmlDeviceGetUUID(device))
    return found


_ACTS: Final[dict[str, Callable[..., Any]]] = {
    "describe": describe,
    "create": create,
    "destroy": destroy,
    "complete": complete,
    "set_mode": set_mode,
}


def answer(asked: dict[str, Any]) -> dict[str, Any]:
    """Carry out one command; `problem` and NVML's `code` when it fails."""
    arguments = {name: value for name, value in asked.items() if name != "do"}
    try:
        pynvml.nvmlInit()
        return {"result": _ACTS[asked["do"]](**arguments)}
    except pynvml.NVMLError as error:
        return {"problem": str(error), "code": error.value}


def main() -> None:
    """One line in, one line out."""
    sys.stdout.write(json.dumps(answer(json.loads(sys.stdin.readline()))) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
