"""Reading one GPU and its MIG devices: the part of the NVML process that asks about devices.

Each kind of value has its own rate, since power and ECC cost more than they change (gpu.md 1.4): processes,
memory and utilisation at each look, power to energy every 10 s, ECC to recovery action every 60 s, what never
changes once. SOURCE: NVML API reference; nvml.h 13.5.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pynvml

from allocator import nvml_codes
from allocator.nvml_codes import Action
from allocator.nvml_measure import checkup, known, numa_node, supported, utilisation, vitals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_VITALS_SECONDS: Final = 10
_CHECKUP_SECONDS: Final = 60
_LISTS: Final = (
    ("C", "nvmlDeviceGetComputeRunningProcesses"),
    ("G", "nvmlDeviceGetGraphicsRunningProcesses"),
    ("M", "nvmlDeviceGetMPSComputeRunningProcesses"),
)
_NO_INSTANCE: Final = 0xFFFFFFFF
_TRIES: Final = 3  # a list that grows between asking for its length and for itself

Wire = dict[str, Any]  # a device, as `allocator.worker` reads it


class Unidentified(Exception):  # noqa: N818  the name says what is wrong
    """The GPU could not say its UUID, now or ever before."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class SessionOver(Exception):  # noqa: N818  the name says what is wrong
    """The error is one of the whole session: nothing more can be read in this process."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class GpuReader:
    """One GPU of this session. For one thread at a time; `last` may be read from any."""

    def __init__(self, index: int, *, clock: Callable[[], float], listen: Callable[[Any, str], None]) -> None:
        """Nothing is asked yet. listen: called once with the GPU's handle and UUID, to hear of its events."""
        self._index = index
        self._clock = clock
        self._listen = listen
        self._facts: Wire = {}
        self._sampled_us = 0  # up to when utilisation was told
        self._vitals: Wire = {}
        self._checkup: Wire = {}
        self._vitals_due = self._checkup_due = float("-inf")
        self.last: tuple[Wire, ...] = ()  # as it was when it last answered; empty: it never did

    def examine(self) -> None:
        """Let the next look read ECC, rows and advice again, however young they are."""
        self._checkup_due = float("-inf")

    def read(self) -> tuple[Wire, ...]:
        """The GPU, then its MIG devices. Raises: Unidentified, SessionOver. With an error it is what it last was."""
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(self._index)
            self._identify(handle)
            found = (self._gpu(handle), *self._mig_devices(handle))
        except pynvml.NVMLError as error:
            if nvml_codes.action(error.value) in (Action.RESTART, Action.FREEZE):
                raise SessionOver(error.value) from error
            return self.failed(error.value)
        self.last = found
        return found

    def failed(self, code: int) -> tuple[Wire, ...]:
        """What it last was, with the state and the error of `code` and nothing that was measured."""
        if not self.last:
            raise Unidentified(code)
        return stale(self.last, {"state": nvml_codes.state(code).value, "error": code})

    def _identify(self, handle: Any) -> None:
        """What never changes, asked once for each UUID."""
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        if self._facts.get("uuid") == uuid:
            return
        pci = known(pynvml.nvmlDeviceGetPciInfo, handle)
        capability = known(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
        facts = {
            "uuid": uuid,
            "kind": "gpu",
            "index": str(self._index),
            "profile": supported(pynvml.nvmlDeviceGetName, handle) or "unknown",
            "serial": known(pynvml.nvmlDeviceGetSerial, handle),
            "minor": known(pynvml.nvmlDeviceGetMinorNumber, handle),
            "pci_bus_id": None if pci is None else _text(pci.busId),
            "compute_capability": None if capability is None else "{}.{}".format(*capability),
            "numa_node": numa_node(handle),
        }
        self._listen(handle, uuid)
        self._facts = facts
        self._sampled_us = 0  # nothing of another GPU that had this index is taken for this one's
        self._vitals_due = self._checkup_due = float("-inf")

    def _gpu(self, handle: Any) -> Wire:
        mode = supported(pynvml.nvmlDeviceGetMigMode, handle)
        total, used = _memory_mib(handle)
        # SECURITY: a GPU that is in MIG mode, or will be or stop being after a reset, is never leased whole.
        usable = mode is None or not any(mode)
        return self._facts | {
            "memory_mib": total,
            "mig_mode": None if mode is None else [bool(one) for one in mode],
            "processes": _processes(handle),
            "measures": self._measures(handle, used, in_mig_mode=mode is not None and bool(mode[0])),
            "state": "ok" if usable else "unusable",
        }

    def _measures(self, handle: Any, used_mib: int | None, *, in_mig_mode: bool) -> Wire:
        now = self._clock()
        if now >= self._vitals_due:
            self._vitals, self._vitals_due = vitals(handle), now + _VITALS_SECONDS
        if now >= self._checkup_due:
            self._checkup, self._checkup_due = checkup(handle), now + _CHECKUP_SECONDS
        mean = highest = None
        if not in_mig_mode:  # NVML has none then, whatever a driver answers
            mean, highest, self._sampled_us = utilisation(handle, self._sampled_us)
        own = {
            "memory_used_mib": used_mib,
            "utilisation_percent": mean,
            "utilisation_max_percent": highest,
        }
        return own | self._vitals | self._checkup

    def _mig_devices(self, gpu: Any) -> Iterator[Wire]:
        """Each is asked for anew: its handle may be another's after a change, and so may its UUID."""
        mode = supported(pynvml.nvmlDeviceGetMigMode, gpu)
        if mode is None or not mode[0]:
            return
        for place in range(pynvml.nvmlDeviceGetMaxMigDeviceCount(gpu)):
            try:
                handle = pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, place)
                uuid = pynvml.nvmlDeviceGetUUID(handle)
            except pynvml.NVMLError as error:
                if nvml_codes.action(error.value) is Action.GAP:
                    continue  # a gap in the numbering: devices behind it exist
                raise
            yield self._mig_device(gpu, handle, uuid, place)

    def _mig_device(self, gpu: Any, handle: Any, uuid: str, place: int) -> Wire:
        total, used = _memory_mib(handle)
        instance = known(pynvml.nvmlDeviceGetGpuInstanceId, handle)
        profile_id, placement = (None, None) if instance is None else _shape(gpu, instance)
        return {
            "uuid": uuid,
            "kind": "mig",
            "index": f"{self._index}:{place}",
            "parent": self._facts["uuid"],
            "profile": _profile(handle),
            "profile_id": profile_id,
            "placement": placement,
            "memory_mib": total,
            "gpu_instance_id": instance,
            "compute_instance_id": known(pynvml.nvmlDeviceGetComputeInstanceId, handle),
            "processes": _processes(handle),
            "measures": {"memory_used_mib": used},
            "numa_node": self._facts["numa_node"],
            "minor": self._facts["minor"],
            "compute_capability": self._facts["compute_capability"],
            "state": "ok",
        }


def stale(devices: tuple[Wire, ...], changes: Wire) -> tuple[Wire, ...]:
    """Devices of an earlier look: who they are, and nothing of what goes on on them."""
    return tuple(device | {"processes": None, "measures": {}} | changes for device in devices)


def _profile(handle: Any) -> str:
    """`1g.5gb`, from the end of NVML's name `NVIDIA A100-SXM4-40GB MIG 1g.5gb`."""
    name = _text(supported(pynvml.nvmlDeviceGetName, handle) or "")
    return name.rsplit("MIG ", 1)[-1] if "MIG " in name else "unknown"


def _shape(gpu: Any, instance: int) -> tuple[int | None, list[int] | None]:
    """Profile id and placement of a GPU instance; unknown to callers who may not manage instances."""
    found = known(pynvml.nvmlDeviceGetGpuInstanceById, gpu, instance)
    info = None if found is None else known(pynvml.nvmlGpuInstanceGetInfo, found)
    if info is None:
        return None, None
    return int(info.profileId), [int(info.placement.start), int(info.placement.size)]


def _memory_mib(handle: Any) -> tuple[int | None, int | None]:
    """All and used. The newer struct leaves out what the driver keeps for itself."""
    memory = known(pynvml.nvmlDeviceGetMemoryInfo, handle, pynvml.nvmlMemory_v2) or known(
        pynvml.nvmlDeviceGetMemoryInfo, handle
    )
    return (None, None) if memory is None else (int(memory.total) // 2**20, int(memory.used) // 2**20)


def _processes(handle: Any) -> list[list[Any]] | None:
    """Processes on a device; None as soon as the compute list is not known: unknown is never empty."""
    found = []
    for kind, name in _LISTS:
        listed = _listed(name, handle)
        if listed is None and kind == "C":
            return None
        found += [_process(process, kind) for process in listed or ()]
    return found


def _process(process: Any, kind: str) -> list[Any]:
    """Five values: half the bytes of names and values, and a machine may have thousands."""
    used = process.usedGpuMemory
    return [
        int(process.pid),
        None if used is None else int(used) // 2**20,
        *(None if one == _NO_INSTANCE else int(one) for one in _instances(process)),
        kind,
    ]


def _instances(process: Any) -> tuple[int, int]:
    return (
        getattr(process, "gpuInstanceId", _NO_INSTANCE),
        getattr(process, "computeInstanceId", _NO_INSTANCE),
    )


def _listed(name: str, handle: Any) -> list[Any] | None:
    """One list; drivers before 510 have only the second version of the call."""
    for version in (
        "_v3",
        "_v2",
    ):  # named, since pynvml's plain name fails with an error of its own on old drivers
        for _ in range(_TRIES):
            try:
                processes: list[Any] = getattr(pynvml, name + version)(handle)
            except pynvml.NVMLError as error:
                match nvml_codes.action(error.value):
                    case Action.RETRY:
                        continue
                    case Action.UNKNOWN_VALUE | Action.OLDER:
                        break
                    case Action.CONFIGURE | Action.GAP:
                        return None
                    case _:
                        raise
            return processes
    return None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
